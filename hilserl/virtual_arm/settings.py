"""What a servo's registers ask of its motor, in ticks and seconds: worked out when they change, not at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from hilserl.virtual_arm.control_table import ControlTable
from hilserl.virtual_arm.protection import Limits

REFERENCE_P = 16
"""`P_Coefficient` for which the MuJoCo model's gain was identified: the one that LeRobot writes."""

CURRENT_UNIT_A = 0.0065
_ACCELERATION_UNIT = 100.0  # steps/s^2
_COARSE_SPEED = 50.0  # steps/s
_FINE_SPEED = 0x04  # of Phase: speeds in steps/s, else in 50 steps/s
_FASTEST_AT_ZERO = 0x08  # of Phase: a speed of 0 is the fastest, else none
_MANY_TURNS = 0x10  # of Phase: feed back the full angle, beyond one turn


@dataclass(frozen=True)
class Settings:
    """The registers that rule the motor.

    Attributes:
        version: Of the control table that they come from.
        torque_on: `Torque_Enable`.
        mode: `Operating_Mode`.
        goal: `Goal_Position`, inside the limits [ticks].
        homing: `Homing_Offset` [ticks].
        many_turns: Positions go beyond one turn.
        speed_unit: Of the speed registers [ticks/s].
        max_speed: On the way to a goal [ticks/s].
        turning_speed: In velocity mode, with its sign [ticks/s].
        acceleration: [ticks/s^2]; infinite: as fast as it can.
        torque_limit: `Torque_Limit`, 0 to 1.
        gain: Of the position loop, 1 for the gain that LeRobot writes.
        limits: Of the protections.
    """

    version: int
    torque_on: bool
    mode: int
    goal: int
    homing: int
    many_turns: bool
    speed_unit: float
    max_speed: float
    turning_speed: float
    acceleration: float
    torque_limit: float
    gain: float
    limits: Limits

    @classmethod
    def read(cls, table: ControlTable) -> Self:
        """Read them from a control table."""
        phase = table.raw("Phase")
        goal, low, high = table.get("Goal_Position"), table.raw("Min_Position_Limit"), table.raw("Max_Position_Limit")
        unit = 1.0 if phase & _FINE_SPEED else _COARSE_SPEED
        fastest, wanted = table.raw("Maximum_Velocity_Limit") * _COARSE_SPEED, table.get("Goal_Velocity") * unit
        at_zero = fastest if phase & _FASTEST_AT_ZERO else 0.0
        acceleration, most = table.raw("Acceleration"), table.raw("Maximum_Acceleration")
        return cls(
            version=table.version,
            torque_on=bool(table.raw("Torque_Enable")),
            mode=table.raw("Operating_Mode"),
            goal=goal if low == high == 0 else min(max(goal, low), high),
            homing=table.get("Homing_Offset"),
            many_turns=bool(phase & _MANY_TURNS),
            speed_unit=unit,
            max_speed=min(abs(wanted), fastest) if wanted else at_zero,
            turning_speed=wanted,
            acceleration=(min(acceleration, most) if most else acceleration) * _ACCELERATION_UNIT if acceleration else math.inf,
            torque_limit=min(table.raw("Torque_Limit") / 1000.0, 1.0),
            gain=table.raw("P_Coefficient") / REFERENCE_P,
            limits=Limits.from_registers(table.raw, CURRENT_UNIT_A),
        )
