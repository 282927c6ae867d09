"""Phase: learn, while the actor acts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl.config import TrainConfig
from hilserl.learner.loop import LearnerResult, MetricLog
from hilserl.learner.run import run_learner
from hilserl.runs import RunFolder
from tasks.progress import progress_artifact

STAGE = "train-learner"


@task(name=STAGE, cache_policy=NO_CACHE, persist_result=False)
def train_learner(
    config: TrainConfig,
    run: RunFolder,
    offline_buffer: Path,
    encoders: Path | None,
    *,
    metrics: MetricLog,
    supervise: Callable[[], None],
) -> LearnerResult:
    """Train to the configured end; `supervise` raises when the actor is gone."""
    with progress_artifact("train-learner"):
        return run_learner(config, run, offline_buffer=offline_buffer, encoders=encoders, metrics=metrics, supervise=_every(2.0, supervise))


def _every(period_s: float, function: Callable[[], None]) -> Callable[[], None]:
    last = time.monotonic()

    def limited() -> None:
        nonlocal last
        if time.monotonic() - last >= period_s:
            last = time.monotonic()
            function()

    return limited
