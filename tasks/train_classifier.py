"""Phases of `reward-classifier`: train (or find by content), compare with the champion, register, promote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE

from hilserl.classifier_training import (
    FIGURES,
    MARKDOWN,
    PAGE,
    STAGE,
    ClassifierRequest,
    classifier_folder,
    classifier_inputs,
    get_or_train,
    verify_classifier,
)
from hilserl.classifier_training import register_classifier as register_trained
from hilserl.config import TrainConfig
from hilserl.files import content_hash, home
from hilserl.tracking import start_tracking
from tasks.artifacts import publish_markdown, publish_table
from tasks.caching import BY_KEY, run_verified
from tasks.progress import progress_artifact


@task(name=STAGE, persist_result=True, result_serializer="json", cache_policy=BY_KEY)
def train_classifier_task(config: TrainConfig, datasets: list[str], disagreements: list[str], *, key: str) -> str:
    """Train; returns the folder of classifier, page and figures."""
    with progress_artifact(STAGE):
        return str(get_or_train(_request(config, datasets, disagreements)))


def train_classifier(config: TrainConfig, datasets: list[str], disagreements: list[str]) -> Path:
    """Return the folder of the trained classifier; what was trained from the same content before is found again.

    The report is on the run's page in every case.
    """
    request = _request(config, datasets, disagreements)
    folder = classifier_folder(request)
    run_verified(
        train_classifier_task, content_hash(classifier_inputs(request)), verify_classifier(folder), config, datasets, disagreements
    )
    publish_markdown("classifier-report", (folder / MARKDOWN).read_text(), "How well the success classifier tells")
    return folder  # not the cached one, which may say where HILSERL_HOME was before it was moved


@task(name="register-classifier", cache_policy=NO_CACHE, persist_result=False)
def register_classifier(config: TrainConfig, datasets: list[str], disagreements: list[str], folder: Path, promote: bool) -> dict[str, Any]:
    """Log figures and page to MLflow, register the classifier as `candidate`, and promote it if asked and if it may.

    Raises:
        CheckpointError: It may not replace the champion.
    """
    request = _request(config, datasets, disagreements)
    figures = json.loads((folder / FIGURES).read_text())
    tracker = start_tracking(
        config.tracking,
        run_name=f"classifier-{config.task.type}",
        tags={"prefect.flow_run_id": str(runtime.flow_run.id or ""), "hilserl.kind": "reward-classifier"},
        params={"classifier": config.classifier.model_dump(mode="json")},
        folder=home() / "classifiers" / "tracking" / str(runtime.flow_run.id or "alone"),
    )
    try:
        run_id = tracker.wait_ready()
        tracker.log_metrics({name: value for name, value in figures.items() if isinstance(value, int | float)}, 0)
        tracker.log_artifact(folder / PAGE)
        version = register_trained(request, folder, run_id=run_id, promote=promote)
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")
    rows = [{"name": version.name, "version": version.version, "address": version.uri, "promoted": promote}]
    publish_table("classifier", rows, "The registered classifier; the actor loads it by its address")
    return {"uri": version.uri, "version": version.version, "folder": str(folder), **figures}


def _request(config: TrainConfig, datasets: list[str], disagreements: list[str]) -> ClassifierRequest:
    return ClassifierRequest.of(config, [Path(each) for each in datasets], [Path(each) for each in disagreements])
