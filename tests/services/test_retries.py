"""A crashed training is started again once the worker has done with it, and not for ever. (The server's part: `tests/flows`.)"""

from __future__ import annotations

import datetime as dt
import types
from typing import Any

import pytest

from hilserl.errors import ServiceError
from hilserl.services import retries
from hilserl.services.deployments import DeploymentPlan
from hilserl.services.retries import CrashedTrainings

PLAN = DeploymentPlan({}, {"learner": None, "robot": "bench"}, (), "bench")


class Server:
    """What the loop sees of Prefect."""

    def __init__(self) -> None:
        self.crashed: list[dict[str, Any]] = []
        self.worker_is_done, self.is_away = True, False
        self.retried: list[str] = []

    def crash(self, run_id: str, seconds_ago: float = 1.0) -> None:
        moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)
        state = {"timestamp": moment.isoformat(), "message": "exit code -9"}
        self.crashed = [{"id": run_id, "name": "reach", "work_pool_name": "learner", "state": state}]

    def trainings(self, *_: Any) -> list[dict[str, Any]]:
        if self.is_away:
            raise ServiceError("no answer")
        return self.crashed

    def retry(self, _: str, run: dict[str, Any]) -> bool:
        self.retried.append(run["id"])
        self.crashed = []
        return True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(retries, "_PERIOD_S", 0.0)
    monkeypatch.setattr(retries, "crashed_trainings", server.trainings)
    monkeypatch.setattr(retries, "has_worker_done", lambda *_: server.worker_is_done)
    monkeypatch.setattr(retries, "retry_run", server.retry)
    return server


def test_it_waits_for_the_worker_and_says_what_it_did(server: Server) -> None:
    said: list[str] = []
    trainings = CrashedTrainings("http://server", PLAN, said.append)
    server.worker_is_done = False
    server.crash("one")
    trainings.tend()
    assert server.retried == []
    server.worker_is_done = True
    trainings.tend()
    assert server.retried == ["one"] and said == ["Training `reach` crashed (exit code -9). It is started again."]


def test_a_worker_that_is_gone_or_never_heard_of_is_not_waited_for(server: Server) -> None:
    trainings = CrashedTrainings("http://server", PLAN, lambda line: None)
    server.worker_is_done = False
    server.crash("orphan")
    trainings.note_new_worker("learner")
    trainings.tend()
    server.crash("unheard", seconds_ago=200)
    trainings.tend()
    assert server.retried == ["orphan", "unheard"]


def test_it_is_not_done_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(retries, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    said: list[str] = []
    trainings = CrashedTrainings("http://server", PLAN, said.append)
    for _ in range(20):
        server.crash("broken")
        trainings.tend()
        clock.now += 20
    assert len(server.retried) == 12 and "is not started again by itself" in said[-1] and "prefect flow-run retry broken" in said[-1]


def test_a_server_that_is_away_is_asked_again(server: Server) -> None:
    trainings = CrashedTrainings("http://server", PLAN, lambda line: None)
    server.crash("one")
    server.is_away = True
    trainings.tend()
    server.is_away = False
    trainings.tend()
    assert server.retried == ["one"]
