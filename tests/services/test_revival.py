"""What dies is started again, less and less often, and not for ever."""

from __future__ import annotations

import types

import pytest

from hilserl.errors import ServiceError
from hilserl.services import revival
from hilserl.services.revival import Revived


class Frail:
    """A service that dies when told to."""

    def __init__(self) -> None:
        self.is_dead, self.starts, self.refuses = False, 0, False

    def check(self) -> None:
        if self.is_dead:
            raise ServiceError("Frail ended unexpectedly with code 137.\n  | The end of its log:\n  | on fire")

    def start(self) -> None:
        if self.refuses:
            raise ServiceError("Port 4200 is in use")
        self.starts += 1
        self.is_dead = False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(revival, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_it_is_started_again_after_a_pause_that_doubles_and_said_in_a_line(clock: types.SimpleNamespace) -> None:
    frail, said = Frail(), []
    revived = Revived("Frail", frail, frail.start, said.append)
    for number, pause_s in enumerate([1, 2, 4, 8]):
        frail.is_dead = True
        revived.tend()
        clock.now += pause_s - 0.1
        revived.tend()
        assert frail.starts == number
        clock.now += 0.2
        revived.tend()
        assert frail.starts == number + 1
        revived.tend()
    assert said[:2] == ["Frail ended unexpectedly with code 137. Starting it again in 1 s.", "Frail is back."]


def test_five_deaths_within_two_minutes_end_it_with_its_log(clock: types.SimpleNamespace) -> None:
    frail = Frail()
    revived = Revived("Frail", frail, frail.start, lambda line: None)
    with pytest.raises(ServiceError, match=r"(?s)on fire.*died 5 times within 120 s"):
        for _ in range(200):
            frail.is_dead = True
            revived.tend()
            clock.now += 1
    assert frail.starts == 4


def test_a_service_that_dies_now_and_then_is_never_given_up(clock: types.SimpleNamespace) -> None:
    frail = Frail()
    revived = Revived("Frail", frail, frail.start, lambda line: None)
    for number in range(20):
        frail.is_dead = True
        revived.tend()
        clock.now += 60
        revived.tend()
        assert frail.starts == number + 1


def test_it_waits_for_what_it_needs_and_a_refused_start_counts_as_a_death(clock: types.SimpleNamespace) -> None:
    frail, has_server = Frail(), False
    revived = Revived("Frail", frail, frail.start, lambda line: None, may_start=lambda: has_server)
    frail.is_dead = True
    revived.tend()
    clock.now += 300
    revived.tend()
    assert frail.starts == 0
    has_server, frail.refuses = True, True
    with pytest.raises(ServiceError, match=r"(?s)Port 4200 is in use.*died 5 times"):
        for _ in range(100):
            revived.tend()
            clock.now += 1
