"""The flows on a real Prefect server: states, cache hits, failures."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pipeline_testing import TINY, make_tiny_config

from hilserl.config.loader import expand_dotted, load_config
from hilserl.config.models import TrainConfig
from hilserl.link.auth import create_token
from hilserl.runs import token_file

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

PHASES = ("record-demonstrations", "validate-dataset", "build-offline-buffer")


def task_states(flow_run_id: UUID) -> dict[str, str]:
    """Return the state of each task run of a flow run; the server takes them in with a delay."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
            if (runs and all(run.state and run.state.is_final() for run in runs)) or time.monotonic() > deadline:
                return {run.name.rpartition("-")[0]: run.state.name for run in runs if run.state}
            time.sleep(0.2)


def prepare(config: TrainConfig) -> tuple[dict[str, str], Path]:
    """Run the phases before the learner in a flow of their own; return their states and the buffer's folder."""
    from prefect import flow, runtime

    from tasks.build_offline_buffer import build_offline_buffer
    from tasks.record_demonstrations import record_demonstrations
    from tasks.validate_dataset import validate_dataset

    @flow(name="prepare", persist_result=False)
    def prepare_flow() -> tuple[UUID, Path]:
        dataset = record_demonstrations(config)
        validate_dataset(config, dataset)
        return UUID(runtime.flow_run.id), build_offline_buffer(config, dataset)

    flow_run_id, buffer = prepare_flow()
    return task_states(flow_run_id), buffer


def damage(folder: Path) -> None:
    """Cut the largest array of a folder in half."""
    largest = max(folder.rglob("*.npy"), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)


@pytest.mark.failure("D11")
@pytest.mark.failure("D12")
def test_the_second_run_is_cached_until_the_disk_or_the_inputs_change(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_tiny_config()
    states, buffer = prepare(config)
    assert states == dict.fromkeys(PHASES, "Completed")
    assert prepare(config) == (dict.fromkeys(PHASES, "Cached"), buffer)

    moved = own_home.rename(own_home.with_name("moved"))
    monkeypatch.setenv("HILSERL_HOME", str(moved))
    states, buffer = prepare(config)
    assert states == dict.fromkeys(PHASES, "Cached") and buffer.is_relative_to(moved) and buffer.exists()

    damage(buffer.parent / "shards")
    states, again = prepare(config)
    assert states == {**dict.fromkeys(PHASES, "Cached"), "build-offline-buffer": "Completed"} and again == buffer
    assert prepare(config)[0]["build-offline-buffer"] == "Cached", "the rebuilt buffer is whole"

    states, other = prepare(make_tiny_config(policy__discount=0.9, dataset__reward_from="success_at_end"))
    assert states["record-demonstrations"] == "Cached" and states["build-offline-buffer"] == "Completed" and other != buffer


def test_a_failed_phase_fails_the_flow_with_our_message(own_home: Path, tmp_path: Path) -> None:
    from flows.train import hilserl
    from hilserl.config.overrides import TrainOverrides

    overrides = expand_dotted({key: value for key, value in TINY.items() if not key.startswith("dataset.")})
    overrides["dataset"] = {"root": str(tmp_path / "nowhere"), "record": None}
    state = hilserl("reach_state", TrainOverrides.model_validate(overrides), return_state=True)
    assert state.is_failed()
    assert "nowhere: no such folder" in str(state.message)


@pytest.mark.failure("R19")
def test_a_second_actor_on_the_same_robot_ends_with_code_1_and_says_who_holds_it(
    own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from flows.actor import main
    from hilserl.actor.lease import robot_lease

    config = make_tiny_config()
    create_token(token_file("tiny-1"))
    parameters: dict[str, Any] = {"config": config.model_dump(mode="json"), "address": "127.0.0.1:9", "run_id": "tiny-1"}
    (tmp_path / "parameters.json").write_text(json.dumps(parameters))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("tasks.drive_robot._HANDOVER_S", 0.1)
    with robot_lease(config.robot.id):
        assert main(tmp_path / "parameters.json") == 1
    message = capsys.readouterr().err
    assert f"robot `{config.robot.id}` is already driven by process" in message and "Traceback" not in message


@pytest.mark.slow
def test_the_whole_flow_trains_evaluates_and_reports(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL

    from flows.train import hilserl
    from hilserl.config.overrides import TrainOverrides

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    values = {**TINY, "evaluation.episodes": 3, "evaluation.video_episodes": 0}
    summary = hilserl("reach_state", TrainOverrides.model_validate(expand_dotted(values)))
    assert summary["environment_steps"] >= 150 and summary["episodes"] == 3
    folder = Path(summary["folder"])
    assert folder.is_relative_to(own_home)
    assert json.loads((folder / "summary.json").read_text())["success_rate"] == summary["success_rate"]
    assert Path(summary["learning_curve"]).is_file() and (Path(summary["policy"]) / "policy.json").is_file()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert "the learner finished" in (folder / "actor.log").read_text() or (folder / "actor.log").read_text() == ""


def test_phases_without_a_meaning_for_a_gymnasium_environment_are_skipped_visibly(own_home: Path) -> None:
    config = load_config("pendulum")
    states, buffer = prepare(config)
    assert states == dict.fromkeys(PHASES, "Skipped") and buffer is None
