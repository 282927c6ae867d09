"""When an actor is replaced, and when a person is asked; the launcher is scripted, the thread is the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from pipeline_testing import make_tiny_config, open_run, wait_until

from hilserl.errors import RobotError, ServiceError
from hilserl.learner.parts import LearnerView
from tasks import actor_control
from tasks.actor_control import ActorKeeper
from tasks.actor_launch import ActorState, NotReady
from tasks.run_watch import RunStopped, RunWatch

RUNNING = ActorState("running")


class Launcher:
    """Does what the test says, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.now: ActorState = RUNNING
        self.adopts = False
        self.problem: Exception | None = None

    def adopt(self, address: str) -> bool:
        self.calls.append("adopt")
        return self.adopts

    def launch(self, address: str) -> None:
        if self.problem:
            raise self.problem
        self.calls.append("launch")
        self.now = RUNNING

    def state(self) -> ActorState:
        if self.problem and not isinstance(self.problem, NotReady):
            raise self.problem
        return self.now

    def withdraw(self, reason: str) -> None:
        self.calls.append("withdraw")

    def give_up(self, reason: str) -> None:
        self.calls.append(f"give up: {reason}")

    def stop(self, own_end_s: float) -> None:
        self.calls.append(f"stop {own_end_s:g}")


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def keeper(own_home, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> Iterator[ActorKeeper]:
    for name, value in {"_POLL_S": 0.01, "_SILENT_S": 0.3, "_ADOPTED_S": 0.4, "_WITHDRAW_S": 0.3, "_TOLD_S": 0.1, "_NOTED_S": 0.01}.items():
        monkeypatch.setattr(actor_control, name, value)
    config = make_tiny_config(actor__restarts=2, learner__actor_timeout_s=600)
    keeper = ActorKeeper(launcher, config, open_run(config), RunWatch())
    yield keeper
    keeper.stop()


def view(steps: int = 0, silent_s: float | None = 0.0, updates: int = 0) -> LearnerView:
    return LearnerView(time.monotonic(), {} if silent_s is None else {"so101-sim": silent_s}, steps, updates)


def checked(keeper: ActorKeeper, make: Callable[[], LearnerView] = view) -> Callable[[], bool]:
    """Poll `check` as the learner does; true when it has raised."""

    def poll() -> bool:
        keeper.check(make())
        return False

    return poll


def test_an_actor_that_lives_is_adopted_and_none_is_launched(keeper: ActorKeeper, launcher: Launcher) -> None:
    launcher.adopts = True
    keeper.start("host:1")
    for _ in range(30):
        assert keeper.check(view()) == ""
        time.sleep(0.02)
    assert launcher.calls == ["adopt"]


def test_an_adopted_actor_that_never_speaks_is_replaced(keeper: ActorKeeper, launcher: Launcher) -> None:
    launcher.adopts = True
    keeper.start("host:1")
    wait_until(lambda: bool(keeper.check(view(silent_s=None))) or "launch" in launcher.calls, 60)
    assert launcher.calls[1].startswith("give up: The learner has not heard this actor for")


def test_an_actor_that_was_heard_and_falls_silent_is_replaced_a_new_one_may_take_its_time(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: "launch" in launcher.calls, 60)
    time.sleep(0.8)
    keeper.check(view(silent_s=None))
    time.sleep(0.1)
    assert launcher.calls == ["adopt", "launch"], "it imports for a while before it speaks"
    heard = time.monotonic()
    wait_until(lambda: bool(keeper.check(view(silent_s=time.monotonic() - heard))) or len(launcher.calls) > 2, 60)
    assert "its host, its network or its process is gone" in launcher.calls[2]
    wait_until(lambda: launcher.calls[3:] == ["launch"], 60)


def test_an_actor_that_came_back_since_the_learner_looked_is_kept(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: "launch" in launcher.calls, 60)
    time.sleep(0.8)
    keeper.check(view(silent_s=0.6))  # heard once, then cut off
    time.sleep(0.2)
    for _ in range(20):
        keeper.check(view())
        time.sleep(0.02)
    assert launcher.calls == ["adopt", "launch"]


def test_a_learner_that_is_busy_accuses_nobody(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: "launch" in launcher.calls, 60)
    time.sleep(0.05)
    keeper.check(view())
    time.sleep(1.0)  # no view: the learner's loop does something long
    assert launcher.calls == ["adopt", "launch"]


@pytest.mark.failure("R20")
def test_a_dead_actor_is_replaced_until_it_dies_too_often_without_a_step(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    for steps in range(10, 60, 60):  # progress in between: any number of times
        wait_until(lambda: launcher.now == RUNNING and keeper.check(view(steps)) == "", 60)  # noqa: B023
        time.sleep(0.05)
        launcher.now = ActorState("gone", "the actor's flow run is Crashed: exit code 137")
        count = launcher.calls.count("launch")
        wait_until(lambda: launcher.calls.count("launch") > count, 60)  # noqa: B023

    def die_again() -> bool:
        launcher.now = ActorState("gone", "exit code 137")
        keeper.check(view(50))
        return False

    with pytest.raises(RobotError, match=r"died 3 times without one new environment step \(actor.restarts is 2\)"):
        wait_until(die_again, 60)


@pytest.mark.failure("R20")
def test_an_actor_with_an_error_of_its_own_needs_a_person(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: "launch" in launcher.calls, 60)
    launcher.now = ActorState("failed", "the actor's flow run is Failed: joint 3 is jammed")
    with pytest.raises(RobotError, match=r"(?s)joint 3 is jammed.*needs a person.*it continues"):
        wait_until(checked(keeper), 60)
    assert launcher.calls.count("launch") == 1


def test_a_cancelled_actor_stops_the_training(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    launcher.now = ActorState("cancelled", "the actor's flow run is Cancelled: by a person")
    wait_until(lambda: "launch" in launcher.calls, 60)
    launcher.now = ActorState("cancelled", "the actor's flow run is Cancelled: by a person")
    with pytest.raises(RunStopped, match="by a person"):
        wait_until(checked(keeper), 60)


def test_what_is_missing_is_said_while_it_waits_and_fails_in_the_end(keeper: ActorKeeper, launcher: Launcher) -> None:
    launcher.problem = NotReady("work pool `robot`, queue `bench`, and no worker was ever seen there. Start `prefect worker start`.")
    keeper.start("host:1")
    wait_until(lambda: "no worker was ever seen there" in keeper.check(view()), 60)
    keeper._patience_s = 0.1
    with pytest.raises(ServiceError, match=r"for \d+ s no actor can be started: work pool `robot`, queue `bench`"):
        wait_until(checked(keeper), 60)


def test_what_came_before_the_learner_listened_is_no_waiting(keeper: ActorKeeper, launcher: Launcher) -> None:
    """A keeper is made before the data phases, and those may take an hour."""
    keeper._without -= 3600
    launcher.problem = NotReady("no worker is there")
    keeper.start("host:1")
    wait_until(lambda: "no worker is there" in keeper.check(view(silent_s=None)), 60)
    for _ in range(20):
        keeper.check(view(silent_s=None))
        time.sleep(0.02)


def test_an_actor_that_nobody_starts_is_asked_for_anew_before_it_is_too_old(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: "launch" in launcher.calls, 60)
    launcher.now = ActorState("waiting", "Late")
    wait_until(lambda: "no worker of the robot host `robot-host` has started the actor" in keeper.check(view()), 60)
    wait_until(lambda: launcher.calls[2:4] == ["withdraw", "launch"], 60)
    wait_until(lambda: keeper.check(view()) == "", 60)


def test_an_actor_that_a_worker_is_starting_is_not_taken_back(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: "launch" in launcher.calls, 60)
    launcher.now = ActorState("starting")
    wait_until(lambda: "taken by a worker" in keeper.check(view()), 60)
    keeper._patience_s = 0.1
    with pytest.raises(ServiceError, match="taken by a worker, and does not run yet"):
        wait_until(checked(keeper), 60)
    assert launcher.calls == ["adopt", "launch"]


def test_a_server_that_is_away_holds_nothing_up(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: "launch" in launcher.calls, 60)
    launcher.problem = httpx.ConnectError("no server")
    time.sleep(0.5)
    began = time.monotonic()
    assert keeper.check(view()) == ""
    assert time.monotonic() - began < 0.1
    launcher.problem, launcher.now = None, ActorState("gone", "exit code 137")
    wait_until(lambda: launcher.calls.count("launch") == 2, 60)


def test_a_refusal_by_the_server_is_an_error_and_not_an_outage(keeper: ActorKeeper, launcher: Launcher) -> None:
    request = httpx.Request("POST", "http://server")
    launcher.problem = httpx.HTTPStatusError("422: parameters", request=request, response=httpx.Response(422, request=request))
    keeper.start("host:1")
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        wait_until(checked(keeper), 60)


def test_progress_is_noted_in_the_run(keeper: ActorKeeper, launcher: Launcher) -> None:
    keeper.start("host:1")
    wait_until(lambda: not keeper.check(view(updates=17)) and keeper._run.facts().get("updates_seen") == 17, 60)
