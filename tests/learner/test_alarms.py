"""Alarms: raised by real trouble in real networks or by hand-made numbers, silent otherwise, said once."""

import logging

import pytest
import torch
from pipeline_testing import make_tiny_config

from hilserl.learner.alarms import Alarms, rules
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.history import MetricHistory
from hilserl.learner.reporting import Reporter, read_scalars
from hilserl.link.limits import MAX_ALARM_TEXT, MAX_ALARMS
from hilserl.sac.agent import SacAgent
from hilserl.sac.batch import TensorBatch
from hilserl.sac.networks import InputSpec, StateScaling

# One report of a healthy run of `reach_state`, see docs.
HEALTHY = {"loss/critic": 0.01, "loss/actor": -0.3, "grad_norm/critic": 0.5, "grad_norm/actor": 0.1, "temperature": 0.02}
HEALTHY |= {"entropy": -1.2, "action/mean_abs": 0.45, "q/mean": 0.4, "q/bound": 1.0, "utd/owed": 3.0, "utd/done": 0.0}


def alarms() -> Alarms:
    return Alarms(make_tiny_config(), target_entropy=-1.5)


def names_after(reports: int, **values: float) -> set[str]:
    judge = alarms()
    for number in range(reports):
        judge.check(HEALTHY | {key.replace("__", "/"): value for key, value in values.items()}, number)
    return {alarm.name for alarm in judge.raised}


def test_a_healthy_run_is_silent() -> None:
    assert names_after(200) == set()


@pytest.mark.parametrize(
    ("values", "name", "row"),
    [
        ({"q__mean": 1.01}, "q_above_bound", "L12"),
        ({"temperature": 5e-5}, "temperature_low", "L11"),
        ({"temperature": 1.2}, "temperature_high", "L11"),
        ({"entropy": -9.0}, "entropy_collapsed", "L11"),
        ({"action__mean_abs": 0.02}, "action_small", "L11"),
        ({"action__mean_abs": 0.99}, "action_saturated", "L11"),
        ({"grad_norm__critic": 0.0}, "critic_gradient_dead", "L11"),
        ({"grad_norm__actor": 0.0}, "actor_gradient_dead", "L11"),
        ({"eval__best": 0.55, "eval__last": 0.28}, "past_best", "L16"),
        ({"eval__regression": 0.06}, "regressed", "L16"),
        ({"drift__images": 2.3}, "lighting_changed", "L16"),
        ({"intervention__trend": 0.2}, "interventions_rising", "L16"),
        ({"checkpoint__failing": 1.0}, "checkpoint_failing", "L15"),
        ({"link__disk_full": 1.0}, "link_disk_full", "L15"),
    ],
)
@pytest.mark.failure("L11")
@pytest.mark.failure("L12")
def test_each_alarm_is_raised_alone_and_names_a_remedy(values, name, row) -> None:
    assert names_after(200, **values) == {name}
    judge = alarms()
    for number in range(200):
        judge.check(HEALTHY | {key.replace("__", "/"): value for key, value in values.items()}, number)
    (alarm,) = judge.raised
    assert "`" in alarm.message or "Free space" in alarm.message
    assert alarm.cleared_step is None


def test_every_alarm_fits_into_the_status_with_its_remedy_behind_the_first_sentence() -> None:
    sentences = [rule.message.format(value=0.123456) for rule in rules(make_tiny_config(), -1.5)]
    assert len(sentences) <= MAX_ALARMS
    for sentence in sentences:
        wrong, _, remedy = sentence.partition(". ")
        assert len(sentence) <= MAX_ALARM_TEXT and len(wrong) > 20 and len(remedy) > 20, sentence


def test_an_alarm_stands_until_it_is_cleared() -> None:
    judge = alarms()
    judge.check(HEALTHY | {"q/mean": 1.5, "checkpoint/failing": 1.0}, 1)
    assert [alarm.name for alarm in judge.standing] == ["q_above_bound", "checkpoint_failing"]
    judge.check(HEALTHY | {"checkpoint/failing": 1.0}, 2)
    assert [alarm.name for alarm in judge.standing] == ["checkpoint_failing"]


def test_noise_neither_raises_nor_clears() -> None:
    judge = alarms()
    for number in range(300):
        judge.check(HEALTHY | {"temperature": 2.0 if number % 3 else 0.1}, number)
    assert not judge.raised
    for number in range(300, 310):
        judge.check(HEALTHY | {"temperature": 2.0}, number)
    for number in range(310, 600):
        states, _ = judge.check(HEALTHY | {"temperature": 0.1 if number % 3 else 2.0}, number)
    assert [alarm.cleared_step for alarm in judge.raised] == [None] and states["alarm/temperature_high"] == 1.0


