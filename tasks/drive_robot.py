"""Phase: the actor's part. Never retried: it moves hardware."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import psutil
from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL

from hilserl.actor.run import run_actor
from hilserl.config import TrainConfig
from hilserl.console.open import console_of
from hilserl.errors import ServiceError
from hilserl.files import home
from hilserl.link.auth import read_token
from hilserl.runs import token_file
from hilserl.services import rest
from tasks.link_token import take_token_from_block
from tasks.run_watch import RunWatch
from tasks.server import has_server

_LATEST_START_S = 60.0  # until a worker makes this process
_LATEST_MOTION_S = 180.0  # until here; a busy machine imports for a minute
_HANDOVER_S = 15.0  # an actor that the training gave up ends within this when it reads that


@task(name="drive-robot", retries=0, cache_policy=NO_CACHE, persist_result=False)
def drive_robot(config: TrainConfig, address: str, run_id: str) -> dict[str, Any]:
    """Act until the learner has finished or the flow run is cancelled; returns what was done."""
    if not config.link.tls:
        take_token_from_block()
    with RunWatch() as watch, console_of(config, mode="train", run=run_id) as operator:
        result = run_actor(
            config,
            address=address,
            token=None if config.link.tls else read_token(token_file(run_id)),
            run_id=run_id,
            journal_folder=home() / "actors" / run_id,
            should_stop=lambda: watch.reason,
            handover_s=_HANDOVER_S,
            operator=operator,
        )
    return {**vars(result), "cancelled": watch.reason is not None and result.reason == watch.reason}


def too_late() -> str | None:
    """Say so when this flow run waited too long for a worker: nobody expects the arm to move any more."""
    scheduled: dt.datetime | None = runtime.flow_run.scheduled_start_time
    if scheduled is None:
        return None
    moves_s = (_server_time() - scheduled).total_seconds()
    taken_s = moves_s - (time.time() - psutil.Process().create_time())
    if taken_s <= _LATEST_START_S and moves_s <= _LATEST_MOTION_S:
        return None
    return f"It was to start {moves_s:.0f} s ago. An actor that is more than {_LATEST_START_S:.0f} s late does not move the arm unattended."


def _server_time() -> dt.datetime:
    """Return the time by the clock that scheduled this run; this host's may differ by minutes."""
    if not has_server():
        return dt.datetime.now(dt.UTC)
    try:
        return rest.server_time(f"{PREFECT_API_URL.value()}/health")
    except ServiceError:
        return dt.datetime.now(dt.UTC)


def import_ahead() -> None:
    """Import what is slow to import, for a process that waits anyway."""
    import hilserl.sim.env  # noqa: F401
