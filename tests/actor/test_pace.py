"""The control period, what is said about it, and the priority of the thread that keeps it."""

import logging
import os
import threading

import pytest

from hilserl.actor import pace as pace_module
from hilserl.actor.pace import Pace, Timing
from hilserl.actor.priority import RealtimePriority


class Clock:
    """Time that passes only in `sleep` and when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.overshoot = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self.overshoot


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    return clock


def begins(pace: Pace, clock: Clock, works: list[float]) -> list[float]:
    """Return when the steps begin, from the episode's begin on, where each takes as long as `works` says."""
    pace.begin()
    start, found = clock.now, []
    for work in works:
        pace.observed()
        pace.wait()
        found.append(round(clock.now - start, 6))
        clock.now += work
    return found


def test_steps_keep_the_period_whatever_they_take(clock) -> None:
    pace = Pace(10.0)
    assert begins(pace, clock, [0.03, 0.09, 0.0, 0.05]) == [0.0, 0.1, 0.2, 0.3]
    assert pace.timing.late_steps == 0 and pace.timing.longest_period_s == pytest.approx(0.1)


def test_a_step_that_took_too_long_is_not_made_up_for_and_is_counted(clock) -> None:
    pace = Pace(10.0)
    assert begins(pace, clock, [0.0, 0.25, 0.0, 0.0]) == [0.0, 0.1, 0.35, 0.45]
    assert pace.timing.late_steps == 1 and pace.timing.longest_period_s == pytest.approx(0.25)


def test_waking_up_late_keeps_the_grid_and_is_counted(clock) -> None:
    pace = Pace(10.0)
    clock.overshoot = 0.02
    assert begins(pace, clock, [0.0, 0.0, 0.0]) == [0.0, 0.12, 0.22]
    assert pace.timing.late_steps == 2


def test_an_episode_begins_anew_however_long_the_reset_took(clock) -> None:
    pace = Pace(10.0)
    begins(pace, clock, [0.0, 0.3, 0.0])
    clock.now += 5.0
    assert begins(pace, clock, [0.0, 0.0]) == [0.0, 0.1]
    assert pace.timing.late_steps == 0 and pace.timing.longest_period_s == pytest.approx(0.1)


@pytest.mark.failure("R15")
def test_the_age_of_the_observation_is_known(clock) -> None:
    pace = Pace(10.0)
    pace.begin()
    pace.observed()
    clock.now += 0.04  # the policy thinks
    pace.wait()
    assert pace.timing == Timing(0, 0.0, pytest.approx(0.04))
    pace.observed()
    pace.wait()  # waits for the rest of the period
    assert pace.timing.observation_age_s == pytest.approx(0.1)


def test_a_loop_that_is_often_late_says_so_and_one_that_always_is_gives_up_its_priority(clock, caplog) -> None:
    gave_up: list[float] = []
    pace = Pace(10.0, on_hopeless=lambda: gave_up.append(clock.now))
    with caplog.at_level(logging.WARNING, "hilserl"):
        begins(pace, clock, [0.2] * 20)
        assert not gave_up
        begins(pace, clock, [0.2] * 200)
    assert len(gave_up) == 1
    assert "control steps began late" in caplog.text and "the period is 100 ms" in caplog.text


def policy_of_this_thread() -> int:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK


def may_be_realtime() -> bool:
    with RealtimePriority(1) as priority:
        return priority.is_held


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler") or not may_be_realtime(), reason="this user may not have real-time priority")
def test_only_the_control_thread_gets_real_time_priority_and_only_for_the_block() -> None:
    seen: list[int] = []
    before = threading.Event()
    early = threading.Thread(target=lambda: (before.wait(5), seen.append(policy_of_this_thread())))
    early.start()
    with RealtimePriority(7) as priority:
        assert policy_of_this_thread() == os.SCHED_FIFO and os.sched_getparam(0).sched_priority == 7
        late = threading.Thread(target=lambda: seen.append(policy_of_this_thread()))
        late.start()
        before.set()
        early.join()
        late.join()
        assert priority.is_held
    assert seen == [os.SCHED_OTHER, os.SCHED_OTHER]
    assert policy_of_this_thread() == os.SCHED_OTHER
    with RealtimePriority(7) as priority:
        priority.give_back()
        assert policy_of_this_thread() == os.SCHED_OTHER and not priority.is_held


def test_a_refused_priority_is_said_and_stops_nothing(monkeypatch, caplog) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with caplog.at_level(logging.INFO, "hilserl"), RealtimePriority(7) as priority:
        assert not priority.is_held
        priority.give_back()
    assert "No real-time priority 7" in caplog.text and "rtprio" in caplog.text


def test_nobody_is_asked_without_a_setting(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: pytest.fail("asked"))
    with RealtimePriority(None) as priority:
        assert not priority.is_held
