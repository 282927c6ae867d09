"""How servos sit on their joints, and LeRobot's calibration of an arm whose servos sit so."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from hilserl.files import write_json
from hilserl.robot.registers import TICKS_PER_TURN
from hilserl.schema import JOINT_NAMES

MIDDLE = 2047
"""What LeRobot makes of the middle of a joint's range: int(4095 / 2)."""

_FULL_TURN = "wrist_roll"
_MOUNTED = (1100, 2900)  # a horn that was put on roughly in the middle


@dataclass(frozen=True)
class Mounting:
    """One servo on its joint.

    Attributes:
        joint: Name of the joint.
        servo_id: Id that the joint's servo has.
        middle_rad: Middle of the joint's range [rad].
        half_range_rad: Half of it [rad].
        middle_ticks: What the encoder says there.
    """

    joint: str
    servo_id: int
    middle_rad: float
    half_range_rad: float
    middle_ticks: int

    def encoder(self, joint_rad: float) -> float:
        """Return the encoder's angle [ticks] at a joint angle."""
        return self.middle_ticks + (joint_rad - self.middle_rad) / (2.0 * math.pi) * TICKS_PER_TURN

    def calibration(self) -> dict[str, int]:
        """Return LeRobot's calibration of the joint, as a careful person finds it."""
        half = math.floor(self.half_range_rad / (2.0 * math.pi) * TICKS_PER_TURN)
        full = self.joint == _FULL_TURN
        return {
            "id": self.servo_id,
            "drive_mode": 0,
            "homing_offset": self.middle_ticks - MIDDLE,
            "range_min": 0 if full else MIDDLE - half,
            "range_max": TICKS_PER_TURN - 1 if full else MIDDLE + half,
        }

    def registers(self) -> dict[str, int]:
        """Return what that calibration writes into the servo."""
        found = self.calibration()
        return {
            "Homing_Offset": found["homing_offset"],
            "Min_Position_Limit": found["range_min"],
            "Max_Position_Limit": found["range_max"],
        }


def mountings(lower_rad: ArrayLike, upper_rad: ArrayLike, seed: int) -> list[Mounting]:
    """Mount six servos, each a little off, as decided by `seed`."""
    import numpy as np

    lower, upper = np.asarray(lower_rad, dtype=float), np.asarray(upper_rad, dtype=float)
    rng = random.Random(seed)
    return [
        Mounting(joint, index + 1, float(low + high) / 2, float(high - low) / 2, rng.randint(*_MOUNTED))
        for index, (joint, low, high) in enumerate(zip(JOINT_NAMES, lower, upper, strict=True))
    ]


def lerobot_calibration(mounted: list[Mounting]) -> dict[str, Any]:
    """Return the contents of LeRobot's calibration file."""
    return {mounting.joint: mounting.calibration() for mounting in mounted}


def write_lerobot_calibration(mounted: list[Mounting], file: Path) -> None:
    """Write LeRobot's calibration file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, lerobot_calibration(mounted))
