"""The actor's main loop: observe, let the policy or the human act, journal and stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from hilserl.actor.asking import AskByKeys
from hilserl.actor.learner_watch import LearnerWatch
from hilserl.actor.pace import Pace, Timing
from hilserl.config.models import TrainConfig
from hilserl.evaluation import IN_TRAINING_SEED
from hilserl.link.interfaces import ActorEnd
from hilserl.link.messages import EpisodeReport, Step
from hilserl.policy import Policy
from hilserl.teleop.events import NO_EVENTS, TeleopEvent, how_it_ended, judge
from hilserl.teleop.operator import Moment, NoOperator, Operator, Wish

logger = logging.getLogger(__name__)

_WAIT_S = 0.05


class Environment(Protocol):
    """What the loop needs of an environment (a Gymnasium one with executed actions in `info`)."""

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Do one control step."""

    def contradicted(self, human_says: bool, episode: int, step: int) -> None:
        """A person says something else than the success classifier, whose opinion was in the last step's `info`."""


class Human(Protocol):
    """Somebody who may take over."""

    def reset(self) -> None:
        """An episode starts."""

    def intervene(self) -> np.ndarray | None:
        """Return the human's action while in control, else None."""

    def events(self) -> frozenset[TeleopEvent]:
        """Return what the human said of the episode since the last call."""

    def observe_outcome(self, success: bool) -> None:
        """An episode ended."""


@dataclass(frozen=True)
class ActorResult:
    """What the actor did.

    Attributes:
        episodes: Training episodes.
        environment_steps: Training steps.
        intervention_steps: Steps in which the human acted.
        reason: Why it ended, for a person.
    """

    episodes: int
    environment_steps: int
    intervention_steps: int
    reason: str


