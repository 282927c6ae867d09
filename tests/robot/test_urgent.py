from __future__ import annotations

import os
import threading

import pytest

from hilserl.robot.urgent import run_first


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="this system has no SCHED_FIFO")
def test_priority_is_for_the_thread_that_asks() -> None:
    before = os.sched_getscheduler(0)
    seen: list[tuple[bool, int]] = []
    thread = threading.Thread(target=lambda: seen.append((run_first(10), os.sched_getscheduler(0))))
    thread.start()
    thread.join()
    given, policy = seen[0]
    assert given == (policy & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO)
    assert os.sched_getscheduler(0) == before


def test_a_refusal_is_no_error() -> None:
    assert run_first(10_000) is False
