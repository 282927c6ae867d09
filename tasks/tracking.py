"""The MLflow run of a training: opened with the flow, closed with its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import runtime
from prefect.exceptions import TerminationSignal

from hilserl.config import TrainConfig
from hilserl.runs import RunFolder
from hilserl.tracking import Tracker, start_tracking
from hilserl.tracking.store import RunStatus
from tasks.run_watch import RunStopped


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
        folder=run.tracking,
    )
    status: RunStatus = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, TerminationSignal, RunStopped):
        status = "KILLED"
        raise
    finally:
        # What MLflow does not take in this time waits on disk; a cancelled run has little left of it.
        tracker.finish(status, timeout_s=30.0 if status == "FINISHED" else 8.0)
