"""The actor as a flow run of the deployment `actor/<host>`, on the host that owns the robot."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from hilserl.config import TrainConfig
from hilserl.errors import ServiceError
from hilserl.runs import RunFolder
from tasks.actor_launch import ActorState, NotReady, parameters
from tasks.server import quick_client

logger = logging.getLogger(__name__)

# Names of final states of the flow `actor` after which another one may be started by itself.
LEARNER_AWAY, TOO_LATE = "LearnerAway", "TooLate"
_UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]
_WAITING = (StateType.SCHEDULED, StateType.PAUSED)
_CANCEL_S = 25.0  # Prefect kills a cancelled flow after 30 s
_OTHERS_END_S = 40.0
_POLL_S = 0.5
_BEATS = 3  # Prefect calls a worker offline after so many missed heartbeats
_QUEUE_S = 60.0  # a worker polls its queue every 15 s or more often


class DeployedActor:
    """Flow runs with the tag `run:<run id>`, one at a time."""

    def __init__(self, config: TrainConfig, run: RunFolder) -> None:
        self._config, self._run = config, run
        self._name = f"actor/{config.robot.host}"
        self._tag = f"run:{run.run_id}"
        self._id: UUID | None = None
        self._launches = 0

    def adopt(self, address: str) -> bool:
        """Take over the actor that is running for this learner's address; end all others of this run, and wait for that."""
        with quick_client() as client:
            found = self._unfinished(client)
            mine = next((r for r in found if r.state and r.state.is_running() and r.parameters.get("address") == address), None)
            others = [flow_run for flow_run in found if mine is None or flow_run.id != mine.id]
            self._cancel(client, others, "a later attempt of this training replaces this actor")
            if not _ended(client, others, _OTHERS_END_S):
                for flow_run in others:
                    state: State = Crashed(message=f"It did not end within {_OTHERS_END_S:.0f} s of its cancellation; its host is silent.")
                    client.set_flow_run_state(flow_run.id, state, force=True)
        self._id = mine.id if mine else None
        if mine:
            logger.info("The actor's flow run `%s` goes on for this learner.", mine.name)
        return mine is not None

    def launch(self, address: str) -> None:
        """Start a flow run, if a worker is there to take it."""
        with quick_client() as client:
            try:
                deployment = client.read_deployment_by_name(self._name)
            except ObjectNotFound:
                raise ServiceError(
                    f"there is no deployment `{self._name}` (robot.host is `{self._config.robot.host}`). Start `hilserl up`, "
                    "or deploy flows/actor.py for that host with `prefect deploy --all`."
                ) from None
            if problem := why_nobody_starts(client, deployment):
                raise NotReady(problem)
            flow_run = run_deployment(
                deployment.id,
                parameters=parameters(self._config, self._run, address),
                timeout=0,
                as_subflow=True,
                tags=[self._tag, f"robot:{self._config.robot.id}"],
                # A repeated request starts no second actor; each attempt and each replacement is one of its own.
                idempotency_key=f"actor-{runtime.flow_run.id}-{runtime.flow_run.run_count}-{time.time_ns() if self._launches else 0}",
            )
        self._launches += 1
        self._id = flow_run.id  # type: ignore[union-attr]

    def state(self) -> ActorState:
        """Judge the flow run's state."""
        assert self._id is not None, "there is no actor"
        with quick_client() as client:
            try:
                state = client.read_flow_run(self._id).state
            except ObjectNotFound:
                return ActorState("gone", "the actor's flow run was deleted")
        return _judge(state)

    def withdraw(self, reason: str) -> None:
        """Cancel the flow run that waits; one that began meanwhile is told too."""
        with quick_client() as client:
            flow_runs = self._unfinished(client)
            self._cancel(client, flow_runs, reason)
            _ended(client, flow_runs, _CANCEL_S)

    def give_up(self, reason: str) -> None:
        """Call the flow run crashed."""
        assert self._id is not None, "there is no actor"
        with quick_client() as client:
            client.set_flow_run_state(self._id, Crashed(message=reason), force=True)

    def stop(self, own_end_s: float) -> None:
        """End every actor of this run, also one whose start was interrupted before its answer was here."""
        try:
            with quick_client() as client:
                flow_runs = self._unfinished(client)
                if _ended(client, flow_runs, own_end_s):
                    return
                self._cancel(client, flow_runs, "the training ended")
                if not _ended(client, flow_runs, _CANCEL_S):
                    names = ", ".join(flow_run.name for flow_run in flow_runs)
                    logger.error("The actor's flow run %s did not end within %g s of its cancellation; look at the robot", names, _CANCEL_S)
        except httpx.HTTPError as error:
            logger.warning("Only the learner told the actor that the training ended: the Prefect server does not answer (%r).", error)

    def _unfinished(self, client: SyncPrefectClient) -> list[FlowRun]:
        return client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=[self._tag]), state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED))
            )
        )

    def _cancel(self, client: SyncPrefectClient, flow_runs: list[FlowRun], message: str) -> None:
        for flow_run in flow_runs:
            client.set_flow_run_state(flow_run.id, Cancelling(message=message))


