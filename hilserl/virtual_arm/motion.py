"""How a servo moves from where it is to its goal: with its speed limit and its acceleration, braking in time."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Path:
    """The moving setpoint of a servo's position loop.

    Attributes:
        setpoint: Where the position loop holds the shaft now [ticks].
        velocity: How fast the setpoint moves [ticks/s].
    """

    setpoint: float = 0.0
    velocity: float = 0.0

    def restart(self, position: float) -> None:
        """Hold at `position` [ticks], at rest."""
        self.setpoint, self.velocity = position, 0.0

    def advance(self, goal: float, max_speed: float, acceleration: float, dt_s: float) -> None:
        """Move the setpoint towards `goal` for `dt_s`.

        Args:
            goal: Where to [ticks].
            max_speed: Speed limit [ticks/s], positive.
            acceleration: Of speeding up and braking [ticks/s^2]; infinite: none.
            dt_s: Time [s].
        """
        rest = goal - self.setpoint
        arrive = abs(rest) / dt_s
        wanted = math.copysign(min(max_speed, math.sqrt(2.0 * acceleration * abs(rest)), arrive), rest)
        most = acceleration * dt_s
        velocity = self.velocity + min(max(wanted - self.velocity, -most), most)
        if velocity * rest > 0 and abs(velocity) > arrive:  # never past the goal
            velocity = math.copysign(arrive, rest)
        self.velocity = velocity
        self.setpoint += velocity * dt_s

    def turn(self, speed: float, acceleration: float, dt_s: float) -> None:
        """Turn on and on at `speed` [ticks/s], as a wheel."""
        most = acceleration * dt_s
        self.velocity += min(max(speed - self.velocity, -most), most)
        self.setpoint += self.velocity * dt_s
