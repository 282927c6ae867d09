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
from hilserl.errors import HilserlError
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
        from prefect.exceptions import PrefectHTTPStatusError

        paused = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
        deadline = time.monotonic() + 120
        with get_client(sync_client=True) as client:
            while time.monotonic() < deadline:
                for run in client.read_flow_runs(flow_run_filter=paused):
                    keys = run.state.state_details.run_input_keyset
                    try:
                        self.asked = client.read_flow_run_input(run.id, keys["description"]) if keys else ""
                    except PrefectHTTPStatusError:  # a run is paused a moment before its form is stored
                        continue
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

    for promote in ("rule", "ask"):  # once more: it is compared with nobody, promoted by nobody, and nobody is asked
        said = evaluate(CANDIDATE, promote=promote)
        assert said["promoted"] is None and said["why"] == "it is the champion already"

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


@pytest.mark.parametrize(("answer", "elsewhere"), [(False, False), (None, True)])
def test_a_paused_run_is_answered_on_the_operators_page_or_in_the_ui(own_home: Path, answer: bool | None, elsewhere: bool) -> None:
    from prefect import flow, runtime

    from flows.evaluate import Promotion, _ask, _promotion
    from hilserl.console.serving import asks
    from tasks.console_asks import also_on_the_page

    shown: list[dict[str, Any]] = []

    def person_at_the_page() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not shown:
            shown.extend(asks.waiting(asks.asks_folder()))
            time.sleep(0.05)
        if answer is not None:
            assert asks.answer(asks.asks_folder(), shown[0]["ask"], answer, "v1 at 127.0.0.1")

    @flow
    def asking() -> Promotion:
        with also_on_the_page(str(runtime.flow_run.id), "promotion", "Make version 2 the champion?", _promotion):
            return _ask(Promotion, "# Figures", 1.0)

    person: threading.Thread = threading.Thread(target=person_at_the_page, daemon=True)
    person.start()
    in_the_ui = Answer(promote=True, your_name="Ada", why="it is good")
    if elsewhere:
        in_the_ui.start()
    said = asking()
    person.join()
    assert shown[0]["text"] == "Make version 2 the champion?" and shown[0]["kind"] == "promotion"
    assert (said.promote, said.your_name) == ((True, "Ada") if elsewhere else (answer, "v1 at 127.0.0.1"))
    assert not list(asks.asks_folder().iterdir()), "nobody is asked any more"
    if elsewhere:
        in_the_ui.join()


def test_what_is_not_registered_is_evaluated_and_not_promoted(own_home: Path, tmp_path: Path) -> None:
    import yaml

    from flows.evaluate import evaluate

    config = make_tiny_config(task__control_time_s=0.5, evaluation__episodes=3, evaluation__video_episodes=0)
    register_folder = tmp_path / "run" / "policy" / "best"
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    policy.load_tensors(policy.tensors(), 1)
    policy.save(register_folder, {"weights_version": 1})
    (tmp_path / "run" / "resolved.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    with pytest.raises(HilserlError, match="hilserl policies register"):
        evaluate(str(tmp_path / "run"), promote="ask")
    said = evaluate(str(tmp_path / "run"))
    assert said["episodes"] == 3 and said["promoted"] is None
    assert not TrackingConfig.model_validate(config.tracking.model_dump()).enable
