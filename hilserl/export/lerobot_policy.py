"""A policy folder of LeRobot's, loaded and run the way LeRobot's own tools do."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from hilserl.errors import CheckpointError

PLUGIN = "lerobot_policy_hilserl"
_PLUGIN_SOURCE = Path(__file__).resolve().parents[2] / "plugins" / PLUGIN / "src"


class LeRobotPolicy:
    """Acts on native observations through LeRobot's loader, processors and `select_action`.

    The calls are those of `lerobot-rollout` (lerobot 0.6.1, `rollout/context.py` and `rollout/inference/sync.py`).
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from lerobot.configs import PreTrainedConfig
        from lerobot.policies import get_policy_class, make_pre_post_processors

        self._device = torch.device(device)
        with contextlib.redirect_stdout(io.StringIO()):  # LeRobot prints while it loads
            config = PreTrainedConfig.from_pretrained(folder)
            config.device = device
            self._policy = get_policy_class(config.type).from_pretrained(folder, config=config).to(device).eval()
        self._preprocessor, self._postprocessor = make_pre_post_processors(
            config,
            pretrained_path=str(folder),
            preprocessor_overrides={"device_processor": {"device": device}, "rename_observations_processor": {"rename_map": {}}},
        )

    @torch.inference_mode()
    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Choose an action.

        Args:
            observation: Native: `observation.state` (S,) float32 and `observation.images.<camera>` uint8 (H, W, 3).

        Returns:
            Action, (A,) float32.
        """
        from lerobot.policies.utils import prepare_observation_for_inference

        batch = prepare_observation_for_inference(dict(observation), self._device, task="", robot_type="")
        action = self._postprocessor(self._policy.select_action(self._preprocessor(batch)))
        result: np.ndarray = action.squeeze(0).cpu().numpy()
        return result


def import_plugin() -> None:
    """Register the policy type `hilserl` with LeRobot in this process, as LeRobot's commands do by themselves.

    Raises:
        CheckpointError: The plugin distribution is not installed, and this is no checkout that holds it.
    """
    if importlib.util.find_spec(PLUGIN) is None and _PLUGIN_SOURCE.is_dir():
        sys.path.append(str(_PLUGIN_SOURCE))
        importlib.invalidate_caches()
    try:
        importlib.import_module(PLUGIN)
    except ModuleNotFoundError as error:
        if error.name != PLUGIN:
            raise
        raise CheckpointError(
            f"the LeRobot plugin `{PLUGIN}` is not installed. Install it from a checkout of hilserl: `uv pip install ./plugins/{PLUGIN}`."
        ) from None
