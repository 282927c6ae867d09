"""The environment of a real arm: its driver, and who says whether the task is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.debounce import debounce
from hilserl.robot.cameras import Image
from hilserl.robot.environment import Judgement, So101Arm

Array = NDArray[np.floating[Any]]


class ClassifierReferee:
    """A success classifier looks at every frame, exactly as it judged the demonstrations. The scene is arranged by a person."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        """Read the classifier.

        Raises:
            CheckpointError: It is missing or damaged.
            ConfigError: It needs a camera that the policy does not use.
        """
        self._classifier = SuccessClassifier.load(folder)
        self._above: list[bool] = []
        if missing := sorted(set(self._classifier.cameras) - set(config.observation.images)):
            raise ConfigError(
                f"task.classifier {folder} looks at camera `{missing[0]}`, and observation.images has {sorted(config.observation.images)}. "
                "Add the camera, or train a classifier for those."
            )

    def begin(self, generator: np.random.Generator) -> None:
        """Forget the last episode."""
        self._above.clear()

    def judge(self, joint_pos_rad: Array, images: dict[str, Image]) -> Judgement:
        """Judge the newest frames."""
        probability = self._classifier.probabilities({camera: images[camera][None] for camera in self._classifier.cameras})
        self._above.append(bool(probability[0] >= self._classifier.threshold))
        success, _ = debounce(np.array(self._above), self._classifier.hold_frames)
        return Judgement(bool(success[-1]))


class PersonReferee:
    """Nobody but the person at the arm knows: the actor takes success and failure from the keys that they press."""

    def begin(self, generator: np.random.Generator) -> None:
        """Leave the scene to the person."""

    def judge(self, joint_pos_rad: Array, images: dict[str, Image]) -> Judgement:
        """Say nothing."""
        return Judgement(False)


def make_real_arm(config: TrainConfig) -> So101Arm:
    """Connect the arm and the cameras of a configuration.

    Raises:
        RobotError: A camera or the arm is missing, or may not be used.
        CheckpointError: The success classifier is missing or damaged.
    """
    folder = config.task.classifier
    return So101Arm(config, PersonReferee() if folder is None else ClassifierReferee(config, folder))
