"""Joint-space demonstrations through the one kinematics and codec that also drive the arm."""

from __future__ import annotations

import sys

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.files import content_hash, source_hash
from hilserl.robot.codec import ActionCodec
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.state import assemble_state, joint_velocity
from hilserl.robot.units import joints_from_lerobot, joints_to_lerobot


class RobotJointConverter:
    """Convert joints in LeRobot's units (degrees, gripper 0-100) into the policy's state and actions."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._kinematics = Kinematics()
        self._codec = ActionCodec(config, self._kinematics)

    @property
    def version(self) -> str:
        """Identify code and settings, for the buffer's cache key."""
        from hilserl.robot import codec, kinematics, least_squares, model, state, units

        robot = {name: value for name, value in self._config.robot.scene_facts().items() if name != "cameras"}
        return content_hash([source_hash(codec, kinematics, least_squares, model, state, units, sys.modules[__name__]), robot])

    def __reduce__(self) -> tuple[type[RobotJointConverter], tuple[TrainConfig]]:
        """Travel to another thread or process as the configuration it was made from: kinematics own scratch memory."""
        return RobotJointConverter, (self._config,)

    def radians(self, joints: np.ndarray) -> np.ndarray:
        """Convert joints (..., 6) from LeRobot's units to radians."""
        return joints_from_lerobot(joints)

    def lerobot_units(self, joints_rad: np.ndarray) -> np.ndarray:
        """Convert joints (..., 6) from radians to LeRobot's units."""
        return joints_to_lerobot(joints_rad)

    def state(self, joint_pos: np.ndarray) -> np.ndarray:
        """Compute the state of one episode, (T, S), from joints (T, 6); velocities by finite difference within it."""
        joints = joints_from_lerobot(joint_pos)
        previous = [None, *joints[:-1]]
        hz = self._config.robot.control_hz
        return np.stack(
            [
                assemble_state(self._config, self._kinematics, now, joint_velocity(now, before, hz))
                for now, before in zip(joints, previous, strict=True)
            ]
        )

    def actions(self, joint_pos: np.ndarray, joint_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Express one episode's joint targets (T, 6) as actions (T, A), with the residual (T,) [m]."""
        pairs = zip(joints_from_lerobot(joint_pos), joints_from_lerobot(joint_target), strict=True)
        actions, residuals = zip(*(self._codec.encode(now, target) for now, target in pairs), strict=True)
        return np.stack(actions), np.array(residuals)
