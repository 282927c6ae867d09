"""Phase: the actor's part. Never retried: it moves hardware."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl.actor.run import run_actor
from hilserl.config import TrainConfig
from hilserl.files import home
from hilserl.link.auth import read_token
from hilserl.runs import token_file
from tasks.run_watch import RunWatch


@task(name="drive-robot", retries=0, cache_policy=NO_CACHE, persist_result=False)
def drive_robot(config: TrainConfig, address: str, run_id: str) -> dict[str, Any]:
    """Act until the learner has finished or the flow run is cancelled; returns what was done."""
    with RunWatch() as watch:
        result = run_actor(
            config,
            address=address,
            token=read_token(token_file(run_id)),
            run_id=run_id,
            journal_folder=home() / "actors" / run_id,
            should_stop=lambda: watch.reason,
        )
    return {**vars(result), "cancelled": watch.reason is not None and result.reason == watch.reason}


def import_ahead() -> None:
    """Import what is slow to import, for a process that waits anyway."""
    import hilserl.sim.env  # noqa: F401
