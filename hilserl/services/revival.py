"""A service that died is started again: soon, then less and less often, and not for ever."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from hilserl.errors import ServiceError

_MAX_DELAY_S = 30.0
_MAX_DEATHS = 5
_WITHIN_S = 120.0


class Service(Protocol):
    """Something that runs until it dies."""

    def check(self) -> None:
        """Raise a ServiceError if it ended by itself."""


class Revived:
    """One service, started again 1, 2, 4 ... 30 s after it died; given up after five deaths within two minutes.

    Args:
        name: What a person calls it.
        service: It; running.
        start: Starts it again; may raise a ServiceError, which counts as a death.
        show: Prints one line for a person.
        is_ready: Whether it does its work again.
        may_start: Whether what it needs is there; asked when the delay is over.
    """

    def __init__(
        self,
        name: str,
        service: Service,
        start: Callable[[], None],
        show: Callable[[str], None],
        *,
        is_ready: Callable[[], bool] = lambda: True,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self._name, self._service, self._start, self._show = name, service, start, show
        self._is_ready, self._may_start = is_ready, may_start
        self._deaths: deque[float] = deque()
        self._start_at: float | None = None  # while it is dead
        self._is_starting = False

    def tend(self) -> None:
        """Look whether it lives; start it if it is time to; never waits.

        Raises:
            ServiceError: It died five times within two minutes; quotes the end of its log.
        """
        now = time.monotonic()
        if self._start_at is None:
            try:
                self._service.check()
            except ServiceError as death:
                self._mourn(death, now)
                return
            if self._is_starting and self._is_ready():
                self._is_starting = False
                self._show(f"{self._name} is back.")
        elif now >= self._start_at and self._may_start():
            try:
                self._start()
            except ServiceError as refusal:
                self._mourn(refusal, now)
                return
            self._start_at, self._is_starting = None, True

    def _mourn(self, death: ServiceError, now: float) -> None:
        self._deaths.append(now)
        while now - self._deaths[0] > _WITHIN_S:
            self._deaths.popleft()
        if len(self._deaths) >= _MAX_DEATHS:
            raise ServiceError(f"{death}\nIt died {_MAX_DEATHS} times within {_WITHIN_S:.0f} s and is not started again.") from None
        delay_s = min(_MAX_DELAY_S, 2.0 ** (len(self._deaths) - 1))
        self._start_at = now + delay_s
        self._show(f"{str(death).splitlines()[0]} Starting it again in {delay_s:.0f} s.")
