"""The validation's report is on every run's page, in Prefect and in MLflow: new, cached, and when it stops the run."""

import time
from pathlib import Path
from uuid import UUID

import pytest
from pipeline_testing import make_tiny_config

from hilserl.config.models import TrainConfig
from hilserl.errors import DatasetError
from hilserl.tracking import Tracker

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


class Kept(Tracker):
    def __init__(self) -> None:
        self.files: list[tuple[str, str | None]] = []

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        self.files.append((path.name, folder))
        assert path.read_text().startswith("<!doctype html>")


def run(config: TrainConfig, dataset: Path) -> tuple[UUID, str, Kept]:
    """Validate in a flow of its own; return its id, the error's text, and what MLflow got."""
    from prefect import flow, runtime

    from tasks.validate_dataset import validate_dataset

    tracker, error = Kept(), ""

    @flow(name="validate", persist_result=False)
    def validate_flow() -> UUID:
        nonlocal error
        try:
            validate_dataset(config, dataset, tracker)
        except DatasetError as stopped:
            error = str(stopped)
        return UUID(runtime.flow_run.id)

    return validate_flow(), error, tracker


def artifacts_of(flow_run_id: UUID) -> dict[str, str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id])))
            if len(found) >= 2 or time.monotonic() > deadline:
                return {str(artifact.key): str(artifact.data) for artifact in found}
            time.sleep(0.2)


def test_findings_and_page_are_published_new_and_cached(tiny_config: TrainConfig, tiny_demonstrations: Path, own_home: Path) -> None:
    for _ in range(2):
        flow_run_id, error, tracker = run(tiny_config, tiny_demonstrations)
        assert error == "" and tracker.files == [(f"{tiny_demonstrations.name}.html", "validation")]
        published = artifacts_of(flow_run_id)
        assert set(published) == {"validation", "validation-report"}
        assert "# This can train" in published["validation-report"] and "D02" in published["validation"]
    (page,) = own_home.glob("validation/*/*.html")
    page.unlink()
    assert run(tiny_config, tiny_demonstrations)[2].files, "a page that was removed is made again"


def test_findings_and_page_are_published_when_they_stop_the_run(tiny_demonstrations: Path, own_home: Path) -> None:
    config = make_tiny_config(dataset__reward_from="none", dataset__action_from="joints")
    flow_run_id, error, tracker = run(config, tiny_demonstrations)
    assert "must be settled before training" in error
    assert len(tracker.files) == 1
    assert "training" in artifacts_of(flow_run_id)["validation-report"].splitlines()[0]
