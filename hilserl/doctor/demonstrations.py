"""What the demonstrations say about where an episode starts, how the state is scaled, and what a picture looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.data.buffer_build import get_or_build
from hilserl.data.interfaces import SuccessJudge
from hilserl.data.normalize import StateNormalizer
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.demonstrations import demonstration_folder, verify_recording
from hilserl.doctor.findings import Finding
from hilserl.files import home
from hilserl.joints import RobotJointConverter
from hilserl.robot.kinematics import HOME_RAD, Kinematics
from hilserl.schema import state_components

Array = NDArray[np.floating[Any]]

_REACHED_M = 0.005
_NEAR_M, _FAR_M = 0.02, 0.05  # from where the demonstrations start


@dataclass(frozen=True)
class Demonstrations:
    """What is compared with the live arm.

    Attributes:
        normalizer: Scaling of the state.
        starts_m: Tool positions at the first step of each episode, base frame [m], shape (E, 3); None: `ee_pos` is no part of the state.
        images: First pictures of the first episode, uint8, (H, W, 3), as the policy sees them, by key.
        episodes: How many.
    """

    normalizer: StateNormalizer
    starts_m: Array | None
    images: dict[str, NDArray[np.uint8]]
    episodes: int

    @classmethod
    def of(cls, config: TrainConfig, load_judge: Callable[[Path], SuccessJudge]) -> Demonstrations | None:
        """Convert the demonstrations as the training does, or find them converted; None where this host has none.

        Raises:
            HilserlError: They cannot be converted.
        """
        folder = config.dataset.root
        if config.dataset.record is not None:
            folder = demonstration_folder(config)
            if verify_recording(folder):
                return None  # the training records them first
        elif folder is not None and not folder.exists():
            return None
        manifest, _, _ = get_or_build(config, folder, home() / "buffers", RobotJointConverter(config), load_judge=load_judge)
        buffer = OfflineBuffer.open(manifest.folder)
        columns = buffer.columns
        _, first = np.unique(columns["episode"], return_index=True)
        names = [scalar for component in state_components(config) for scalar in component.scalars]
        where = [index for index, name in enumerate(names) if name.startswith("ee_pos.")]
        shard = next(buffer.shards())
        images = {key: np.array(pictures[0]) for key, pictures in shard.images.items()}
        return cls(buffer.normalizer, columns["state"][first][:, where].astype(np.float64) if where else None, images, len(first))


def examine_start(config: TrainConfig, demonstrations: Demonstrations | None) -> Finding:
    """Compare where episodes begin with what the arm reaches, what is allowed, and where the demonstrations began."""
    robot, kinematics = config.robot, Kinematics()
    reset_m = np.array(robot.reset_ee_pos_m)
    corners = reset_m + robot.reset_noise_m * np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    residual_m = max(kinematics.inverse_with_residual(np.array(HOME_RAD), corner)[1] for corner in corners)
    shown = f"reset to {_mm(reset_m)} ± {1000 * robot.reset_noise_m:.0f} mm"
    if residual_m > _REACHED_M:
        return Finding(
            "FAIL", "start", f"{shown}: the arm ends up to {1000 * residual_m:.0f} mm away.", "Choose another `robot.reset_ee_pos_m`."
        )
    if demonstrations is None or demonstrations.starts_m is None:
        return Finding("note", "start", f"{shown} is reachable; no demonstrations here to compare it with")
    low, high = demonstrations.starts_m.min(axis=0), demonstrations.starts_m.max(axis=0)
    outside_m = float(np.maximum(low - reset_m, reset_m - high).max())
    text = f"{shown}; {demonstrations.episodes} demonstrations start from {_mm(low)} to {_mm(high)} mm"
    remedy = "Set `robot.reset_ee_pos_m` to where they start, or record demonstrations from there."
    if outside_m > _FAR_M:
        return Finding("FAIL", "start", f"{text}: {1000 * outside_m:.0f} mm outside.", remedy)
    if outside_m > _NEAR_M:
        return Finding("note", "start", f"{text}: {1000 * outside_m:.0f} mm outside.", remedy)
    return Finding("ok", "start", text)


def _mm(position_m: Array) -> str:
    return "[" + ", ".join(f"{1000 * value:.0f}" for value in position_m) + "]"
