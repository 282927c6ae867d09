"""What a command may be: the one gate between anybody's wish and the servos (FAILURES R04, R22)."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.config.environment import RobotConfig
from hilserl.errors import RobotError
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.units import GRIPPER
from hilserl.schema import JOINT_NAMES

Array = NDArray[np.floating[Any]]

_HALVINGS = 12
_ROUNDING_RAD = 1e-9
_SLACK_M = 2e-3  # of the workspace's walls: an arm that slides along one would stick to it otherwise
_ROUNDING_M = 1e-6


@dataclass(frozen=True)
class Clips:
    """How often commands were changed, by reason: once a tick and reason, however many joints.

    Attributes:
        joint: Beyond a joint's range.
        workspace: The tool would leave the workspace.
        lead: Too far ahead of where a joint is.
        speed: Faster than allowed.
    """

    joint: int = 0
    workspace: int = 0
    lead: int = 0
    speed: int = 0

    def __add__(self, other: Clips) -> Clips:
        return Clips(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))

    @property
    def by_reason(self) -> dict[str, int]:
        """Counts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Limits:
    """Turns what somebody wants into what the servos are told.

    Attributes:
        lower_rad: Lowest command [rad], shape (6,).
        upper_rad: Highest command [rad], shape (6,).
    """

    def __init__(
        self, robot: RobotConfig, kinematics: Kinematics, *, lower_rad: ArrayLike | None = None, upper_rad: ArrayLike | None = None
    ) -> None:
        """Set the limits of one arm.

        Args:
            robot: Its workspace, speed and safety settings.
            kinematics: Of the arm; its joint limits hold as well.
            lower_rad: Lower ends of the calibrated ranges [rad], shape (6,).
            upper_rad: Upper ends [rad], shape (6,).
        """
        settings = robot.safety
        margin = np.full(len(JOINT_NAMES), settings.joint_margin_rad)
        margin[GRIPPER] = 0.0  # closed is the end of its range
        lower = kinematics.lower_rad if lower_rad is None else np.maximum(kinematics.lower_rad, lower_rad)
        upper = kinematics.upper_rad if upper_rad is None else np.minimum(kinematics.upper_rad, upper_rad)
        self.lower_rad: Array = lower + margin
        self.upper_rad: Array = upper - margin
        self._kinematics = kinematics
        self._speed_rad_s = robot.max_joint_speed_rad_s
        self._lead_rad = np.full(len(JOINT_NAMES), settings.max_lead_rad)
        self._lead_rad[GRIPPER] = settings.max_gripper_lead_rad
        self._low_m, self._high_m = np.array(robot.workspace_min_m), np.array(robot.workspace_max_m)

    def clamp(
        self, target_rad: ArrayLike, last_command_rad: Array, measured_rad: Array, dt_s: float, *, workspace: bool = True
    ) -> tuple[Array, Clips]:
        """Return the nearest command that is allowed.

        Where the arm already is outside a limit, it may stay or come back, and not go farther out.

        Args:
            target_rad: What is wanted [rad], shape (6,).
            last_command_rad: What was commanded last [rad], shape (6,).
            measured_rad: Where the joints are [rad], shape (6,); NaN where that is not known.
            dt_s: Time between commands [s].
            workspace: Whether the tool's box holds: not on the way from and to the resting place.

        Returns:
            The command [rad], shape (6,), and what was changed.

        Raises:
            RobotError: The target is not finite, or not six joints.
        """
        wanted = self._checked(target_rad)
        inside = np.clip(wanted, np.minimum(self.lower_rad, last_command_rad), np.maximum(self.upper_rad, last_command_rad))
        boxed = self._boxed(inside, last_command_rad) if workspace else inside
        known = np.isfinite(measured_rad)
        where = np.where(known, measured_rad, boxed)
        led = np.clip(boxed, where - self._lead_rad, where + self._lead_rad)
        step = self._speed_rad_s * dt_s
        slow = np.clip(led, last_command_rad - step, last_command_rad + step)
        return slow, Clips(*(_changed(*pair) for pair in ((wanted, inside), (inside, boxed), (boxed, led), (led, slow))))

    def _checked(self, target_rad: ArrayLike) -> Array:
        target = np.asarray(target_rad, dtype=np.float64)
        if target.shape != (len(JOINT_NAMES),):
            raise RobotError(f"a command has shape {target.shape}, an SO-101 has {len(JOINT_NAMES)} joints. The arm was not moved.")
        if not np.isfinite(target).all():
            named = {name: value for name, value in zip(JOINT_NAMES, target.tolist(), strict=True) if not np.isfinite(value)}
            raise RobotError(f"commanded joints {named} rad are not finite. The arm was not moved; check who commands it.")
        return target

    def _boxed(self, wanted: Array, last: Array) -> Array:
        """Go from `last` towards `wanted` as far as the tool stays in the box, or comes no farther out of it."""
        allowed_m = np.maximum(self._outside_m(last) + _ROUNDING_M, _SLACK_M)
        if (self._outside_m(wanted) <= allowed_m).all():
            return wanted
        inside, outside = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2.0
            if (self._outside_m(last + middle * (wanted - last)) <= allowed_m).all():
                inside = middle
            else:
                outside = middle
        boxed = last + inside * (wanted - last)
        boxed[GRIPPER] = wanted[GRIPPER]  # the jaw does not move the tool
        return boxed

    def _outside_m(self, joints_rad: Array) -> Array:
        """Return how far the tool is outside each side of the box [m], shape (3,)."""
        tool, _ = self._kinematics.forward(joints_rad)
        outside: Array = np.maximum(np.maximum(self._low_m - tool, tool - self._high_m), 0.0)
        return outside


def _changed(before: Array, after: Array) -> int:
    return int((np.abs(after - before) > _ROUNDING_RAD).any())
