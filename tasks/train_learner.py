"""Phase: learn, while the actor acts."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl.config import TrainConfig
from hilserl.learner.loop import LearnerResult, MetricLog
from hilserl.learner.run import run_learner
from hilserl.progress import Progress, publish
from hilserl.runs import RunFolder
from tasks.actor_control import ActorKeeper
from tasks.alarms import alarms_artifact
from tasks.progress import progress_artifact

STAGE = "train-learner"


@task(name=STAGE, cache_policy=NO_CACHE, persist_result=False)
def train_learner(
    config: TrainConfig, run: RunFolder, offline_buffer: Path | None, encoders: Path | None, actor: ActorKeeper, metrics: MetricLog
) -> LearnerResult:
    """Train to the configured end; the actor is started when the learner listens, and replaced when it dies."""
    publish(Progress(STAGE))
    with progress_artifact(STAGE), alarms_artifact() as show_alarms:
        return run_learner(
            config,
            run,
            offline_buffer=offline_buffer,
            encoders=encoders,
            metrics=metrics,
            on_listening=actor.start,
            supervise=actor.check,
            on_alarms=show_alarms,
        )
