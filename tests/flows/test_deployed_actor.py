"""Adopting, asking for and judging the actor's flow run, on a real server; no worker runs anything here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from pipeline_testing import make_tiny_config, open_run

from hilserl.errors import ServiceError
from tasks import deployed_actor
from tasks.actor_launch import NotReady
from tasks.deployed_actor import LEARNER_AWAY, TOO_LATE, DeployedActor

pytestmark = pytest.mark.usefixtures("prefect_server")

ADDRESS = "127.0.0.1:5000"


@pytest.fixture
def client() -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def pool(client: Any, request: pytest.FixtureRequest) -> str:
    """A pool with a queue and a deployment `actor/<pool>`, and nobody who works."""
    from prefect import flow
    from prefect.client.schemas.actions import WorkPoolCreate

    @flow(name="actor")
    def actor() -> None:
        """Stand in for the real one."""

    name = request.node.name[:40].replace("[", "-").replace("]", "").replace("_", "-")
    client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    client.create_work_queue(name, work_pool_name=name) if hasattr(client, "create_work_queue") else None
    client.create_deployment(flow_id=client.create_flow(actor), name=name, work_pool_name=name, work_queue_name=name)
    return name


@pytest.fixture
def actor(own_home, pool: str) -> DeployedActor:
    config = make_tiny_config(robot__host=pool, name=pool)  # runs of one name and second would share their tag on this one server
    return DeployedActor(config, open_run(config))


def http(client: Any, method: str, path: str, **body: Any) -> Any:
    answer = client._client.request(method, path, json=body)
    return answer.json() if answer.content else None


def beat(client: Any, pool: str) -> None:
    """Do what a worker does: a heartbeat, and a look at its queue."""
    http(client, "POST", f"/work_pools/{pool}/workers/heartbeat", name="worker-1", heartbeat_interval_seconds=30)
    http(client, "POST", f"/work_pools/{pool}/get_scheduled_flow_runs", work_queue_names=[pool])


def running(client: Any, actor: DeployedActor, address: str, state: str = "RUNNING") -> UUID:
    deployment = client.read_deployment_by_name(actor._name)
    flow_run = client.create_flow_run_from_deployment(deployment.id, parameters={"address": address}, tags=[actor._tag])
    for kind in ("PENDING", "RUNNING") if state == "RUNNING" else ():
        http(client, "POST", f"/flow_runs/{flow_run.id}/set_state", state={"type": kind}, force=True)
    return flow_run.id


def phase(actor: DeployedActor, client: Any, **state: Any) -> str:
    http(client, "POST", f"/flow_runs/{actor._id}/set_state", state=state, force=True)
    return actor.state().phase


def test_who_is_missing_is_said_with_the_command_that_helps(actor: DeployedActor, client: Any, pool: str) -> None:
    with pytest.raises(
        NotReady, match=rf"work pool `{pool}`, queue `{pool}`, and no worker was ever seen.*prefect worker start --pool {pool}"
    ):
        actor.launch(ADDRESS)
    http(client, "POST", f"/work_pools/{pool}/workers/heartbeat", name="worker-1", heartbeat_interval_seconds=30)
    with pytest.raises(NotReady, match=r"A worker of that pool is there, but none asks for this queue \(last: never\)"):
        actor.launch(ADDRESS)
    beat(client, pool)
    http(client, "PATCH", f"/work_pools/{pool}", is_paused=True)
    with pytest.raises(NotReady, match=f"that pool is paused. `prefect work-pool resume {pool}`"):
        actor.launch(ADDRESS)
    http(client, "PATCH", f"/work_pools/{pool}", is_paused=False)
    http(client, "PATCH", f"/work_pools/{pool}/queues/{pool}", is_paused=True)
    with pytest.raises(NotReady, match="that queue is paused"):
        actor.launch(ADDRESS)
    http(client, "PATCH", f"/work_pools/{pool}/queues/{pool}", is_paused=False)
    actor.launch(ADDRESS)
    assert actor.state().phase == "waiting"
    http(client, "DELETE", f"/work_pools/{pool}")
    with pytest.raises((NotReady, ServiceError), match="work pool"):
        actor.launch(ADDRESS)


def test_a_worker_that_fell_silent_is_no_worker(actor: DeployedActor, client: Any, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beat(client, pool)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> dt.datetime:
            return later

    monkeypatch.setattr(deployed_actor.dt, "datetime", Later)
    with pytest.raises(NotReady, match=r"no worker is there any more: the last was heard 300 s ago"):
        actor.launch(ADDRESS)


def test_a_missing_deployment_is_named(own_home) -> None:
    config = make_tiny_config(robot__host="nowhere")
    with pytest.raises(ServiceError, match=r"no deployment `actor/nowhere` .*hilserl up"):
        DeployedActor(config, open_run(config)).launch(ADDRESS)


def test_the_living_actor_of_the_same_address_is_adopted_and_others_are_ended(actor: DeployedActor, client: Any) -> None:
    mine = running(client, actor, ADDRESS)
    waiting = running(client, actor, ADDRESS, "SCHEDULED")
    assert actor.adopt(ADDRESS)
    assert actor._id == mine and actor.state().phase == "running"
    assert client.read_flow_run(waiting).state.is_cancelled()


def test_an_actor_of_another_address_is_cancelled_and_one_that_does_not_end_is_called_crashed(
    actor: DeployedActor, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed_actor, "_OTHERS_END_S", 0.5)
    old = running(client, actor, "127.0.0.1:4999")
    assert not actor.adopt(ADDRESS)
    state = client.read_flow_run(old).state
    assert state.is_crashed() and "its host is silent" in state.message


def test_states_are_judged_by_who_has_to_act(actor: DeployedActor, client: Any) -> None:
    actor._id = running(client, actor, ADDRESS)
    assert actor.state().phase == "running"
    assert phase(actor, client, type="CRASHED") == "gone"
    assert phase(actor, client, type="FAILED", name=LEARNER_AWAY) == "gone"
    assert phase(actor, client, type="CANCELLED", name=TOO_LATE) == "gone"
    assert phase(actor, client, type="FAILED", name="Failed") == "failed"
    assert phase(actor, client, type="CANCELLED", name="Cancelled") == "cancelled"
    assert phase(actor, client, type="SCHEDULED", name="Late") == "waiting"
    assert phase(actor, client, type="PENDING", name="Submitting") == "starting"
    assert phase(actor, client, type="COMPLETED") == "completed"


def test_a_lost_actor_is_written_down_and_all_are_ended_at_the_end(
    actor: DeployedActor, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed_actor, "_CANCEL_S", 0.5)
    actor._id = running(client, actor, ADDRESS)
    actor.give_up("not heard for 20 s")
    state = client.read_flow_run(actor._id).state
    assert state.is_crashed() and state.message == "not heard for 20 s"
    unannounced = running(client, actor, ADDRESS)  # its request had left when the start was interrupted
    actor.stop(0.0)
    assert client.read_flow_run(unannounced).state.type.value == "CANCELLING"
