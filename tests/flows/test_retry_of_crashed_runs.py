"""What `hilserl up` reads and writes when it starts a crashed training again, on a real server."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pipeline_testing import wait_until

from hilserl.services import rest
from hilserl.services.deployments import DeploymentPlan, close_lost_runs, crashed_trainings, create_pools, has_worker_done, retry_run

pytestmark = pytest.mark.usefixtures("prefect_server")

POOL = "crashing"
PLAN = DeploymentPlan({}, {POOL: None}, (), None)


@pytest.fixture
def api() -> str:
    from prefect.settings import PREFECT_API_URL

    api = str(PREFECT_API_URL.value())
    create_pools(api, PLAN)
    return api


@pytest.fixture
def run(api: str) -> Iterator[str]:
    flow = rest.call("POST", f"{api}/flows/", {"name": "hilserl"})["id"]
    deployment = rest.call("POST", f"{api}/deployments/", {"name": "train", "flow_id": flow, "work_pool_name": POOL})["id"]
    run = str(rest.call("POST", f"{api}/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"])
    for kind in ("PENDING", "RUNNING"):
        set_state(api, run, kind)
    yield run
    rest.call("DELETE", f"{api}/flow_runs/{run}")


def set_state(api: str, run: str, kind: str) -> None:
    state = {"type": kind, "name": kind.capitalize(), "message": "a test"}
    rest.call("POST", f"{api}/flow_runs/{run}/set_state", {"state": state, "force": True})


def state(api: str, run: str) -> dict[str, Any]:
    found: dict[str, Any] = rest.call("GET", f"{api}/flow_runs/{run}")
    return found


def since() -> dt.datetime:
    return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=30)


def test_one_training_at_a_time_is_the_pools_limit(api: str) -> None:
    assert rest.call("GET", f"{api}/work_pools/{POOL}")["concurrency_limit"] == 1
    rest.call("PATCH", f"{api}/work_pools/{POOL}", {"concurrency_limit": 3})
    create_pools(api, PLAN)
    assert rest.call("GET", f"{api}/work_pools/{POOL}")["concurrency_limit"] == 3, "what a person chose stays"
    rest.call("PATCH", f"{api}/work_pools/{POOL}", {"concurrency_limit": 1})


def test_a_crashed_run_is_found_and_is_the_same_run_again(api: str, run: str) -> None:
    assert crashed_trainings(api, PLAN, since()) == []
    set_state(api, run, "CRASHED")
    (crashed,) = crashed_trainings(api, PLAN, since())
    assert crashed["id"] == run
    assert crashed_trainings(api, PLAN, dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)) == []
    assert retry_run(api, crashed)
    again = state(api, run)
    assert (again["state"]["type"], again["state"]["name"]) == ("SCHEDULED", "AwaitingRetry") and "a test" in again["state"]["message"]
    for kind in ("PENDING", "RUNNING"):
        set_state(api, run, kind)
    assert state(api, run)["run_count"] == 2


def test_a_run_that_was_being_cancelled_is_cancelled_and_not_retried(api: str, run: str) -> None:
    set_state(api, run, "CANCELLING")
    set_state(api, run, "CRASHED")
    (crashed,) = crashed_trainings(api, PLAN, since())
    assert not retry_run(api, crashed)
    assert state(api, run)["state"]["type"] == "CANCELLED"


def test_the_workers_last_word_is_awaited(api: str, run: str) -> None:
    set_state(api, run, "CRASHED")
    crashed = state(api, run)
    assert not has_worker_done(api, crashed)
    event = {
        "id": str(uuid.uuid4()),
        "occurred": dt.datetime.now(dt.UTC).isoformat(),
        "event": "prefect.worker.executed-flow-run",
        "resource": {"prefect.resource.id": "prefect.worker.process.learner"},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
    }
    rest.call("POST", f"{api}/events", [event])
    wait_until(lambda: has_worker_done(api, crashed), 30)


@pytest.mark.parametrize(("before", "after"), [("RUNNING", "CRASHED"), ("PENDING", "CRASHED"), ("CANCELLING", "CANCELLED")])
def test_what_a_dead_worker_had_started_is_closed_truly(api: str, run: str, before: str, after: str) -> None:
    set_state(api, run, before)
    assert close_lost_runs(api, POOL, None, "worker-1", "the worker died") == 1
    assert (state(api, run)["state"]["type"], state(api, run)["state"]["message"]) == (after, "the worker died")


def test_another_workers_runs_are_left_alone(api: str, run: str) -> None:
    rest.call("POST", f"{api}/work_pools/{POOL}/workers/heartbeat", {"name": "worker-2", "heartbeat_interval_seconds": 30})
    assert close_lost_runs(api, POOL, None, "worker-1", "the worker died") == 0
    assert state(api, run)["state"]["type"] == "RUNNING"
