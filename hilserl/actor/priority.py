"""Real-time priority for the control loop's thread, where the system allows it."""

from __future__ import annotations

import logging
import os
import threading
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)


class RealtimePriority:
    """SCHED_FIFO for the thread that enters the block, and for no other: threads that it starts do not inherit it.

    A real-time thread runs before all ordinary ones, the learner of the same machine among them. It must sleep: one that
    never does would take a core away from everybody, so `give_back` is called when the loop cannot keep its rate. (Linux itself
    leaves ordinary threads 5 % of the time: `kernel.sched_rt_runtime_us`.)

    Args:
        priority: 1 to 99, as of `sched(7)`; None leaves the thread as it is.

    Attributes:
        is_held: Whether the thread has it now.
    """

    def __init__(self, priority: int | None) -> None:
        self.is_held = False
        self._priority = priority
        self._thread_id = 0

    def __enter__(self) -> Self:
        """Ask for it; what it got is in the log."""
        if self._priority is None:
            return self
        if not hasattr(os, "sched_setscheduler"):
            logger.info("No real-time priority for the control loop: this system has no SCHED_FIFO")
            return self
        self._thread_id = threading.get_native_id()
        try:
            os.sched_setscheduler(self._thread_id, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(self._priority))
        except OSError as error:
            logger.info(
                "No real-time priority %d for the control loop (%s). Steps may begin some milliseconds late while this machine is busy. "
                "To allow it: `rtprio` in /etc/security/limits.conf, or `LimitRTPRIO=` of the worker's systemd unit.",
                self._priority, error.strerror,
            )  # fmt: skip
            return self
        self.is_held = True
        logger.info("The control loop's thread has real-time priority %d (SCHED_FIFO)", self._priority)
        return self

    def give_back(self) -> None:
        """Return to ordinary scheduling, because the loop does not leave the core to others."""
        if self.is_held:
            self._lower()
            logger.warning("The control loop does not keep its rate, so it gave its real-time priority back: it would starve this machine.")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Return to ordinary scheduling."""
        if self.is_held:
            self._lower()

    def _lower(self) -> None:
        os.sched_setscheduler(self._thread_id, os.SCHED_OTHER, os.sched_param(0))
        self.is_held = False
