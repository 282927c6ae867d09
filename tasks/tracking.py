"""The MLflow run of a training: opened with the flow, closed with its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import runtime

from hilserl.config import TrainConfig
from hilserl.runs import RunFolder
from hilserl.tracking import Tracker, start_tracking
from hilserl.tracking.store import RunStatus


@contextmanager
def tracking(config: TrainConfig, run: RunFolder) -> Iterator[Tracker]:
    """Track the run in MLflow while the block runs; a continued run continues its MLflow run."""
    tracker = start_tracking(
        config.tracking,
        run_name=run.run_id,
        tags={
            "prefect.flow_run_id": str(runtime.flow_run.id or ""),
            "prefect.flow_run_name": str(runtime.flow_run.name or ""),
            "hilserl.run_folder": str(run.path),
        },
        params=config.model_dump(mode="json"),
        resume_run_id=run.facts().get("mlflow_run_id"),
        on_ready=lambda run_id: run.update(mlflow_run_id=run_id),
    )
    status: RunStatus = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)
