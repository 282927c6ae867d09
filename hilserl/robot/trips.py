"""The rules that stop the arm, looked at in every tick: what is wrong, with which servo, and how hard to react.

A rule says what to do by how much is known. What blocks a joint is let go of (`hold`); where servos are in trouble the arm is taken
down while it can still be led (`soft_land`); where nobody answers, torque is switched off blindly (`off`).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.safety import SafetyConfig
from hilserl.robot.feetech import SERVOS, BusState
from hilserl.robot.registers import TICKS_PER_TURN
from hilserl.robot.units import GRIPPER
from hilserl.schema import JOINT_NAMES

logger = logging.getLogger(__name__)

Array = NDArray[np.floating[Any]]

RUNNING_ACCELERATION = 254
"""What connecting writes into `Acceleration`. A servo that has started anew holds 0: its other settings are gone as well."""

_GRIPPING_SHARE = 0.5  # of the jaw's torque limit: what it may hold for hours is less
_RAD_PER_TICK = 2.0 * math.pi / TICKS_PER_TURN
_NEVER_S = math.inf
_VOLTAGE = 1
_ERRORS = {1: "voltage", 2: "encoder", 4: "overheated", 8: "over-current", 32: "overload"}
_BLIND_RAD = 0.05  # two positions differ by rounding and by one late read


class Action(IntEnum):
    """What to do, the harder the greater."""

    HOLD = 1
    """Command the joints to where they are; the arm goes on."""
    WEAKEN = 2
    """Hold, with less torque in that servo."""
    SOFT_LAND = 3
    """Let the torque fall to zero, switch it off; a person re-arms."""
    OFF = 4
    """Switch the torque off now; a person re-arms."""


@dataclass(frozen=True)
class Trip:
    """A rule that was broken.

    Attributes:
        rule: Its name.
        text: What was seen, and what to do about it, for a person.
        servo: Id of the servo; None: several, or none of them.
        action: What to do.
    """

    rule: str
    text: str
    servo: int | None
    action: Action

    @property
    def stops(self) -> bool:
        """Whether the arm is taken down, until a person re-arms it."""
        return self.action >= Action.SOFT_LAND


class _Since:
    """Since when something has been so, for each servo [s]."""

    def __init__(self) -> None:
        self._at: Array = np.full(len(SERVOS), _NEVER_S)

    def lasts(self, so: NDArray[np.bool_], now: float) -> Array:
        """Note what is so now; return how long it has been [s], shape (6,); -inf where it is not."""
        self._at = np.where(so, np.minimum(self._at, now), _NEVER_S)
        return now - self._at


class TripRules:
    """Watches one arm.

    Attributes:
        stalls: When joints stalled lately [s].
    """

    def __init__(self, settings: SafetyConfig) -> None:
        self._settings = settings
        self.stalls: deque[float] = deque()
        self._rest_v: float | None = None
        self._told_warm: set[int] = set()
        self.begin()

    def begin(self) -> None:
        """Forget what has lasted for a while: torque was just switched on, or the command was set anew."""
        self._silent: NDArray[Any] = np.zeros(len(SERVOS), dtype=int)
        self._stalled, self._lost, self._low, self._volts = _Since(), _Since(), _Since(), _Since()
        self._measured: Array | None = None
        self._at = 0.0
        self._gripped = False

    def check(self, state: BusState, command_rad: Array, measured_rad: Array, now: float) -> Trip | None:
        """Look at one tick.

        Args:
            state: What the servos said.
            command_rad: What they had been told [rad], shape (6,).
            measured_rad: Where they are [rad], shape (6,); NaN where a servo did not answer.
            now: When that was, on a clock that does not run backwards [s].

        Returns:
            The hardest broken rule; None: all is well.
        """
        trips = [
            *self._silence(state),
            *self._reboot(state),
            *self._errors(state, now),
            *self._heat(state),
            *self._supply(state, now),
            *self._jump(measured_rad, now),
            *self._following(state, command_rad, measured_rad, now),
        ]
        return max(trips, key=lambda trip: trip.action, default=None)

    def _silence(self, state: BusState) -> Iterator[Trip]:
        self._silent = np.where(state.answered, 0, self._silent + 1)
        mute = self._silent >= self._settings.silent_ticks
        if mute.all():
            yield Trip(
                "silent", "no servo answers: the arm has no power, or its cable is off. Switch its power supply off before you touch it.",
                None, Action.OFF,
            )  # fmt: skip
        elif mute.any():
            text = "does not answer. It may go on holding: switch the arm's power supply off, then check the cables from the base to it"
            yield self._trip("silent", mute, text, Action.SOFT_LAND)

    def _reboot(self, state: BusState) -> Iterator[Trip]:
        anew = state.answered & ((state.acceleration != RUNNING_ACCELERATION) | (state.lock != 1) | ~state.torque_on)
        if anew.any():
            text = "has started anew and lost its settings: its power failed for a moment, or it lets go. Check plug, supply and cables"
            yield self._trip("reboot", anew, text, Action.SOFT_LAND)

    def _errors(self, state: BusState, now: float) -> Iterator[Trip]:
        wrong_voltage = self._volts.lasts((state.error & _VOLTAGE) != 0, now) >= self._settings.voltage_s
        bad = ((state.error & ~np.uint8(_VOLTAGE)) != 0) | wrong_voltage
        if bad.any():
            names = sorted({name for bit, name in _ERRORS.items() if (state.error[bad] & bit).any()})
            yield self._trip(
                "error", bad, f"reports {', '.join(names)}. Let it cool, free the joint, or check the supply", Action.SOFT_LAND
            )

    def _heat(self, state: BusState) -> Iterator[Trip]:
        hot = state.temperature_c >= self._settings.hot_c
        if hot.any():
            text = f"is at {np.nanmax(state.temperature_c):.0f} deg C (limit {self._settings.hot_c:.0f}). Let it cool"
            yield self._trip("hot", hot, text, Action.SOFT_LAND)
        for index in np.flatnonzero(state.temperature_c >= self._settings.warm_c):
            if index not in self._told_warm:
                self._told_warm.add(int(index))
                logger.warning(
                    "Servo %d (%s) is warm: %.0f deg C; at %.0f the arm is taken down. Give it a rest, or lower its torque limit.",
                    SERVOS[index], JOINT_NAMES[index], state.temperature_c[index], self._settings.hot_c,
                )  # fmt: skip
        self._told_warm &= {int(index) for index in np.flatnonzero(state.temperature_c >= self._settings.warm_c - 5.0)}

    def _supply(self, state: BusState, now: float) -> Iterator[Trip]:
        if self._rest_v is None and state.answered.any():
            self._rest_v = float(np.nanmedian(state.voltage_v))
        least_v = self._settings.min_voltage_share * (self._rest_v or 0.0)
        if (low := self._low.lasts(state.voltage_v < least_v, now) >= self._settings.voltage_s).any():
            volts = f"{np.nanmin(state.voltage_v):.1f} V, it was {self._rest_v:.1f} V at the start"
            text = f"has {volts}. The supply is too weak, or a plug is loose"
            yield self._trip("voltage", low, text, Action.SOFT_LAND)

    def _jump(self, measured_rad: Array, now: float) -> Iterator[Trip]:
        before, was_at = self._measured, self._at
        known = np.isfinite(measured_rad)
        self._measured = measured_rad.copy() if before is None else np.where(known, measured_rad, before)
        if not known.all():
            return  # after a gap it is measured over a longer time
        self._at = now
        if before is None or not np.isfinite(before).all():
            return
        allowed = self._settings.max_jump_rad_s * (now - was_at) + _BLIND_RAD
        if (jumped := np.abs(measured_rad - before) > allowed).any():
            moved = f"{np.abs(measured_rad - before).max():.2f} rad in {1e3 * (now - was_at):.0f} ms"
            text = f"moved by {moved}: its encoder or its gear is broken"
            yield self._trip("jump", jumped, text, Action.SOFT_LAND)

    def _following(self, state: BusState, command_rad: Array, measured_rad: Array, now: float) -> Iterator[Trip]:
        settings = self._settings
        behind = np.nan_to_num(np.abs(command_rad - measured_rad))
        if (lost := self._lost.lasts(behind > settings.lost_rad, now) >= settings.lost_s).any():
            text = f"is {behind.max():.2f} rad from its command: something holds it, or it slips"
            yield self._trip("lost", lost, text, Action.SOFT_LAND)
        share = np.full(len(SERVOS), settings.stall_torque_share)
        share[GRIPPER] = min(_GRIPPING_SHARE, settings.stall_torque_share)
        works = (state.current_a >= settings.stall_current_a) | (np.abs(state.load) >= share * state.torque_limit)
        slow = np.abs(state.velocity_ticks_s) * _RAD_PER_TICK < settings.stall_speed_rad_s
        stalled = self._stalled.lasts(works & slow & (behind >= settings.stall_error_rad), now) >= settings.stall_s
        grips, stalled[GRIPPER] = bool(stalled[GRIPPER]), False
        if stalled.any():
            yield self._stall(stalled, now)
        elif grips and not self._gripped:
            yield Trip("grip", "the jaw holds something: it needs less torque for that", SERVOS[GRIPPER], Action.WEAKEN)
        self._gripped = grips

    def _stall(self, stalled: NDArray[np.bool_], now: float) -> Trip:
        window_s, most = self._settings.stall_window_s, self._settings.stalls_before_landing
        self._stalled = _Since()  # held: it begins anew
        self.stalls.append(now)
        while now - self.stalls[0] > window_s:
            self.stalls.popleft()
        if len(self.stalls) < most:
            return self._trip("stall", stalled, "does not follow its command and works hard: something is in its way", Action.HOLD)
        text = (
            f"was in the way of something {most} times within {window_s:.0f} s. Clear the workspace, or shrink it (`robot.workspace_min_m`)"
        )
        return self._trip("stalls", stalled, text, Action.SOFT_LAND)

    @staticmethod
    def _trip(rule: str, which: NDArray[np.bool_], text: str, action: Action) -> Trip:
        found = [int(index) for index in np.flatnonzero(which)]
        named = ", ".join(f"{SERVOS[index]} ({JOINT_NAMES[index]})" for index in found)
        return Trip(rule, f"servo {named} {text}.", SERVOS[found[0]] if len(found) == 1 else None, action)
