"""Configuration of the policy type `hilserl`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamConfig
from lerobot.utils.constants import ACTION, OBS_STATE

FORMAT_VERSION = 1


@PreTrainedConfig.register_subclass("hilserl")
@dataclass
class HilserlConfig(PreTrainedConfig):
    """A policy trained by hilserl: everything but its weights.

    Attributes:
        format_version: Of this configuration.
        architecture: `hilserl.policy.PolicyArchitecture` as JSON: sizes, encoders, gripper.
        preprocessor: `hilserl.data.preprocess.Preprocessor` as JSON: names and units of the state and
            the action, crop and resize of each camera.
    """

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {kind: NormalizationMode.IDENTITY for kind in ("VISUAL", "STATE", "ACTION")}
    )
    format_version: int = FORMAT_VERSION
    architecture: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)

    def validate_features(self) -> None:
        """Require a state and an action.

        Raises:
            ValueError: One is missing, or the configuration is of another version.
        """
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"the policy was exported in format {self.format_version}, this lerobot_policy_hilserl reads {FORMAT_VERSION}. "
                "Export it again, or install the version of the plugin that belongs to it."
            )
        if OBS_STATE not in (self.input_features or {}) or ACTION not in (self.output_features or {}):
            raise ValueError(f"a hilserl policy takes `{OBS_STATE}` and returns `{ACTION}`: config.json is damaged. Export it again.")

    @property
    def observation_delta_indices(self) -> None:
        """One observation at a time."""
        return None

    @property
    def action_delta_indices(self) -> None:
        """One action at a time."""
        return None

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None

    def get_optimizer_preset(self) -> AdamConfig:
        """Return LeRobot's default; a policy of this type is trained by hilserl, not by LeRobot."""
        return AdamConfig()

    def get_scheduler_preset(self) -> None:
        """Return no scheduler."""
        return None
