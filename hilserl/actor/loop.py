"""The actor's main loop: observe, let the policy or the human act, journal and stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from hilserl.actor.pace import Pace, Timing
from hilserl.config.models import TrainConfig
from hilserl.errors import LearnerAwayError
from hilserl.evaluation import IN_TRAINING_SEED
from hilserl.link.interfaces import ActorEnd
from hilserl.link.messages import EpisodeReport, Step
from hilserl.policy import Policy
from hilserl.teleop.events import NO_EVENTS, TeleopEvent, judge

logger = logging.getLogger(__name__)

_THROTTLE_POLL_S = 0.002
_LEARNER_SILENCE_S = 120.0  # a learner that is started again needs 20 to 60 s of it


class Environment(Protocol):
    """What the loop needs of an environment (a Gymnasium one with executed actions in `info`)."""

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Do one control step."""


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
    ) -> None:
        self.config = config
        self.environment = environment
        self.human = human
        self.policy = policy
        self.client = client
        self._should_stop = should_stop
        self._generator = torch.Generator().manual_seed(config.seed)
        self._frozen_hash = ""  # of the frozen tensors that the policy has
        self._first_step = client.status.environment_steps
        self._connected_at = time.monotonic()
        self._steps = 0
        self._episodes = 0
        self._interventions = 0
        self._next_evaluation = self._after(self.environment_steps)
        self._pace = pace

    @property
    def environment_steps(self) -> int:
        """Training steps of the whole run, earlier actor processes included."""
        return self._first_step + self._steps

    def run(self) -> ActorResult:
        """Play episodes until there is a reason to stop."""
        while not (reason := self._stop_reason()):
            if self._next_evaluation is not None and self.environment_steps >= self._next_evaluation:
                self._evaluate()
                self._next_evaluation = self._after(self.environment_steps)
            else:
                self._play_training_episode()
        return ActorResult(self._episodes, self._steps, self._interventions, reason)

    def _play_training_episode(self) -> None:
        # Episodes are numbered from the run's step count, so a restarted actor never reuses a number.
        episode = self._first_step + self._episodes
        observation, _ = self.environment.reset(seed=_seed(self.config.seed, episode))
        if self.human:
            self.human.reset()
        started, total, interventions, step, success = time.monotonic(), 0.0, 0, 0, False
        ended = False
        if self._pace:
            self._pace.begin()
        while not ended:
            if self._pace:
                self._pace.observed()
            if self._wait_for_learner():
                return  # stopped in mid-episode: what was sent stays valid, the episode is not reported
            self._take_new_weights()
            human_action = self.human.intervene() if self.human else None
            action = human_action if human_action is not None else self.policy.act(observation, generator=self._generator)
            if self._pace:
                self._pace.wait()
            next_observation, reward, terminated, truncated, info = self.environment.step(action)
            outcome = judge(self._said(), reward, terminated, truncated, bool(info["is_success"]))
            ended = outcome.terminated or outcome.truncated
            self.client.send_step(
                Step(
                    episode=episode,
                    step=step,
                    observation=self.policy.preprocessor(observation),
                    action=np.asarray(info["executed_action"], np.float32),
                    reward=float(outcome.reward),
                    terminated=outcome.terminated,
                    truncated=outcome.truncated and not outcome.terminated,
                    is_intervention=human_action is not None,
                    final_observation=self.policy.preprocessor(next_observation) if ended else None,
                )
            )
            total += float(outcome.reward)
            interventions += human_action is not None
            success = outcome.success
            step += 1
            self._steps += 1
            observation = next_observation
        self._episodes += 1
        self._interventions += interventions
        if self.human:
            self.human.observe_outcome(success and not interventions)
        self._report(episode, total, step, success, interventions, started, evaluation=False, at=self.environment_steps)

    def _evaluate(self) -> None:
        self._take_new_weights()
        at = self.environment_steps
        for index in range(self.config.actor.evaluate_episodes):
            started, total, step, ended, success = time.monotonic(), 0.0, 0, False, False
            observation, _ = self.environment.reset(seed=IN_TRAINING_SEED + index)
            self._said()  # of the pause before: of no episode
            if self._pace:
                self._pace.begin()
            while not ended:
                if self._pace:
                    self._pace.observed()
                if self._stop_reason():
                    return
                action = self.policy.act(observation)
                if self._pace:
                    self._pace.wait()
                observation, reward, terminated, truncated, info = self.environment.step(action)
                outcome = judge(self._said(), reward, terminated, truncated, bool(info["is_success"]))
                total += float(outcome.reward)
                step += 1
                ended, success = outcome.terminated or outcome.truncated, outcome.success
            self._report(index, total, step, success, 0, started, evaluation=True, at=at)

    def _report(
        self, episode: int, total: float, length: int, success: bool, interventions: int, started: float, *, evaluation: bool, at: int
    ) -> None:
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
        self._frozen_hash = weights.frozen.content_hash

    def _said(self) -> frozenset[TeleopEvent]:
        """Return what the human said of the episode; on a real arm, nobody else knows whether the task was done."""
        return self.human.events() if self.human else NO_EVENTS

    def _wait_for_learner(self) -> bool:
        """Let a simulated robot wait for the learner; a real one never waits. True when stopped meanwhile."""
        while self.config.actor.pace == "unthrottled" and self._owed_updates() > self.config.learner.max_owed_updates:
            if self._stop_reason():
                return True
            time.sleep(_THROTTLE_POLL_S)
        return self._stop_reason() is not None

    def _owed_updates(self) -> int:
        """Estimate what the learner owes now: what it said, and what the steps that it had not seen then add."""
        status, policy = self.client.status, self.config.policy
        learned_from = max(0, self.environment_steps - policy.online_step_before_learning)
        seen = max(0, status.environment_steps - policy.online_step_before_learning)
        return status.owed_updates + policy.utd_ratio * max(0, learned_from - seen)

    def _stop_reason(self) -> str | None:
        if reason := self._should_stop():
            return reason
        status = self.client.status
        if status.phase == "finished":
            return f"the learner finished: {status.message}"
        if status.phase == "failed":
            raise LearnerAwayError(f"the learner failed: {status.message}")
        self._require_learner()
        return None

    def _require_learner(self) -> None:
        """Give a learner that is away time to come back, but do not act for nobody."""
        now = time.monotonic()
        if self.client.is_connected:
            self._connected_at = now
        elif now - self._connected_at > _LEARNER_SILENCE_S:
            raise LearnerAwayError(
                f"the learner was away for {_LEARNER_SILENCE_S:.0f} s, so the actor stopped. What it did is in its journal. "
                "Start the run again to continue from the last checkpoint."
            )

    def _after(self, steps: int) -> int | None:
        every = self.config.actor.evaluate_every_steps
        return (steps // every + 1) * every if every else None


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Copy received arrays into tensors that own their memory."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def _seed(seed: int, episode: int) -> int:
    """Give every training episode its own start, none of them an evaluation's."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0] | 0x8000_0000)
