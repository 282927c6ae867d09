"""Phase: find everything that is wrong with the dataset before anything is built from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from hilserl.config import TrainConfig
from hilserl.data import validation
from hilserl.data.offline_buffer import offline_buffer_inputs
from hilserl.files import content_hash
from hilserl.joints import RobotJointConverter
from tasks.artifacts import publish_table
from tasks.caching import BY_KEY, run_verified

STAGE = "validate-dataset"


@task(name=STAGE, persist_result=True, result_serializer="json", cache_policy=BY_KEY)
def validate_dataset_task(config: TrainConfig, dataset: Path, *, key: str) -> list[dict[str, Any]]:
    """Validate, publish the findings as a table, and stop the run if one of them stops it.

    Raises:
        DatasetError: Lists every finding that stops.
    """
    report = validation.validate_dataset(config, dataset)
    rows = [dict(row) for row in report.rows()]
    publish_table("validation", rows or [{"finding": "none: every check passed"}], f"Dataset {dataset}")
    report.raise_if_stopped()
    return rows


def validate_dataset(config: TrainConfig, dataset: Path) -> list[dict[str, Any]]:
    """Validate the dataset as this run would use it; an unchanged one was validated before."""
    if not (dataset / "meta" / "info.json").is_file():
        validation.validate_dataset(config, dataset).raise_if_stopped()
    inputs = offline_buffer_inputs(config, dataset, RobotJointConverter(config))
    key = content_hash([inputs, validation.validation_inputs(config)])
    findings: list[dict[str, Any]] = run_verified(validate_dataset_task, key, [], config, dataset)
    return findings
