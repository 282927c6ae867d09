"""The environment of a real arm: its driver. What success is, the wrapper around it says (`hilserl.environments.judged`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.robot.cameras import Image
from hilserl.robot.environment import Judgement, So101Arm

Array = NDArray[np.floating[Any]]


class NobodyReferee:
    """Knows nothing of the scene: a person arranges it."""

    def begin(self, generator: np.random.Generator) -> None:
        """Leave the scene to the person."""

    def judge(self, joint_pos_rad: Array, images: dict[str, Image]) -> Judgement:
        """Say nothing."""
        return Judgement(False)


def make_real_arm(config: TrainConfig) -> So101Arm:
    """Connect the arm and the cameras of a configuration.

    Raises:
        RobotError: A camera or the arm is missing, or may not be used.
    """
    return So101Arm(config, NobodyReferee())
