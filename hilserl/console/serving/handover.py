"""Who is in control: one page at a time, and it goes from one to the next by asking."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any


class Handover:
    """The state machine.

    Attributes:
        controller: The page in control; None: none is.
        asking: The page that asks for it; None: none does.
    """

    def __init__(self, take_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody; `take_after_s` is how long a request may stay without an answer [s]."""
        self.controller: str | None = None
        self.asking: str | None = None
        self._take_after_s, self._clock = take_after_s, clock
        self._since_s = self._asked_s = clock()

    def request(self, page: str) -> str:
        """Ask for control; given at once where nobody has it. Returns why not, or nothing."""
        if self.controller in (None, page):
            self._give(page)
            return ""
        if self.asking not in (None, page):
            return "another page asks for control already"
        if self.asking is None:
            self.asking, self._asked_s = page, self._clock()
        return ""

    def grant(self, page: str) -> str:
        """Hand over to the page that asks."""
        if page != self.controller or self.asking is None:
            return "nobody asks this page for control"
        self._give(self.asking)
        return ""

    def deny(self, page: str) -> str:
        """Keep it."""
        if page != self.controller or self.asking is None:
            return "nobody asks this page for control"
        self.asking = None
        return ""

    def take(self, page: str) -> str:
        """Take it without an answer, when the other had time to give one."""
        if page != self.asking:
            return "ask for control first"
        if (left := self.may_take_in_s) > 0:
            return f"whoever is in control has {left:.0f} s left to answer"
        self._give(page)
        return ""

    def release(self, page: str) -> str:
        """Give it back; who asks gets it."""
        if page != self.controller:
            return "this page is not in control"
        self.leave(page)
        return ""

    def leave(self, page: str) -> None:
        """A page has gone, or gives back."""
        if page == self.asking:
            self.asking = None
        if page == self.controller:
            self.controller = None
            self._since_s = self._clock()
            if self.asking is not None:
                self._give(self.asking)

    @property
    def may_take_in_s(self) -> float:
        """How long whoever asks still has to wait [s]."""
        return max(0.0, self._take_after_s - (self._clock() - self._asked_s))

    def message(self, page: str, *, driving: bool) -> dict[str, Any]:
        """Return the `control` message for one page."""
        request = None
        if self.asking is not None:
            may_take_in_s = math.ceil(10.0 * self.may_take_in_s) / 10.0  # rounded up: who takes it right then is not refused
            request = {"from": self.asking, "you": page == self.asking, "may_take_in_s": may_take_in_s}
        return {
            "type": "control",
            "controller": self.controller,
            "you": page == self.controller,
            "since_s": round(self._clock() - self._since_s, 1),
            "request": request,
            "driving": driving,
        }

    def _give(self, page: str) -> None:
        if page != self.controller:
            self._since_s = self._clock()
        self.controller = page
        if self.asking == page:
            self.asking = None
