"""What conversion needs from the rooms above: the arm's kinematics, and a judge of success.

Both are handed in by who starts a conversion, and travel with it to other threads, processes and machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np


class JointConverter(Protocol):
    """The one kinematics and action codec, for datasets recorded in joint space.

    Joints are `JOINT_NAMES` in LeRobot's units: degrees, the gripper 0-100 %.

    Attributes:
        version: Identifies its code, model and settings; part of the buffer's cache key.
    """

    @property
    def version(self) -> str:
        """Identify code, model and settings."""

    def radians(self, joints: np.ndarray) -> np.ndarray:
        """Convert joints (..., 6) from LeRobot's units to radians."""

    def lerobot_units(self, joints_rad: np.ndarray) -> np.ndarray:
        """Convert joints (..., 6) from radians to LeRobot's units."""

    def state(self, joint_pos: np.ndarray) -> np.ndarray:
        """Compute the policy's state of one episode, shape (T, S), from joint positions, shape (T, 6)."""

    def actions(self, joint_pos: np.ndarray, joint_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Express one episode's joint targets in the policy's action space.

        Args:
            joint_pos: Measured positions, shape (T, 6).
            joint_target: Targets sent at the same steps, shape (T, 6).

        Returns:
            Actions, shape (T, A), not clipped, and the tool position error of replaying them, shape (T,) [m].
        """


class SuccessJudge(Protocol):
    """A success classifier, for datasets without a reward. Travels to other threads and processes by `pickle`, as its folder's name.

    Attributes:
        version: Identifies its weights, preprocessing and threshold; part of the buffer's cache key.
        cameras: Names of the cameras that it looks at.
    """

    @property
    def version(self) -> str:
        """Identify weights, preprocessing and threshold."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Name the cameras that it looks at."""

    def rewards(self, frames: Iterator[Mapping[str, np.ndarray]]) -> np.ndarray:
        """Judge the frames of one episode, in order.

        Args:
            frames: Native frames by camera, uint8 RGB, shape (H, W, 3) each.

        Returns:
            Reward of each frame, float32, shape (T,): 1 where the task is done.
        """
