"""The motor inside a servo: what it can do, how it warms up, and what drives it."""

from __future__ import annotations

from dataclasses import dataclass

AMBIENT_C = 27.0
_HEAT_CAPACITY_J_K = 50.0  # 55 g of motor and case
_COOLING_W_K = 0.25


@dataclass(frozen=True)
class Motor:
    """A motor as it is sold.

    Attributes:
        name: Its name.
        nominal_v: Voltage of the other figures [V].
        stall_torque_nm: At the output shaft [N m].
        stall_current_a: [A].
        max_voltage_v: Factory value of `Max_Voltage_Limit` [V].
    """

    name: str
    nominal_v: float
    stall_torque_nm: float
    stall_current_a: float
    max_voltage_v: float

    def temperature_after(self, temperature_c: float, current_a: float, dt_s: float) -> float:
        """Return the temperature after `dt_s` with a current: a lump of metal that loses heat to the room [deg C].

        At stall it gains 0.65 K/s; at a fifth of that current it settles 5 K above the room.
        """
        heat_w = current_a * current_a * self.nominal_v / self.stall_current_a
        return temperature_c + (heat_w - (temperature_c - AMBIENT_C) * _COOLING_W_K) / _HEAT_CAPACITY_J_K * dt_s


MOTORS = {
    "12V": Motor("STS3215 12 V", 12.0, 2.94, 2.7, 14.0),
    "7.4V": Motor("STS3215 7.4 V", 7.4, 1.9, 2.7, 8.0),
}


@dataclass(frozen=True)
class Drive:
    """What a servo does with its motor during one step.

    Attributes:
        error: From the shaft to the setpoint [ticks]; None: the bridge is off.
        gain: Stiffness of the position loop, 1 at `P_Coefficient` 16.
        duty_limit: Largest duty, 0 to 1.
    """

    error: float | None
    gain: float
    duty_limit: float


OFF = Drive(None, 0.0, 0.0)


@dataclass(frozen=True)
class Measured:
    """What a servo measures at the end of a step.

    Attributes:
        encoder: Angle of the shaft [ticks], not wrapped.
        velocity: [ticks/s].
        duty: Of the motor, -1 to 1.
        current_a: Magnitude [A].
        voltage_v: Supply at the servo [V].
    """

    encoder: float
    velocity: float = 0.0
    duty: float = 0.0
    current_a: float = 0.0
    voltage_v: float = 0.0
