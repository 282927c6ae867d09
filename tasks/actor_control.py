"""Start and stop the actor that belongs to a training run.

Under a deployment the actor is the deployment `actor/<host>` of the robot's host. Without one (the demo,
a notebook) it is a process of this machine that runs the same flow.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from hilserl.config import TrainConfig
from hilserl.errors import RobotError, ServiceError
from hilserl.files import write_json
from hilserl.runs import RunFolder
from hilserl.services.environment import project_root
from hilserl.services.processes import ManagedProcess

logger = logging.getLogger(__name__)

# An actor ends by itself when the learner has finished; Prefect kills a cancelled one after 30 s.
_OWN_END_S = 20.0
_CANCEL_S = 25.0


class RunActor(Protocol):
    """The actor of one run, somewhere."""

    def start(self, address: str) -> None:
        """Start it for the learner at `address`."""

    def check(self) -> None:
        """Raise if it died; one that ended because the learner has finished is fine."""

    def stop(self) -> None:
        """Let it end, then make it end; harmless before `start` and when repeated."""


@contextmanager
def actor_of(config: TrainConfig, run: RunFolder) -> Iterator[RunActor]:
    """Provide the run's actor, not acting yet, and stop it afterwards, whatever happened.

    An actor of this machine is a process that already imports what it needs; it knows no learner and
    touches no robot before `start`.
    """
    actor = _DeployedActor(config, run) if runtime.deployment.id else _LocalActor(config, run)
    try:
        yield actor
    finally:
        actor.stop()


def _parameters(config: TrainConfig, run: RunFolder, address: str) -> dict[str, object]:
    return {"config": config.model_dump(mode="json"), "address": address, "run_id": run.run_id}


class _LocalActor:
    def __init__(self, config: TrainConfig, run: RunFolder) -> None:
        self._config, self._run = config, run
        self._file = run.path / "actor_parameters.json"
        self._file.unlink(missing_ok=True)  # an interrupted process of this run had another learner
        self._started = False
        self._process = ManagedProcess(
            "actor",
            [sys.executable, "-m", "flows.actor", str(self._file)],
            env=os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value() or ""},
            cwd=project_root(),
            log=run.path / "actor.log",
            grace_s=_CANCEL_S,
        )
        self._process.start()  # it imports, and then waits for its parameters

    def start(self, address: str) -> None:
        self._started = True
        write_json(self._file, _parameters(self._config, self._run, address))

    def check(self) -> None:
        if self._process.exit_code:
            raise RobotError(
                f"the actor ended with code {self._process.exit_code} while the learner was training.{self._process.log_tail()}"
            )

    def stop(self) -> None:
        deadline = time.monotonic() + (_OWN_END_S if self._started and sys.exc_info()[0] is None else 0.0)
        while self._process.is_alive and time.monotonic() < deadline:
            time.sleep(0.05)
        self._process.stop()


class _DeployedActor:
    def __init__(self, config: TrainConfig, run: RunFolder) -> None:
        self._config, self._run = config, run
        self._tag = f"run:{run.run_id}"
        self._asked = False
        self._id: UUID | None = None

    def start(self, address: str) -> None:
        name = f"actor/{self._config.robot.host}"
        self._asked = True
        try:
            flow_run = run_deployment(
                name,
                parameters=_parameters(self._config, self._run, address),
                timeout=0,
                as_subflow=True,
                tags=[self._tag, f"robot:{self._config.robot.id}"],
                # A retried flow run starts one actor per attempt, a repeated call none.
                idempotency_key=f"actor-{runtime.flow_run.id}-{runtime.flow_run.run_count}",
            )
        except ObjectNotFound:
            raise ServiceError(
                f"there is no deployment `{name}` (robot.host is `{self._config.robot.host}`). Start `hilserl up`, "
                "or deploy flows/actor.py for that host with `prefect deploy --all`."
            ) from None
        self._id = flow_run.id  # type: ignore[union-attr]

    def check(self) -> None:
        state = self._state()
        if state is not None and state.is_final() and not state.is_completed():
            raise RobotError(f"the actor's flow run is {state.name}: {state.message or 'no message'}. Its log is in the Prefect UI.")

    def stop(self) -> None:
        if self._id is None:
            if self._asked:
                self._cancel_unannounced()
            return
        deadline = time.monotonic() + (_OWN_END_S if sys.exc_info()[0] is None else 0.0)
        if self._ended(deadline):
            return
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self._id, Cancelling(message="the training ended"))
        if not self._ended(time.monotonic() + _CANCEL_S):
            logger.error("The actor's flow run %s did not end within %g s after its cancellation; look at the robot", self._id, _CANCEL_S)

    def _cancel_unannounced(self) -> None:
        """Cancel the actor of a `start` that was interrupted after its request had left and before the answer was here."""
        with get_client(sync_client=True) as client:
            flow_runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    tags=FlowRunFilterTags(all_=[self._tag]),
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING])),
                )
            )
            for flow_run in flow_runs:
                client.set_flow_run_state(flow_run.id, Cancelling(message="the training ended"))

    def _ended(self, deadline: float) -> bool:
        while True:
            state = self._state()
            if state is not None and state.is_final():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.5)

    def _state(self):  # type: ignore[no-untyped-def]
        assert self._id is not None, "the actor was not started"
        with get_client(sync_client=True) as client:
            return client.read_flow_run(self._id).state
