"""How a person stops a command that runs services: SIGINT, SIGTERM and SIGHUP are counted instead of died of."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_POLL_S = 0.2


class Stop:
    """How often a person asked us to stop."""

    def __init__(self) -> None:
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def raise_if_asked(self) -> None:
        """Raise KeyboardInterrupt where a person asked."""
        if self:
            raise KeyboardInterrupt

    def wait(self, seconds: float) -> None:
        """Sleep, but not for longer than until a person asks."""
        deadline = time.monotonic() + seconds
        while not self and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_S))


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Count the signals while the block runs; main thread only."""
    stop = Stop()

    def count(_number: int, _frame: FrameType | None) -> None:
        stop.count += 1

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, count) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