def _judge(state: State | None) -> ActorState:
    if state is None or state.type in _WAITING:
        return ActorState("waiting", (state.name if state else None) or "Scheduled")
    if state.type == StateType.PENDING:
        return ActorState("starting")
    if state.type in (StateType.RUNNING, StateType.CANCELLING):
        return ActorState("running")
    message = f"the actor's flow run is {state.name}: {state.message or 'no message'}"
    if state.type == StateType.CRASHED or state.name in (LEARNER_AWAY, TOO_LATE):
        return ActorState("gone", message)
    if state.type == StateType.COMPLETED:
        return ActorState("completed")
    return ActorState("cancelled" if state.type == StateType.CANCELLED else "failed", message)


def _ended(client: SyncPrefectClient, flow_runs: list[FlowRun], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    is_over: Callable[[FlowRun], bool] = lambda found: found.state is not None and found.state.is_final()  # noqa: E731
    while not all(is_over(client.read_flow_run(flow_run.id)) for flow_run in flow_runs):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def why_nobody_starts(client: SyncPrefectClient, deployment: DeploymentResponse) -> str | None:
    """Say what a run of this deployment would wait for: a pool, a queue or a worker that is missing or paused; None if it would not."""
    pool_name, queue_name = deployment.work_pool_name, deployment.work_queue_name
    what = f"deployment `{deployment.name}` runs on work pool `{pool_name}`, queue `{queue_name}`"
    start = f"`prefect worker start --pool {pool_name} --work-queue {queue_name}` on that host (or `hilserl up`)"
    if pool_name is None:
        return f"deployment `{deployment.name}` has no work pool any more. Make it again (`prefect deploy --all`, or `hilserl up`)."
    try:
        pool = client.read_work_pool(pool_name)
    except ObjectNotFound:
        return f"{what}, and there is no such pool. `prefect work-pool create --type process {pool_name}`, then {start}."
    if pool.is_paused:
        return f"{what}, and that pool is paused. `prefect work-pool resume {pool_name}`."
    try:
        queue = client.read_work_queue_by_name(queue_name or "default", pool_name)
    except ObjectNotFound:
        return f"{what}, and there is no such queue. {start} makes it."
    if queue.is_paused:
        return f"{what}, and that queue is paused. `prefect work-queue resume {queue_name} --pool {pool_name}`."
    workers = client.read_workers_for_work_pool(pool_name)
    if not any(_age_s(w.last_heartbeat_time) < _BEATS * (w.heartbeat_interval_seconds or 30) for w in workers):
        seen = min((_age_s(worker.last_heartbeat_time) for worker in workers), default=None)
        when = "was ever seen there" if seen is None else f"is there any more: the last was heard {seen:.0f} s ago"
        return f"{what}, and no worker {when}. Start {start}."
    if _age_s(queue.last_polled) > _QUEUE_S:
        when = "never" if queue.last_polled is None else f"{_age_s(queue.last_polled):.0f} s ago"
        return f"{what}. A worker of that pool is there, but none asks for this queue (last: {when}). Start {start}."
    return None


def _age_s(moment: dt.datetime | None) -> float:
    return float("inf") if moment is None else (dt.datetime.now(dt.UTC) - moment).total_seconds()
