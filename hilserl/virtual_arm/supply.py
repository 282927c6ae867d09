"""The power supply that all servos hang on: it sags under load, and may fail."""

from __future__ import annotations

from dataclasses import dataclass

_IDLE_A = 0.03  # electronics of one servo


@dataclass
class Supply:
    """A voltage behind a resistance.

    Attributes:
        source_v: Voltage without load [V].
        resistance_ohm: Of supply, plug and cables [Ohm].
        on: Whether it is switched on.
        voltage_v: At the servos now [V].
    """

    source_v: float
    resistance_ohm: float = 0.15
    on: bool = True
    voltage_v: float = 0.0

    def load(self, currents_a: list[float]) -> float:
        """Draw a current for each servo [A]; return the voltage that is left [V]."""
        current_a = sum(currents_a) + _IDLE_A * len(currents_a)
        self.voltage_v = max(self.source_v - self.resistance_ohm * current_a, 0.0) if self.on else 0.0
        return self.voltage_v
