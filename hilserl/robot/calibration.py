"""LeRobot's calibration of an arm, and with it the only place that turns ticks into radians and back (FAILURES R01, R07).

LeRobot 0.6.1 in degrees: a body joint is 0 in the middle of its calibrated range, a tick is 360/4095 deg, and the
gripper is 0 to 100 % of its range. Its file and the servos' EEPROM must agree: the servos add the offset themselves.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.config.environment import RobotConfig
from hilserl.errors import RobotError
from hilserl.robot.units import GRIPPER, GRIPPER_CLOSED_RAD, GRIPPER_SPAN_RAD
from hilserl.schema import JOINT_NAMES

Array = NDArray[np.floating[Any]]

LEROBOT_ROBOT = "so_follower"
_LAST_TICK = 4095
_RAD_PER_TICK = 2.0 * math.pi / _LAST_TICK
_FULL_TURN = "wrist_roll"
_SHARE_OF_RANGE = (0.8, 1.15)  # what a careful person finds of the range that the model has
_KEYS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")
_REGISTERS = {"homing_offset": "Homing_Offset", "range_min": "Min_Position_Limit", "range_max": "Max_Position_Limit"}


def calibration_file(robot: RobotConfig) -> Path:
    """Return where LeRobot keeps the calibration of this arm: `calibration_dir`, else LeRobot's own folder."""
    if robot.calibration_dir is not None:
        return robot.calibration_dir.expanduser() / f"{robot.id}.json"
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    lerobot = Path(os.environ.get("HF_LEROBOT_HOME", home / "lerobot"))
    folder = Path(os.environ.get("HF_LEROBOT_CALIBRATION", lerobot / "calibration"))
    return folder.expanduser() / "robots" / LEROBOT_ROBOT / f"{robot.id}.json"


