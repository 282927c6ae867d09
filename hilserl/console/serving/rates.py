"""How much a page may say, and how late what it says is."""

from __future__ import annotations

import time
from collections.abc import Callable

_WINDOW_S = 30.0


class Bucket:
    """So many messages a second, with so many at once."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._left, self._at_s = burst, clock()

    def take(self) -> bool:
        """Count one; False: it is one too many."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """What was counted last does not count."""
        self._left = min(self._burst, self._left + 1.0)


class Lateness:
    """How much longer a message was on its way than the fastest one lately: of two clocks that agree in their pace alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._window_s = clock()
        self._least = self._least_before = float("inf")

    def of(self, sent_ms: float) -> float:
        """Return how late a message is [s] that the page sent at `sent_ms` by its own monotonic clock."""
        now = self._clock()
        way = now - sent_ms / 1000.0
        if now - self._window_s > _WINDOW_S:  # clocks drift
            self._window_s, self._least_before, self._least = now, self._least, float("inf")
        self._least = min(self._least, way)
        return max(0.0, way - min(self._least, self._least_before))
