"""Training in one process: lockstep, exact, repeatable."""

from pathlib import Path

import pytest
import torch
from pipeline_testing import make_tiny_config
from safetensors.torch import load_file

from hilserl.environments.make import make_environment
from hilserl.evaluation import IN_TRAINING_SEED, play_episode
from hilserl.policy import Policy
from hilserl.runs import RunFolder
from hilserl.training import LockstepLink, train_in_process


@pytest.fixture
def config(own_home, tiny_demonstrations):
    config = make_tiny_config(
        learner__execution="eager",
        learner__policy_parameters_push_frequency=60,  # by the clock nothing is published
        policy__online_steps=80,
        actor__evaluate_every_steps=30,
        actor__intervention__type="simulated",
    )
    return config.model_copy(update={"dataset": config.dataset.model_copy(update={"record": None, "root": tiny_demonstrations})})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "policy.safetensors")


def test_equal_seeds_give_equal_weights_bit_for_bit(config) -> None:
    def train(seed: int) -> dict[str, torch.Tensor]:
        result = train_in_process(config.model_copy(update={"seed": seed}))
        assert result.acted.intervention_steps > 0, "the test should have the simulated human in it"
        return weights(result.run / "policy" / "last")

    first, second, other = train(0), train(0), train(1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_every_step_is_learned_from_before_the_next_and_the_policy_has_the_result(config, monkeypatch) -> None:
    links: list[LockstepLink] = []
    joined = LockstepLink.join

    def keep(self, *arguments):
        links.append(self)
        joined(self, *arguments)

    monkeypatch.setattr(LockstepLink, "join", keep)
    seen: list[tuple[int, int, int]] = []

    def after_step(steps: int, policy: Policy) -> None:
        learner = links[0]._learner
        seen.append((steps, learner.parts.governor.updates, policy.version))
        mine, theirs = policy.tensors(), learner.parts.agent.policy_tensors()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)

    result = train_in_process(config, after_step=after_step)
    ratio, before = config.policy.utd_ratio, config.policy.online_step_before_learning
    updates = [ratio * max(0, steps - before) for steps in range(config.policy.online_steps + 1)]
    assert seen == [(steps, owed, owed + 1) for steps, owed in enumerate(updates)]
    assert (result.learned.environment_steps, result.learned.updates) == (config.policy.online_steps, updates[-1])
    assert "environment steps are done" in result.learned.reason


def test_the_best_policy_is_the_one_that_was_evaluated(config) -> None:
    result = train_in_process(config)
    best = result.learned.best
    assert best is not None and result.learned.policy.name == "best"
    policy, environment = Policy.load(result.learned.policy), make_environment(config)
    played = [play_episode(environment, policy, IN_TRAINING_SEED + index) for index in range(config.actor.evaluate_episodes)]
    environment.close()
    assert sum(episode.success for episode in played) == best.successes
    assert policy.version == best.weights_version


def test_no_command_continues_a_run_that_has_no_journal(config) -> None:
    def fail(steps: int, policy: Policy) -> None:
        if steps == 25:
            raise RuntimeError("the notebook was interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        train_in_process(config, after_step=fail)
    _, continued = RunFolder.open(config)
    assert not continued


def test_a_reason_to_stop_ends_the_training_in_good_order(config) -> None:
    steps: list[int] = []
    result = train_in_process(
        config, after_step=lambda done, policy: steps.append(done), should_stop=lambda: "enough" if len(steps) > 40 else None
    )
    assert (result.learned.reason, result.learned.environment_steps, steps[-1]) == ("enough", 40, 40)
    assert (result.run / "policy" / "last" / "policy.json").is_file()