@dataclass(frozen=True)
class Calibration:
    """One arm's calibration.

    Attributes:
        file: Where it was read.
        homing_offset: Of each servo [ticks], shape (6,).
        range_min: Lower end of each joint's range [ticks], shape (6,).
        range_max: Upper end [ticks], shape (6,).
    """

    file: Path
    homing_offset: Array
    range_min: Array
    range_max: Array

    @classmethod
    def load(cls, robot: RobotConfig, lower_rad: ArrayLike, upper_rad: ArrayLike) -> Calibration:
        """Read and check LeRobot's file.

        Args:
            robot: Whose.
            lower_rad: Lower joint limits of the model [rad], shape (6,).
            upper_rad: Upper joint limits [rad], shape (6,).

        Raises:
            RobotError: It is missing, unreadable, or cannot be that of an SO-101.
        """
        file = calibration_file(robot)
        remedy = f"Calibrate the arm: `lerobot-calibrate --robot.type=so101_follower --robot.port={robot.port} --robot.id={robot.id}`."
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            joints = [{key: int(content[name][key]) for key in _KEYS} for name in JOINT_NAMES]
        except FileNotFoundError:
            raise RobotError(f"{file}: there is no calibration of robot `{robot.id}`. {remedy} Or set `robot.calibration_dir`.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RobotError(f"{file}: no calibration of an SO-101 ({error!r}). {remedy}") from None
        spans = (np.asarray(upper_rad) - np.asarray(lower_rad)) / _RAD_PER_TICK
        for servo, (name, joint, span) in enumerate(zip(JOINT_NAMES, joints, spans.tolist(), strict=True), 1):
            if (problem := _problem(name, joint, servo, span)) is not None:
                raise RobotError(f"{file}: `{name}`: {problem}. {remedy}")
        return cls(file, *(np.array([joint[key] for joint in joints], dtype=np.float64) for key in _KEYS[2:]))

    def require_same_in_servos(self, read: Callable[[int, str], int]) -> None:
        """Compare with what the servos have in EEPROM; `read` returns a register of a servo.

        Raises:
            RobotError: They differ, so every angle would be wrong by as much.
        """
        for index, name in enumerate(JOINT_NAMES):
            for key, register in _REGISTERS.items():
                mine, servos = round(float(getattr(self, key)[index])), read(index + 1, register)
                if mine != servos:
                    raise RobotError(
                        f"servo {index + 1} (`{name}`) has `{register}` {servos}, and its calibration {self.file} says {mine}: the file is "
                        f"another arm's or older than the servos. Set `robot.id` to this arm's name, or run `lerobot-calibrate` again."
                    )

    @property
    def lower_rad(self) -> Array:
        """Lower end of each joint's range [rad], shape (6,)."""
        return self.to_rad(self.range_min)

    @property
    def upper_rad(self) -> Array:
        """Upper end of each joint's range [rad], shape (6,)."""
        return self.to_rad(self.range_max)

    def to_rad(self, ticks: ArrayLike) -> Array:
        """Convert positions [ticks] to joint angles [rad], shape (6,); NaN stays."""
        position = np.asarray(ticks, dtype=np.float64)
        joints: Array = (position - self._middle) * _RAD_PER_TICK
        share = (position[GRIPPER] - self.range_min[GRIPPER]) / (self.range_max[GRIPPER] - self.range_min[GRIPPER])
        joints[GRIPPER] = GRIPPER_CLOSED_RAD + share * GRIPPER_SPAN_RAD
        return joints

    def to_ticks(self, joint_rad: ArrayLike) -> Array:
        """Convert joint angles [rad], shape (6,), to whole ticks inside the calibrated ranges.

        Raises:
            RobotError: An angle is not finite.
        """
        joints = np.asarray(joint_rad, dtype=np.float64)
        if joints.shape != (len(JOINT_NAMES),) or not np.isfinite(joints).all():
            raise RobotError(f"joint angles {joint_rad!r} rad cannot be commanded: six finite numbers are needed.")
        ticks = joints / _RAD_PER_TICK + self._middle
        share = (joints[GRIPPER] - GRIPPER_CLOSED_RAD) / GRIPPER_SPAN_RAD
        ticks[GRIPPER] = self.range_min[GRIPPER] + share * (self.range_max[GRIPPER] - self.range_min[GRIPPER])
        inside: Array = np.clip(np.rint(ticks), self.range_min, self.range_max)
        return inside

    def to_rad_s(self, ticks_s: ArrayLike) -> Array:
        """Convert velocities [ticks/s] to [rad/s], shape (6,)."""
        speeds: Array = np.asarray(ticks_s, dtype=np.float64) * _RAD_PER_TICK
        speeds[GRIPPER] *= GRIPPER_SPAN_RAD / ((self.range_max[GRIPPER] - self.range_min[GRIPPER]) * _RAD_PER_TICK)
        return speeds

    @property
    def _middle(self) -> Array:
        middle: Array = (self.range_min + self.range_max) / 2.0
        return middle


def _problem(name: str, joint: Mapping[str, int], servo: int, span_ticks: float) -> str | None:
    """Say what is wrong with one joint of a calibration; None: nothing is."""
    low, high = joint["range_min"], joint["range_max"]
    if joint["id"] != servo:
        return f"has servo id {joint['id']}, an SO-101 has {servo} there"
    if joint["drive_mode"] != 0:
        return f"has drive mode {joint['drive_mode']}, LeRobot gives an SO-101 0"
    if abs(joint["homing_offset"]) > 2047:
        return f"has homing offset {joint['homing_offset']}, beyond the half turn that a servo can hold"
    if not 0 <= low < high <= _LAST_TICK:
        return f"has the range {low} to {high} ticks, outside 0 to {_LAST_TICK} or upside down"
    share = (high - low) / span_ticks
    if name != _FULL_TURN and not _SHARE_OF_RANGE[0] <= share <= _SHARE_OF_RANGE[1]:
        return (
            f"was moved through {(high - low) * 360 / _LAST_TICK:.0f} deg, and the joint turns by {span_ticks * 360 / _LAST_TICK:.0f} deg: "
            "a stop was missed or passed, which shifts every angle"
        )
    return None