class Actor:
    """Plays episodes until the learner has finished or somebody stops it."""

    def __init__(
        self,
        config: TrainConfig,
        environment: Environment,
        human: Human | None,
        policy: Policy,
        client: ActorEnd,
        should_stop: Callable[[], str | None],
        pace: Pace | None = None,
        operator: Operator | None = None,
    ) -> None:
        self.config = config
        self.environment = environment
        self.human = human
        self.policy = policy
        self.client = client
        self.operator: Operator = operator or NoOperator()
        self._learner = LearnerWatch(config, client, should_stop)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._frozen_hash = ""  # of the frozen tensors that the policy has
        self._first_step = client.status.environment_steps
        self._steps = 0
        self._episodes = 0
        self._begun = 0  # segments: an episode has more than one where it was held in between
        self._interventions = 0
        self._hold = np.zeros(len(config.action_names), np.float32)
        self._next_evaluation = self._after(self.environment_steps)
        self._pace = pace
        self._slow: Pace | None = None  # for somebody who drives what has no clock
        self._asking = self._ask_by_keys()

    @property
    def environment_steps(self) -> int:
        """Training steps of the whole run, earlier actor processes included."""
        return self._first_step + self._steps

    def run(self) -> ActorResult:
        """Play episodes until there is a reason to stop."""
        while not (reason := self.stop_reason()):
            wish = self.operator.wish()
            if wish is Wish.HOME:
                self._go_home()
            elif wish is not Wish.GO:
                self.operator.wait(_WAIT_S)
            elif self._may_evaluate():
                self._evaluate()
                self._next_evaluation = self._after(self.environment_steps)
            else:
                self._play_training_episode()
        return self.result(reason)

    def result(self, reason: str) -> ActorResult:
        """Return what was done until now."""
        return ActorResult(self._episodes, self._steps, self._interventions, reason)

    def go_on_with(self, environment: Environment, human: Human | None, pace: Pace | None) -> None:
        """Take a robot that was connected anew; the next `run` begins an episode."""
        self.environment, self.human, self._pace = environment, human, pace
        self._asking = self._ask_by_keys()

    def _play_training_episode(self) -> None:
        # Episodes are numbered from the run's step count, so a restarted actor never reuses a number.
        episode = self._first_step + self._begun
        self.operator.resetting(episode)
        observation, info = self.environment.reset(seed=_seed(self.config.seed, episode))
        if self.human:
            self.human.reset()
        started, total, interventions, length, step, success = time.monotonic(), 0.0, 0, 0, 0, False
        self.operator.began(Moment(episode, 0, observation, info))
        ended, how = False, ""
        if self._pace:
            self._pace.begin()
        while not ended:
            if self._pace:
                self._pace.observed()
            if self._learner.wait(self.environment_steps, self.operator.rests):
                self.operator.ended("cut", success, total)
                return  # stopped in mid-episode: what was sent stays valid, the episode is not reported
            self._take_new_weights()
            action, is_human = self._choose(observation)
            wish = self.operator.wish()
            stays = wish in (Wish.HOLD, Wish.HOME)
            if stays:  # the last step of its segment: what somebody does to the scene meanwhile is nobody's action
                action, is_human = self._hold, False
            next_observation, reward, terminated, truncated, info = self.environment.step(action)
            outcome = judge(self._said(), reward, terminated, truncated, bool(info["is_success"]))
            if "success_probability" in info and outcome.success != bool(info["is_success"]):
                self.environment.contradicted(outcome.success, episode, step)
            ended = outcome.terminated or outcome.truncated
            seen = self.policy.preprocessor(observation)
            self._begun += step == 0
            self.client.send_step(
                Step(
                    episode=episode,
                    step=step,
                    observation=seen,
                    action=np.asarray(info["executed_action"], np.float32),
                    reward=float(outcome.reward),
                    terminated=outcome.terminated,
                    truncated=(outcome.truncated or stays) and not outcome.terminated,
                    is_intervention=is_human,
                    final_observation=self.policy.preprocessor(next_observation) if ended or stays else None,
                )
            )
            total += float(outcome.reward)
            interventions += is_human
            success = outcome.success
            step, length = step + 1, length + 1
            self._steps += 1
            observation = next_observation
            if self._pace:
                self.operator.told(timing=self._pace.timing)
            self.operator.saw(Moment.after((episode, length), observation, info, outcome, total, seen=seen, is_intervention=is_human))
            if ended:
                how = how_it_ended(outcome)
            elif stays:
                if (again := self._wait_held(observation)) is None:
                    self.operator.ended("cut", success, total)
                    return
                observation, episode, step = again, self._first_step + self._begun, 0
                self.operator.began(Moment(episode, length, observation, info, return_=total))
        self._episodes += 1
        self._interventions += interventions
        if self.human:
            self.human.observe_outcome(success and not interventions)
        self.operator.ended(how, success, total)
        self._report(episode, total, length, success, interventions, started, evaluation=False, at=self.environment_steps, info=info)

    def _choose(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, bool]:
        """Return the action, and whether a human acts; where a period is kept, the human is asked at its end, and not before it."""
        pace = self._pace or self._pace_for_a_person()
        if pace is None:
            wanted = self.human.intervene() if self.human else None
            return (self.policy.act(observation, generator=self._generator), False) if wanted is None else (wanted, True)
        action = self.policy.act(observation, generator=self._generator)
        pace.wait()
        wanted = self.human.intervene() if self.human else None
        return (action, False) if wanted is None else (wanted, True)

    def _pace_for_a_person(self) -> Pace | None:
        """Keep the control period, also where nothing has a clock, while somebody drives or watches."""
        if not self.operator.real_time:
            self._slow = None
        elif self._slow is None:
            self._slow = Pace(self.config.robot.control_hz)
        return self._slow

    def _wait_held(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """Stand still until the operator wants something else; return what is seen then, None where the episode does not go on."""
        while (wish := self.operator.wish()) is Wish.HOLD:
            if self.stop_reason():
                return None
            self.operator.wait(_WAIT_S)
        if wish is Wish.HOME:
            return None
        if self._pace:
            self._pace.go_on()
        look: Callable[[], dict[str, np.ndarray]] | None = getattr(self.environment, "observe", None)
        return observation if look is None else look()

    def _go_home(self) -> None:
        """Send the arm to its start; the operator waits there."""
        episode = self._first_step + self._begun
        self.operator.resetting(episode)
        observation, info = self.environment.reset(seed=_seed(self.config.seed, episode))
        self.operator.arrived(Moment(episode, 0, observation, info))

    def _may_evaluate(self) -> bool:
        """Tell whether an evaluation is due that the operator does not mind; one that is refused is skipped."""
        if self._next_evaluation is None or self.environment_steps < self._next_evaluation:
            return False
        asked = self.operator if self._asking is None else self._asking
        approved = asked.may_evaluate(self._next_evaluation)
        if approved is False:
            self._next_evaluation = self._after(self.environment_steps)
        return bool(approved)

    def _ask_by_keys(self) -> AskByKeys | None:
        """Ask for an evaluation by keys where it is to be asked for, and no operator does."""
        if not (self.config.asks_before_evaluation and isinstance(self.operator, NoOperator)):
            return None
        return AskByKeys(self.config.actor.evaluate_episodes, hears=self.human is not None)

    def _evaluate(self) -> None:
        self._take_new_weights()
        at = self.environment_steps
        for index in range(self.config.actor.evaluate_episodes):
            started, total, step, ended, success = time.monotonic(), 0.0, 0, False, False
            self.operator.resetting(index, evaluation=True)
            observation, info = self.environment.reset(seed=IN_TRAINING_SEED + index)
            self._said()  # of the pause before: of no episode
            self.operator.began(Moment(index, 0, observation, info, evaluation=True))
            how = "cut"
            if self._pace:
                self._pace.begin()
            while not ended:
                if self._pace:
                    self._pace.observed()
                if self.stop_reason() or (held := self._held_in_evaluation(observation)) is None:
                    self.operator.ended("cut", success, total)
                    return
                observation = held
                action = self.policy.act(observation)
                if pace := self._pace or self._pace_for_a_person():
                    pace.wait()
                seen = self.policy.preprocessor(observation)
                observation, reward, terminated, truncated, info = self.environment.step(action)
                outcome = judge(self._said(), reward, terminated, truncated, bool(info["is_success"]))
                total += float(outcome.reward)
                step += 1
                ended, success = outcome.terminated or outcome.truncated, outcome.success
                how = how_it_ended(outcome)
                self.operator.saw(Moment.after((index, step), observation, info, outcome, total, seen=seen, evaluation=True))
            self.operator.ended(how, success, total)
            self._report(index, total, step, success, 0, started, evaluation=True, at=at, info=info)

    def _held_in_evaluation(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """Return what the policy acts on: after a hold, what is seen now; None where the evaluation is broken off."""
        wish = self.operator.wish()
        if wish is Wish.HOME:
            return None
        return self._wait_held(observation) if wish is Wish.HOLD else observation

    def _report(
        self, episode: int, total: float, length: int, success: bool, interventions: int, started: float,
        *, evaluation: bool, at: int, info: Mapping[str, Any],
    ) -> None:  # fmt: skip
        timing = self._pace.timing if self._pace else Timing()
        self.client.send_episode(
            EpisodeReport(
                episode=episode,
                return_=total,
                length=length,
                is_success=success,
                intervention_steps=interventions,
                seconds=time.monotonic() - started,
                evaluation=evaluation,
                weights_version=self.policy.version,
                environment_steps=at,
                late_steps=timing.late_steps,
                longest_period_s=timing.longest_period_s,
                observation_age_s=timing.observation_age_s,
                true_success=None if info.get("judged_by") == "simulator" else info.get("true_success"),
            )
        )

    def _take_new_weights(self) -> None:
        weights = self.client.latest_weights()
        if weights is None:
            return
        # Frozen encoders are large, and this is the control loop: they are loaded and looked at once.
        has_frozen = weights.frozen.content_hash == self._frozen_hash
        tensors, kept = (weights.trained, weights.frozen.tensors.keys()) if has_frozen else (weights.tensors, ())
        self.policy.load_tensors(as_tensors(tensors), weights.version, kept=kept)
        self.operator.told(weights_version=weights.version)
        self._frozen_hash = weights.frozen.content_hash

    def _said(self) -> frozenset[TeleopEvent]:
        """Return what the human said of the episode; on a real arm, nobody else knows whether the task was done."""
        said = self.human.events() if self.human else NO_EVENTS
        if self._asking:
            self._asking.hear(said)
        return said

    def stop_reason(self) -> str | None:
        """Return why the actor ends now; None: it does not.

        Raises:
            LearnerAwayError: The learner failed, or was away for too long.
        """
        return self._learner.stop_reason()

    def _after(self, steps: int) -> int | None:
        every = self.config.actor.evaluate_every_steps
        return (steps // every + 1) * every if every else None


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Copy received arrays into tensors that own their memory."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def _seed(seed: int, episode: int) -> int:
    """Give every training episode its own start, none of them an evaluation's."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0] | 0x8000_0000)
