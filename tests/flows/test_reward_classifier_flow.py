"""The flow `reward-classifier`: trains, publishes, registers; a second run finds the same by content."""

import sys
import time
from pathlib import Path
from uuid import UUID

import pytest
import yaml

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def lamp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "reward"))
        from reward_helpers import lamps, record
    sys.modules.pop("reward_helpers", None)
    return record(tmp_path_factory.mktemp("datasets") / "lamp", lamps(12))


def artifacts_of(flow_run_id: UUID) -> dict[str, str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id])))
            if {"classifier-report", "classifier"} <= {artifact.key for artifact in found} or time.monotonic() > deadline:
                return {str(artifact.key): str(artifact.data) for artifact in found}
            time.sleep(0.2)


def test_the_flow_trains_registers_and_finds_the_same_again(lamp: Path, own_home: Path, tmp_path: Path) -> None:
    from flows.reward_classifier import reward_classifier
    from hilserl.tracking.registry import find

    file = tmp_path / "lamp.yaml"
    values = {
        "robot": {"cameras": {"wrist": {"height": 64, "width": 96}}},
        "observation": {"images": {"wrist": {"crop": [0, 16, 64, 64], "resize": [48, 48]}}},
        "task": {"type": "lift"},
        "classifier": {"max_epochs": 10, "datasets": [str(lamp)]},
        "dataset": {"root": str(lamp)},
    }
    file.write_text(yaml.safe_dump(values))
    states = [reward_classifier(str(file), promote=True, return_state=True) for _ in range(2)]
    first, second = (state.result() for state in states)
    assert first["uri"] == second["uri"] == "models:/hilserl-lift-classifier/1"
    assert set(find(first["uri"]).aliases) == {"candidate", "champion"}
    for state in states:
        published = artifacts_of(state.state_details.flow_run_id)
        assert "# Success classifier" in published["classifier-report"] and "models:/hilserl-lift-classifier/1" in published["classifier"]
    assert len(list(own_home.glob("classifiers/*/classifier"))) == 1
