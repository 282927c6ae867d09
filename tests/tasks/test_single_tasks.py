"""Single phases, called as functions: no Prefect server, no run."""

import json
from pathlib import Path

import pytest
from pipeline_testing import make_tiny_config

from hilserl.config.models import TrainConfig
from hilserl.errors import DatasetError, TransportError
from hilserl.progress import Progress, subscribed
from tasks.artifacts import has_page
from tasks.build_offline_buffer import build_offline_buffer_task
from tasks.drive_robot import drive_robot
from tasks.open_run import opened_run
from tasks.progress import progress_artifact
from tasks.run_watch import RunWatch
from tasks.validate_dataset import validate_dataset_task

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks for the server of the folder's settings fails at once."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")


def test_validation_needs_no_server(tiny_config: TrainConfig, tiny_demonstrations: Path, own_home: Path) -> None:
    rows = validate_dataset_task.fn(tiny_config, tiny_demonstrations, key="k")
    assert {row["severity"] for row in rows} <= {"informs", "warns"}


def test_validation_stops_with_the_findings(tmp_path: Path, own_home: Path) -> None:
    config = make_tiny_config(dataset__record=None, dataset__root=str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        validate_dataset_task.fn(config, tmp_path / "nowhere", key="k")


def test_build_returns_a_manifest_that_json_can_hold(tiny_config: TrainConfig, tiny_demonstrations: Path, own_home: Path) -> None:
    manifest = build_offline_buffer_task.fn(tiny_config, tiny_demonstrations, key="k")
    assert json.loads(json.dumps(manifest, default=str))["episodes"] == tiny_config.dataset.record.episodes
    assert Path(manifest["folder"]).is_relative_to(own_home)


def test_progress_and_watch_are_silent_without_a_run() -> None:
    seen: list[Progress] = []
    with subscribed(seen.append), progress_artifact("train-learner"), RunWatch(poll_s=0.01) as watch:
        assert not has_page()
    assert watch.reason is None and seen == []


@pytest.mark.failure("R20")
def test_what_moves_the_arm_is_never_retried() -> None:
    from flows.actor import actor

    assert drive_robot.retries == 0
    assert actor.retries == 0


@pytest.mark.failure("R18")
def test_a_link_that_would_be_open_to_the_network_stops_before_anything_is_made(own_home: Path) -> None:
    with (
        pytest.raises(TransportError, match=r"`link\.host` is '0\.0\.0\.0': without TLS"),
        opened_run(make_tiny_config(link__host="0.0.0.0"), fresh=False),
    ):
        pass
    assert not (own_home / "runs").exists()
