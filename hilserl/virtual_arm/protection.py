"""The protections of one servo: what they watch, the error bits they raise, and what they do to its torque.

Voltage and encoder only report. Heat and current take the torque away, overload reduces it to
`Protective_Torque`, each only where its bit of `Unloading_Condition` is set, and until `clear`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import Self


class Status(IntFlag):
    """Bits of the register `Status`, and of the error byte of every answer."""

    VOLTAGE = 1
    ENCODER = 2
    OVERHEAT = 4
    OVERCURRENT = 8
    OVERLOAD = 32


_ALL = 0x2F
_LATCHED = Status.OVERHEAT | Status.OVERCURRENT | Status.OVERLOAD
_COOLED_C = 5.0  # below the limit, before overheating is over


@dataclass(frozen=True)
class Limits:
    """What the registers say the protections shall watch.

    Attributes:
        max_temperature_c: Above: overheated.
        min_voltage_v: Below: a voltage error.
        max_voltage_v: Above: a voltage error.
        max_current_a: Above, for `current_time_s`: over-current; 0: never.
        current_time_s: See there.
        overload: Share of the full torque above which, for `overload_time_s`: overload; 0: never.
        overload_time_s: See there.
        protective_torque: Share of the full torque that is left in overload.
        unloading: Which errors act on the torque.
    """

    max_temperature_c: float
    min_voltage_v: float
    max_voltage_v: float
    max_current_a: float
    current_time_s: float
    overload: float
    overload_time_s: float
    protective_torque: float
    unloading: Status

    @classmethod
    def from_registers(cls, raw: Callable[[str], int], current_unit_a: float) -> Self:
        """Read the limits from a control table."""
        return cls(
            max_temperature_c=raw("Max_Temperature_Limit"),
            min_voltage_v=raw("Min_Voltage_Limit") / 10.0,
            max_voltage_v=raw("Max_Voltage_Limit") / 10.0,
            max_current_a=raw("Protection_Current") * current_unit_a,
            current_time_s=raw("Over_Current_Protection_Time") / 100.0,
            overload=raw("Overload_Torque") / 100.0,
            overload_time_s=raw("Protection_Time") / 100.0,
            protective_torque=raw("Protective_Torque") / 100.0,
            unloading=Status(raw("Unloading_Condition") & _ALL),
        )


class Protection:
    """State of one servo's protections.

    Attributes:
        status: The errors now.
    """

    def __init__(self) -> None:
        self.status = Status(0)
        self._overload_s = 0.0
        self._current_s = 0.0

    def clear(self) -> None:
        """Forget what is latched; what still holds is raised again at the next `watch`."""
        self.status &= ~_LATCHED
        self._overload_s = self._current_s = 0.0

    def watch(
        self, limits: Limits, *, load: float, current_a: float, temperature_c: float, voltage_v: float, encoder_lost: bool, dt_s: float
    ) -> None:
        """Look at the measurements of the last `dt_s`.

        Args:
            limits: From the registers.
            load: Magnitude of the motor's duty, 0 to 1.
            current_a: Magnitude of the motor's current [A].
            temperature_c: Inside [deg C].
            voltage_v: Supply at the servo [V].
            encoder_lost: The encoder has no magnet.
            dt_s: Time since the last look [s].
        """
        wrong_voltage = not limits.min_voltage_v <= voltage_v <= limits.max_voltage_v
        if self.status or wrong_voltage or encoder_lost:
            self._raise(Status.VOLTAGE, wrong_voltage)
            self._raise(Status.ENCODER, encoder_lost)
        if temperature_c > limits.max_temperature_c:
            self.status |= Status.OVERHEAT
        elif self.status and temperature_c < limits.max_temperature_c - _COOLED_C and not limits.unloading & Status.OVERHEAT:
            self.status &= ~Status.OVERHEAT
        self._current_s = self._current_s + dt_s if 0 < limits.max_current_a < current_a else 0.0
        if self._current_s > limits.current_time_s:
            self.status |= Status.OVERCURRENT
        self._overload_s = self._overload_s + dt_s if 0 < limits.overload < load else 0.0
        if self._overload_s > limits.overload_time_s:
            self.status |= Status.OVERLOAD

    def torque_share(self, limits: Limits) -> float:
        """Return how much of the full torque the errors leave: 1, `protective_torque`, or 0."""
        if not self.status:
            return 1.0
        acting = self.status & limits.unloading
        if acting & (Status.VOLTAGE | Status.ENCODER | Status.OVERHEAT | Status.OVERCURRENT):
            return 0.0
        return limits.protective_torque if acting & Status.OVERLOAD else 1.0

    def _raise(self, bit: Status, on: bool) -> None:
        self.status = self.status | bit if on else self.status & ~bit
