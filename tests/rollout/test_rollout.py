"""A finished policy at work: the arm's lease, its clock, a person who may take over, an operator who commands."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_testing import make_tiny_config

from hilserl.actor.lease import robot_lease
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CheckpointError, RobotError
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.rollout import run as rollout
from hilserl.rollout.run import evaluate_on_arm, run_policy
from hilserl.teleop.events import NO_EVENTS, TeleopEvent
from hilserl.teleop.operator import NoOperator, Wish

SHORT = {"task__control_time_s": 1, "actor__pace": "unthrottled", "evaluation__episodes": 3, "evaluation__video_episodes": 0}


@pytest.fixture(scope="module")
def config():
    return make_tiny_config(**SHORT, task__reach_tolerance_m=0.001)


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory) -> Path:
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    generator = torch.Generator().manual_seed(3)
    policy.load_tensors(
        {name: torch.randn(t.shape, generator=generator) * 0.1 + (name.endswith("half_range")) for name, t in policy.tensors().items()}, 5
    )
    made = tmp_path_factory.mktemp("policy") / "policy"
    policy.save(made, {"weights_version": 5})
    return made


class Person:
    """Takes over in one step of each episode, and says something in another."""

    def __init__(self, says: TeleopEvent | None = None) -> None:
        self.says, self.step, self.closed = says, -1, False

    def reset(self) -> None:
        self.step = -1

    def intervene(self) -> np.ndarray | None:
        self.step += 1
        return np.zeros(3, np.float32) if self.step == 1 else None

    def events(self) -> frozenset[TeleopEvent]:
        return frozenset({self.says}) if self.says and self.step == 3 else NO_EVENTS

    def observe_outcome(self, success: bool) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_it_works_until_it_is_stopped_and_holds_the_arm_meanwhile(own_home, config, folder) -> None:
    stop, played = threading.Event(), []

    def show(episode) -> None:
        played.append(episode)
        with pytest.raises(RobotError, match="already driven"), robot_lease(config.robot.id):
            pass
        if len(played) == 3:
            stop.set()

    worked = run_policy(config, folder, should_stop=stop.is_set, show=show)
    assert list(worked.episodes) == played and len({episode.seed for episode in played}) == 3 and worked.help_steps == 0
    with robot_lease(config.robot.id):  # it let go
        pass


def test_a_person_may_take_over_and_says_how_it_went(own_home, config, folder, monkeypatch) -> None:
    person = Person(TeleopEvent.SUCCESS)
    monkeypatch.setattr(rollout, "_helper", lambda config, environment: person)
    worked = run_policy(config, folder, episodes=2)
    assert worked.help_steps == 2 and person.closed
    assert [(episode.success, episode.judged_by, episode.steps) for episode in worked.episodes] == [(True, "human", 4)] * 2


@pytest.mark.failure("L21")
def test_an_evaluation_has_no_help_but_a_persons_verdict(own_home, config, folder, monkeypatch) -> None:
    class Judge(Person):
        def intervene(self) -> np.ndarray | None:
            raise AssertionError("nobody helps in an evaluation")

        def events(self) -> frozenset[TeleopEvent]:
            self.step += 1
            return frozenset({TeleopEvent.SUCCESS}) if self.step % 5 == 4 else NO_EVENTS

    monkeypatch.setattr(rollout, "_judge", lambda config, environment: Judge())
    result = evaluate_on_arm(config, folder)
    assert result.success_rate == 1.0 and result.judged_by == "person"


def test_the_operator_holds_and_sends_home(own_home, config, folder) -> None:
    class Commands(NoOperator):
        asked = waited = 0

        def wish(self) -> Wish:
            self.asked += 1
            return Wish.HOLD if 3 <= self.asked < 6 else Wish.HOME if self.asked == 9 else Wish.GO

        def wait(self, seconds: float) -> None:
            self.waited += 1

        def ended(self, how: str, success: bool, return_: float) -> None:
            self.how = [*getattr(self, "how", []), how]

        def told(self, *, ended: str) -> None:
            self.last_word = ended

    operator = Commands()
    worked = run_policy(config, folder, episodes=1, operator=operator)
    assert operator.waited >= 3 and operator.how == ["cut", "time"] and len(worked.episodes) == 1
    assert operator.last_word == "1 episode, 0 succeeded", "the page says how it went"


def test_real_time_is_kept(own_home, folder) -> None:
    config = make_tiny_config(**{**SHORT, "actor__pace": "realtime"}, task__reach_tolerance_m=0.001)
    started = time.monotonic()
    (episode,) = run_policy(config, folder, episodes=1).episodes
    assert episode.steps == 10 and time.monotonic() - started >= 0.9, "ten steps at 10 Hz are not faster than that"


def test_a_policy_of_something_else_moves_nothing(own_home, folder) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        run_policy(make_tiny_config(**SHORT, task__type="lift"), folder, episodes=1)
