"""The control period on the wall clock, and how well it was kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_LATE_SHARE = 0.1  # of the period: a step that begins later than this after its time is late
_REPORT_EVERY_S = 30.0
_HOPELESS_STEPS = 20


@dataclass(frozen=True)
class Timing:
    """How the control steps of one episode were timed.

    Attributes:
        late_steps: Steps that began more than a tenth of the period after their time.
        longest_period_s: Longest time between two steps [s]; 0: the episode was not paced.
        observation_age_s: Greatest age of an observation when the action chosen from it began [s].
    """

    late_steps: int = 0
    longest_period_s: float = 0.0
    observation_age_s: float = 0.0


class Pace:
    """Keeps the control period; a step that comes late because the one before took too long is not made up for.

    Args:
        control_hz: Control steps per second.
        on_hopeless: Called when so many steps in a row were late that the loop cannot be kept at this rate.
    """

    def __init__(self, control_hz: float, *, on_hopeless: Callable[[], None] = lambda: None) -> None:
        self._period_s = 1.0 / control_hz
        self._on_hopeless = on_hopeless
        self._late_in_a_row = 0
        self._steps = self._late_steps = 0  # since the last warning
        self._next_report = time.monotonic() + _REPORT_EVERY_S
        self.begin()

    def begin(self) -> None:
        """Start an episode; its first step may begin at once."""
        self._next = time.monotonic()
        self._last: float | None = None
        self._observed: float | None = None
        self._late = 0
        self._longest_s = self._oldest_s = 0.0

    def go_on(self) -> None:
        """Go on with an episode after a pause, which is no late step."""
        self._next = time.monotonic()
        self._last = self._observed = None

    def observed(self) -> None:
        """Note that an observation was made just now."""
        self._observed = time.monotonic()

    def wait(self) -> None:
        """Return when the next step is to begin."""
        planned, now = self._next, time.monotonic()
        if now < planned:
            time.sleep(planned - now)
            now = time.monotonic()
            self._next = planned + self._period_s
        else:
            self._next = now + self._period_s
        self._note(now, is_late=self._last is not None and now - planned > _LATE_SHARE * self._period_s)

    @property
    def timing(self) -> Timing:
        """Timing of the episode so far."""
        return Timing(self._late, self._longest_s, self._oldest_s)

    def _note(self, now: float, *, is_late: bool) -> None:
        if self._last is not None:
            self._longest_s = max(self._longest_s, now - self._last)
        if self._observed is not None:
            self._oldest_s = max(self._oldest_s, now - self._observed)
        self._last = now
        self._late += is_late
        self._steps, self._late_steps = self._steps + 1, self._late_steps + is_late
        self._late_in_a_row = self._late_in_a_row + 1 if is_late else 0
        if self._late_in_a_row == _HOPELESS_STEPS:
            self._on_hopeless()
        if now >= self._next_report:
            self._report(now)

    def _report(self, now: float) -> None:
        if self._late_steps > _LATE_SHARE * self._steps:
            logger.warning(
                "%d of the last %d control steps began late (the period is %.0f ms, the longest one of this episode took %.0f ms). "
                "Free this machine of other work, lower `robot.control_hz`, or allow real-time priority (docs/reliability.md).",
                self._late_steps, self._steps, 1e3 * self._period_s, 1e3 * self._longest_s,
            )  # fmt: skip
        self._steps = self._late_steps = 0
        self._next_report = now + _REPORT_EVERY_S
