"""The trial at a run's start: batches of the training's shapes, and a choice that the run keeps to."""

from pathlib import Path

import pytest
import torch

from hilserl.config.loader import load_config
from hilserl.errors import TrainingError
from hilserl.learner.trial import choose_for_run, require_device, trial_batch
from hilserl.policy import PolicyArchitecture
from hilserl.runs import RunFolder
from hilserl.sac import execution
from hilserl.sac.agent import SacAgent
from hilserl.sac.networks import StateScaling

SMALL = {"policy.batch_size": 4, "policy.hidden_dims": [8], "policy.latent_dim": 4, "tracking.enable": False}


def build(settings: dict) -> tuple:
    config = load_config("lift", SMALL | settings)
    architecture = PolicyArchitecture.from_config(config)
    encoders = {} if config.encoder.freeze else architecture.encoders()
    scaling = StateScaling(torch.zeros(architecture.state_dim), torch.ones(architecture.state_dim))
    return config, architecture, SacAgent(config.policy, architecture.input_spec(), scaling, encoders, seed=0)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="features of a frozen encoder"),
        pytest.param({"encoder.type": "lerobot_cnn", "encoder.freeze": False}, id="images"),
        pytest.param({"observation.images": {}, "policy.gripper": "discrete"}, id="state alone, discrete gripper"),
    ],
)
def test_an_agent_can_be_updated_with_the_trial_batch(settings: dict) -> None:
    config, architecture, agent = build(settings)
    metrics = agent.update(trial_batch(config, architecture), update_actor=True)
    assert metrics["loss/critic"] > 0 and all(bool(torch.isfinite(value)) for value in metrics.values())


def test_a_continued_run_keeps_its_choice_whatever_would_be_measured_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILSERL_HOME", str(tmp_path))
    config, architecture, agent = build({"observation.images": {}})
    run, _ = RunFolder.open(config)
    first = choose_for_run(config, run, agent, architecture, updates=10)
    assert first.execution == "eager" and run.facts()["execution"]["reason"] == first.reason
    run.update(execution=run.facts()["execution"] | {"execution": "compiled"})
    monkeypatch.setattr(execution, "_measure", lambda *_: pytest.fail("measured again"))
    assert choose_for_run(config, run, agent, architecture, updates=10**9).execution == agent.execution == "compiled"
    other = config.model_copy(update={"learner": config.learner.model_copy(update={"execution": "eager"})})
    assert choose_for_run(other, run, agent, architecture, updates=10).execution == agent.execution == "eager"


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="needs a machine with fewer than eight GPUs")
def test_a_gpu_that_is_not_there_stops_before_anything_is_done() -> None:
    with pytest.raises(TrainingError, match=r"learner\.device: cuda:7.*Set it to `cpu`"):
        require_device(load_config("lift", {"learner.device": "cuda:7"}))
    require_device(load_config("lift"))
