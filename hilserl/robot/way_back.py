"""The way to where an episode begins: straight up first, and where something blocks it, back along the way it came."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.environment import RobotConfig
from hilserl.errors import BlockedError, RobotError
from hilserl.robot.arm import Arm
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.units import GRIPPER

logger = logging.getLogger(__name__)

Array = NDArray[np.floating[Any]]

_REACHABLE_M = 0.005
_LEAST_ERROR_M = 0.005
_STEPS_BACK = 20  # of an episode: 2 s at 10 Hz
_EVERY = 4
_STALLS_BACK = 2  # with one before and one after, fewer than the 5 after which the arm is taken down


class WayBack:
    """Moves one arm between its episodes."""

    def __init__(self, robot: RobotConfig, arm: Arm, kinematics: Kinematics) -> None:
        self._robot, self._arm, self._kinematics = robot, arm, kinematics
        self._came: deque[Array] = deque(maxlen=_STEPS_BACK)

    def came_by(self, joint_pos_rad: Array) -> None:
        """Remember where the arm was without anything in its way [rad], shape (6,)."""
        self._came.append(joint_pos_rad.copy())

    def go(self, joints_rad: Array, wanted_m: Array) -> float:
        """Move to a pose; a policy that explores leaves the arm pressed against table or cube, so it may have to get free first.

        Args:
            joints_rad: The pose [rad], shape (6,).
            wanted_m: Where its tool is, base frame [m], shape (3,).

        Returns:
            How far the tool is from there [m].

        Raises:
            BlockedError: Something is in its way, from wherever it was tried.
            RobotError: The arm was stopped, or misses the pose by more than the starts of episodes differ.
        """
        try:
            error_m = self._rise_and_approach(joints_rad, wanted_m)
        except BlockedError as error:
            logger.warning("%s It goes back the way it came, and tries once more.", error)
            self._retrace()
            try:
                error_m = self._rise_and_approach(joints_rad, wanted_m)
            except BlockedError as again:
                raise BlockedError(f"{again} It had gone back the way it came, and was blocked again: clear its way.") from None
        self._came.clear()
        return error_m

    def rise(self, height_m: float) -> None:
        """Lift the tool straight up to a height, where it can: what lies on the table stays there."""
        joints = self._arm.state.joint_pos_rad
        tool, _ = self._kinematics.forward(joints)
        if tool[2] >= height_m:
            return
        raised, residual_m = self._kinematics.inverse_with_residual(joints, np.array([tool[0], tool[1], height_m]))
        if residual_m < _REACHABLE_M:
            self._arm.move_to(raised, self._robot.reset_speed_rad_s)

    def _rise_and_approach(self, joints_rad: Array, wanted_m: Array) -> float:
        self.rise(float(wanted_m[2]))
        return self._approach(joints_rad, wanted_m)

    def _approach(self, joints_rad: Array, wanted_m: Array) -> float:
        aimed = joints_rad
        tolerance_m = max(self._robot.reset_noise_m, _LEAST_ERROR_M)
        for _ in range(2):  # a weak arm is led a little further the second time
            left = self._arm.move_to(aimed, self._robot.reset_speed_rad_s)
            error_m = float(np.linalg.norm(self._kinematics.forward(self._arm.state.joint_pos_rad)[0] - wanted_m))
            if error_m <= 0.5 * tolerance_m:
                return error_m
            left[GRIPPER] = 0.0
            aimed = self._kinematics.clamp_to_limits(aimed - left)
        if error_m > tolerance_m:
            raise RobotError(
                f"robot `{self._robot.id}` starts {error_m * 1000:.1f} mm from where it should; the starts differ by "
                f"{self._robot.reset_noise_m * 1000:.1f} mm (`robot.reset_noise_m`), so they would mean nothing. Look for what holds "
                "the arm, calibrate it again, or raise `robot.torque_limit_pct`."
            )
        return error_m

    def _retrace(self) -> None:
        """Go back through where it was: nothing was in its way there a moment ago."""
        stalls = 0
        for pose in list(self._came)[::-_EVERY]:
            try:
                self._arm.move_to(pose, self._robot.reset_speed_rad_s)
            except BlockedError:
                stalls += 1  # what it is jammed in may begin before this pose: the next lies further back
                if stalls == _STALLS_BACK:
                    return
