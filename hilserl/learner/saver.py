"""Writes in a thread of its own what the loop must not wait for; what fails there surfaces in the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from hilserl.errors import CheckpointError
from hilserl.files import is_disk_full

logger = logging.getLogger(__name__)

RETRY_S = 30.0
GIVE_UP_S = 600.0


class Saver:
    """At most one save in flight.

    A disk that cannot be written (full, gone) costs the save, not the training: it is said at once and tried
    again every `RETRY_S`, and the training ends with an error only when it could not save for `GIVE_UP_S`.
    Any other error ends it at the loop's next turn.

    Attributes:
        failing: What the last save failed of; None when it did not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.failing: Exception | None = None
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._flight: tuple[Future[object], Callable[[], None]] | None = None
        self._failing_since = 0.0
        self._retry_at = 0.0

    @property
    def is_free(self) -> bool:
        """Whether a save may start now: none is in flight, and a failed one was long enough ago."""
        return self._flight is None and self._clock() >= self._retry_at

    def start(self, write: Callable[[], object], on_saved: Callable[[], None]) -> None:
        """Run `write` in the thread; `on_saved` is called by `collect`, in the loop, once it succeeded."""
        assert self._flight is None, "one save at a time"
        self._flight = self._pool.submit(write), on_saved

    def collect(self) -> None:
        """Take notice of a save that ended; costs nothing while none did.

        Raises:
            CheckpointError: The disk could not be written for `GIVE_UP_S`.
            Exception: Whatever else `write` raised.
        """
        if self._flight is not None and self._flight[0].done():
            self._land()

    def wait(self) -> None:
        """Wait for the save in flight, and raise whatever it failed of, a full disk too."""
        if self._flight is not None:
            self._flight[0].exception()
            self._land()
            if self.failing is not None:
                raise self.failing

    def close(self) -> None:
        """Wait for the thread; what it still raises is logged."""
        self._pool.shutdown(wait=True)
        if self._flight is not None and (error := self._flight[0].exception()) is not None:
            logger.error("The last save failed: %s", error, exc_info=error)
        self._flight = None

    def _land(self) -> None:
        assert self._flight is not None
        (future, on_saved), self._flight = self._flight, None
        error = future.exception()
        if error is None:
            if self.failing is not None:
                logger.warning("Checkpoints can be written again")
            self.failing, self._retry_at = None, 0.0
            on_saved()
        elif isinstance(error, Exception) and (isinstance(error, OSError) or is_disk_full(error)):
            self._postpone(error)
        else:
            raise error

    def _postpone(self, error: Exception) -> None:
        now = self._clock()
        if self.failing is None:
            self._failing_since = now
        self.failing = error
        self._retry_at = now + RETRY_S
        since = now - self._failing_since
        if since >= GIVE_UP_S:
            raise CheckpointError(
                f"no checkpoint could be written for {since:.0f} s, so the training stops; the last one written is kept. The cause: {error}"
            ) from error
        logger.warning(
            "The checkpoint could not be written; the one before is kept, and training goes on. It is tried again every %.0f s, "
            "and the training stops in %.0f s if that fails. The cause: %s",
            RETRY_S, GIVE_UP_S - since, error,
        )  # fmt: skip
