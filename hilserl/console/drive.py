"""The page's wish to move the arm, and the dead-man: a page that drives and says nothing makes the arm hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STALE_S = 0.3
_LEAST_S = 0.1


def dead_man_s(control_hz: float) -> float:
    """Return how long a driving page may be silent [s], so that with the step that is under way the arm stands within 0.3 s."""
    return max(_LEAST_S, STALE_S - 1.0 / control_hz)


class Drive:
    """What the page that is in control wants. Not thread-safe: its owner holds a lock.

    Attributes:
        taken: The page has taken over.
    """

    def __init__(self, size: int, control_hz: float) -> None:
        """Begin with nobody at it.

        Args:
            size: Of an action.
            control_hz: Control steps a second.
        """
        self._size = size
        self._patience_s = dead_man_s(control_hz)
        self._wanted: NDArray[np.float32] = np.zeros(size, np.float32)
        self._number = -1
        self._heard_s = -1e9
        self._moved = False  # in the last command
        self.taken = False

    def take(self, at_s: float) -> None:
        """Take over; from now on the page must be heard."""
        if not self.taken:
            self._wanted[:] = 0.0
        self._heard_s = max(self._heard_s, at_s)
        self.taken = True

    def release(self) -> None:
        """Hand back."""
        self.taken = False
        self._wanted[:] = 0.0

    def hear(self, number: int, action: Sequence[float], at_s: float, now_s: float, *, may_take: bool = True) -> bool:
        """Take a drive command.

        The first motion takes over: a wish that is not zero after one that was, or after silence.

        Args:
            number: Grows with each command.
            action: Each in [-1, 1], at least as many as an action has.
            at_s: When it was sent.
            now_s: Now.
            may_take: A motion takes over; False: it is only remembered, so that a key that is down already takes nothing later.

        Returns:
            Whether it counts; a late one, or one that was overtaken, does not.
        """
        if number <= self._number or now_s - at_s > STALE_S or len(action) < self._size:
            return False
        went_on = self._moved and at_s - self._heard_s <= STALE_S
        self._number, self._heard_s = number, at_s
        self._wanted = np.clip(np.asarray(action[: self._size], np.float32), -1.0, 1.0)
        self._moved = bool(self._wanted.any())
        if may_take and not self.taken and self._moved and not went_on:
            self.taken = True
        return True

    def new_page(self) -> None:
        """Another page drives from now on: its numbers begin anew, and its first motion takes over though the last page just moved."""
        self._number, self._moved = -1, False

    def is_silent(self, now_s: float) -> bool:
        """Tell whether a page that drives was not heard for too long."""
        return self.taken and now_s - self._heard_s > self._patience_s

    @property
    def action(self) -> NDArray[np.float32]:
        """What is wanted now, shape (A,); zero where nobody has taken over."""
        return self._wanted.copy() if self.taken else np.zeros(self._size, np.float32)
