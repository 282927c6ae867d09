"""The policy type `hilserl`: the networks and the preprocessor that were trained, behind LeRobot's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from hilserl.data.preprocess import Preprocessor
from hilserl.errors import TrainingError
from hilserl.policy import Policy, PolicyArchitecture

from .configuration_hilserl import HilserlConfig


class HilserlPolicy(PreTrainedPolicy):
    """Acts deterministically on LeRobot's batches; preprocessing and gripper are inside."""

    config_class = HilserlConfig
    name = "hilserl"

    def __init__(self, config: HilserlConfig, **unused: Any) -> None:
        """Build the networks without weights.

        Args:
            config: Read from `config.json`.
            unused: What LeRobot's factory gives to every policy, such as `dataset_stats`.
        """
        super().__init__(config)
        config.validate_features()
        policy = Policy(PolicyArchitecture.model_validate(config.architecture), Preprocessor.from_dict(config.preprocessor))
        self.networks = policy.networks
        self._preprocess = policy.preprocessor

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **unused: Any) -> Tensor:
        """Choose actions.

        Args:
            batch: `observation.state` (B, S) in the units and order of `config.preprocessor`, and
                `observation.images.<camera>` (B, 3, H, W) as the camera delivers it: float in [0, 1], or uint8.
                Other keys are ignored.
            unused: For policies that take noise.

        Returns:
            Actions (B, A) in [-1, 1], on the policy's device.

        Raises:
            TrainingError: An observation is missing, or is not what the policy was trained on.
        """
        device = next(self.parameters()).device
        native = {key: _native(key, batch[key]) for key in self._preprocess.schema.observation if key in batch}
        rows = {len(values) for values in native.values()}
        if len(rows) > 1:
            raise TrainingError(f"the batch has {sorted(rows)} rows, depending on the key: {sorted(native)}. Give each a batch dimension.")
        seen = [self._preprocess({key: values[row] for key, values in native.items()}) for row in range(max(rows, default=1))]
        inputs = {key: torch.from_numpy(np.stack([each[key] for each in seen])).to(device) for key in seen[0]}
        state = inputs.pop("observation.state")
        return self.networks(state, {key.removeprefix("observation.images."): images for key, images in inputs.items()})

    def predict_action_chunk(self, batch: dict[str, Any], **unused: Any) -> Tensor:
        """Return `select_action` as a chunk of one, (B, 1, A)."""
        return self.select_action(batch).unsqueeze(1)

    def reset(self) -> None:
        """Do nothing: an action depends on the present observation only."""

    def get_optim_params(self) -> list[Tensor]:
        """Return the parameters, for LeRobot's interface."""
        return list(self.parameters())

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any] | None]:
        """Refuse: LeRobot cannot train this policy.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a hilserl policy is trained by `hilserl`, and only run by LeRobot")


def _native(key: str, values: Tensor) -> np.ndarray:
    """Turn one batched entry into what the preprocessor takes: float32 (B, S), or uint8 (B, H, W, 3).

    LeRobot divides pixels by 255; rounding gets back exactly what the camera delivered.
    """
    if not key.startswith("observation.images."):
        return values.detach().to("cpu", torch.float32).numpy()
    if values.ndim != 4:
        raise TrainingError(f"`{key}` has shape {tuple(values.shape)}, a batch of images is (B, 3, H, W)")
    images = values.detach()
    if images.is_floating_point():
        low, high = float(images.amin()), float(images.amax())
        if not 0.0 <= low <= high <= 1.0:
            raise TrainingError(
                f"`{key}` has values from {low:.3g} to {high:.3g}; a float image is 0 to 1, not normalised. "
                "This policy scales images itself: give what the camera delivers, divided by 255, or uint8."
            )
        images = images.float().mul(255.0).round()
    return images.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
