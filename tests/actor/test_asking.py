"""An evaluation during training on a real arm begins when somebody says so."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.actor.asking import AskByKeys
from hilserl.actor.loop import Actor
from hilserl.data.preprocess import Preprocessor
from hilserl.environments.make import make_environment
from hilserl.link.messages import LearnerStatus
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.teleop.events import NO_EVENTS, TeleopEvent


def test_only_an_answer_to_the_question_counts(caplog) -> None:
    asking = AskByKeys(20, hears=True)
    asking.hear({TeleopEvent.YES})
    with caplog.at_level(logging.WARNING):
        assert asking.may_evaluate(500) is None and asking.may_evaluate(500) is None
    assert caplog.text.count("An evaluation is due at step 500: 20 episodes") == 1
    asking.hear({TeleopEvent.SUCCESS})
    assert asking.may_evaluate(500) is None
    asking.hear({TeleopEvent.YES})
    assert asking.may_evaluate(500) is True
    assert asking.may_evaluate(1000) is None, "each evaluation is asked for"
    asking.hear({TeleopEvent.NO, TeleopEvent.YES})
    assert asking.may_evaluate(1000) is False


class Inbox:
    """A learner's end that takes everything and has nothing to say."""

    is_connected = True
    status = LearnerStatus(phase="training")

    def __init__(self) -> None:
        self.episodes = []

    def latest_weights(self):
        return None

    def send_step(self, step) -> None:
        pass

    def send_episode(self, report) -> None:
        self.episodes.append(report)


class Says:
    """A person who answers in one of the training episodes."""

    def __init__(self, answers: dict[int, TeleopEvent]) -> None:
        self.answers, self.episode = answers, -1

    def reset(self) -> None:
        self.episode += 1

    def intervene(self) -> np.ndarray | None:
        return None

    def events(self) -> frozenset[TeleopEvent]:
        return frozenset({self.answers[self.episode]}) if self.episode in self.answers else NO_EVENTS

    def observe_outcome(self, success: bool) -> None:
        pass


@pytest.mark.parametrize(
    ("asks", "answers", "evaluations"),
    [
        (True, {}, []),  # nobody answers: training goes on
        (True, {5: TeleopEvent.YES}, [30]),
        (True, {5: TeleopEvent.NO, 8: TeleopEvent.YES}, [45]),
        (None, {}, [20, 40]),  # a simulated arm is nobody's surprise
    ],
)
def test_the_actor_evaluates_when_it_may(asks, answers, evaluations) -> None:
    config = make_tiny_config(
        actor__ask_before_evaluation=asks, actor__evaluate_every_steps=20, actor__evaluate_episodes=2, task__control_time_s=0.5,
        learner__max_owed_updates=10_000, task__reach_tolerance_m=0.001,
    )  # fmt: skip
    policy, environment, inbox = (
        Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config)),
        make_environment(config),
        Inbox(),
    )
    policy.load_tensors(policy.tensors(), 1)
    person = Says(answers)
    Actor(config, environment, person, policy, inbox, lambda: "enough" if person.episode >= 10 else None).run()  # type: ignore[arg-type]
    environment.close()
    assert sorted({report.environment_steps for report in inbox.episodes if report.evaluation}) == evaluations


def test_a_real_arm_asks_by_default() -> None:
    assert not make_tiny_config().asks_before_evaluation
    real = make_tiny_config().robot.model_copy(update={"type": "so101_follower", "port": "/dev/null"})
    config = make_tiny_config().model_copy(update={"robot": real})
    assert config.robot.is_real and config.asks_before_evaluation
