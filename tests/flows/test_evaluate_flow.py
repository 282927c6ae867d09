"""The flow `evaluate` on a real Prefect server and a real MLflow: the rule promotes, a person may, nobody else."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_testing import make_tiny_config

from hilserl.champions import champion_of, register_candidate
from hilserl.config.models import TrackingConfig, TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.policy import Policy, PolicyArchitecture

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

CANDIDATE = "models:/hilserl-reach@candidate"


def register(config: TrainConfig, folder: Path, seed: int) -> str:
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(each.shape, generator=generator) * 0.3 + (name.endswith("half_range")) for name, each in policy.tensors().items()
    }
    policy.load_tensors(tensors, seed)
    policy.save(folder, {"weights_version": seed})
    return register_candidate(config, folder, run_id=None, facts={"seed of its weights": seed}).uri


class Answer(threading.Thread):
    """A person in the UI: reads the form of the first run that is paused, and answers it."""

    def __init__(self, **values: Any) -> None:
        super().__init__(daemon=True)
        self.values, self.asked = values, ""

    def run(self) -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter

        paused = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
        deadline = time.monotonic() + 120
        with get_client(sync_client=True) as client:
            while time.monotonic() < deadline:
                for run in client.read_flow_runs(flow_run_filter=paused):
                    keys = run.state.state_details.run_input_keyset
                    self.asked = client.read_flow_run_input(run.id, keys["description"]) if keys else ""
                    client.resume_flow_run(run.id, run_input=self.values)
                    return
                time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.failure("L16")
def test_who_becomes_the_champion(own_home: Path, tmp_path: Path) -> None:
    from flows.evaluate import evaluate

    # So wide a target that everybody succeeds: nobody is better than the first.
    config = make_tiny_config(
        task__reach_tolerance_m=0.1, task__control_time_s=1, task__cube_x_m=(0.21, 0.23), task__cube_y_m=(-0.01, 0.01),
        evaluation__episodes=8, evaluation__video_episodes=0, tracking__enable=True,
    )  # fmt: skip
    first = register(config, tmp_path / "first", 1)
    said = evaluate(CANDIDATE)
    assert said["success_rate"] == 1.0 and said["promoted"] == first and "it is the first" in said["why"]
    assert champion_of(config).tags["promotion"].startswith("by the rule: it is the first")
    assert Path(said["page"]).is_file()

    second = register(config, tmp_path / "second", 2)
    said = evaluate(CANDIDATE)
    assert said["promoted"] is None and "on 8 same starts, 0 succeeded only by the candidate" in said["why"]
    assert champion_of(config).uri == first

    person = Answer(promote=False)
    person.start()
    said = evaluate(CANDIDATE, promote="ask")
    person.join()
    assert "8 same starts" in person.asked and "| against the first |" in person.asked, "the person sees the figures"
    assert said["promoted"] is None and champion_of(config).uri == first

    person = Answer(promote=True, your_name="Ada", why="it moves more evenly")
    person.start()
    said = evaluate(CANDIDATE, promote="ask")
    person.join()
    assert said["promoted"] == second == champion_of(config).uri
    promotion = champion_of(config).tags["promotion"]
    assert promotion == "by Ada in place of version 1: it moves more evenly"
    assert champion_of(config).tags["evaluation"].startswith("success 100.0%")


def test_what_is_not_registered_is_evaluated_and_not_promoted(own_home: Path, tmp_path: Path) -> None:
    import yaml

    from flows.evaluate import evaluate

    config = make_tiny_config(task__control_time_s=0.5, evaluation__episodes=3, evaluation__video_episodes=0)
    register_folder = tmp_path / "run" / "policy" / "best"
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    policy.load_tensors(policy.tensors(), 1)
    policy.save(register_folder, {"weights_version": 1})
    (tmp_path / "run" / "resolved.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    said = evaluate(str(tmp_path / "run"))
    assert said["episodes"] == 3 and said["promoted"] is None
    assert not TrackingConfig.model_validate(config.tracking.model_dump()).enable