def test_a_loss_that_grows_a_hundredfold_is_said() -> None:
    judge = alarms()
    for number in range(40):
        judge.check(HEALTHY | {"loss/critic": 0.01 * 1.02**number}, number)
    assert not judge.raised
    for number in range(40, 50):
        judge.check(HEALTHY | {"loss/critic": 0.01 * 10.0 ** (number - 39)}, number)
    assert [alarm.name for alarm in judge.raised] == ["critic_loss_exploding"]


@pytest.mark.failure("L08")
def test_a_learner_that_cannot_keep_up_says_so_and_one_that_catches_up_does_not() -> None:
    def backlog(came: float, done: float, *, at_first: float = 0.0) -> set[str]:
        judge = alarms()
        for number in range(60):
            owed = max(0.0, at_first + number * (came - done))
            judge.check(HEALTHY | {"utd/owed": owed, "utd/done": number * done}, number)
        return {alarm.name for alarm in judge.raised}

    assert backlog(200, 17) == {"updates_behind"}  # the learner: 17 of 200 a second
    assert backlog(200, 200) == backlog(200, 400, at_first=50_000) == set()
    judge = alarms()
    for number in range(60):
        judge.check(HEALTHY | {"utd/owed": number * 183.0, "utd/done": number * 17.0}, number)
    assert "does 8% of the updates" in judge.raised[0].message or "does 9% of the updates" in judge.raised[0].message


class Log:
    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def log_metrics(self, values, step) -> None:
        self.values.append(dict(values))


def test_an_alarm_is_logged_once_when_raised_and_once_when_cleared(tmp_path, caplog) -> None:
    told = []
    log = Log()
    reporter = Reporter(log, MetricHistory(tmp_path / "history.jsonl"), alarms(), lambda raised: told.append(raised))
    governor = UtdGovernor(2, 20, environment_steps=100)
    with caplog.at_level(logging.WARNING):
        for wrong in (True,) * 5 + (False,) * 5:
            governor.environment_steps += 1
            reporter.log(governor, HEALTHY | {"q/mean": 2.0 if wrong else 0.5})
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "1 above the largest possible return" in said[0] and "is over, at step 106" in said[1]
    assert [values["alarm/q_above_bound"] for values in log.values] == [1.0] * 5 + [0.0] * 5
    assert [[(alarm.step, alarm.cleared_step) for alarm in raised] for raised in told] == [[(101, None)], [(101, 106)]]
    again = MetricHistory(tmp_path / "history.jsonl")
    again.restore(107)
    assert again.entries == reporter.history.entries[:7]


def train(agent: SacAgent, updates: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    seen: dict[str, torch.Tensor] = {}
    for number in range(updates):
        state, following = torch.rand((32, 4), generator=generator), torch.rand((32, 4), generator=generator)
        action, reward = torch.rand((32, 3), generator=generator) * 2 - 1, torch.rand(32, generator=generator)
        batch = TensorBatch(state, following, {}, {}, action, reward, torch.zeros(32), torch.full((32,), 0.9))
        seen |= agent.update(batch, update_actor=number % 2 == 1)
    return read_scalars(seen)


def make_agent(**overrides) -> SacAgent:
    config = make_tiny_config().policy.model_copy(update=overrides)
    return SacAgent(config, InputSpec(4, {}, 3), StateScaling(torch.zeros(4), torch.ones(4)), {}, seed=0)


def raised_by(agent: SacAgent) -> set[str]:
    judge = alarms()
    for number in range(40):
        judge.check(train(agent, 2), number)
    return {alarm.name for alarm in judge.raised}


@pytest.mark.failure("L11")
def test_real_networks_raise_the_alarms_of_their_disease() -> None:
    assert not raised_by(make_agent()) & {"critic_gradient_dead", "actor_gradient_dead", "action_saturated", "temperature_high"}
    saturated = make_agent()
    with torch.no_grad():
        for name, parameter in saturated.actor.named_parameters():
            if "mean" in name and name.endswith("bias"):
                parameter.fill_(40.0)
    assert {"action_saturated", "actor_gradient_dead"} & raised_by(saturated)
    dead = make_agent()
    with torch.no_grad():
        for parameter in dead.critic_ensemble.parameters():
            parameter.zero_()  # every hidden unit is off, so nothing but the last bias has a gradient
    for parameter in dead.critic_ensemble.parameters():
        parameter.register_hook(lambda gradient: torch.zeros_like(gradient))
    assert "critic_gradient_dead" in raised_by(dead)
    hot = make_agent(temperature_init=3.0)
    assert "temperature_high" in raised_by(hot)
