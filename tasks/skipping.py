"""Phases that a configuration does not need: shown as skipped, on the run's page and on the terminal."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from hilserl.progress import Progress, publish

NO_DEMONSTRATIONS = "a Gymnasium environment has no demonstrations"


def skip(stage: str, why: str) -> None:
    """Leave a phase out, visibly: its task run is `Skipped`, with the reason as its message."""
    publish(Progress(stage, message=why, skipped=True))

    @task(name=stage, cache_policy=NO_CACHE, persist_result=False)
    def skipped() -> State[None]:
        return Completed(name="Skipped", message=why)

    skipped()
