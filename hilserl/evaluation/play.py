"""Play one episode with the policy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from hilserl.evaluation.film import Reel
from hilserl.evaluation.result import Episode
from hilserl.evaluation.starts import Start
from hilserl.policy import Policy
from hilserl.teleop.events import NO_EVENTS, Outcome, TeleopEvent, judge

Observation = dict[str, np.ndarray]


class Attendant(Protocol):
    """Who is there while an episode is played: the clock, a person, an operator."""

    def resetting(self, start: Start) -> None:
        """The arm goes to its start."""

    def began(self, observation: Observation, info: Mapping[str, Any]) -> None:
        """The episode begins."""

    def before_step(self, observation: Observation) -> Observation | None:
        """Return what the policy acts on; None: the episode is broken off."""

    def choose(self, action: np.ndarray) -> np.ndarray:
        """Return what is done at the end of the control period: the policy's action, or a person's."""

    def said(self) -> frozenset[TeleopEvent]:
        """Return what a person said of the episode since the last call."""

    def saw(self, observation: Observation, info: Mapping[str, Any], outcome: Outcome) -> None:
        """A step was done."""

    def ended(self, outcome: Outcome | None) -> None:
        """The episode is over; None: it was broken off."""


class Nobody:
    """An episode as fast as it goes, unseen."""

    def resetting(self, start: Start) -> None:
        """Do nothing."""

    def began(self, observation: Observation, info: Mapping[str, Any]) -> None:
        """Do nothing."""

    def before_step(self, observation: Observation) -> Observation | None:
        """Go on."""
        return observation

    def choose(self, action: np.ndarray) -> np.ndarray:
        """Do what the policy wants."""
        return action

    def said(self) -> frozenset[TeleopEvent]:
        """Say nothing."""
        return NO_EVENTS

    def saw(self, observation: Observation, info: Mapping[str, Any], outcome: Outcome) -> None:
        """Do nothing."""

    def ended(self, outcome: Outcome | None) -> None:
        """Do nothing."""


class BrokenOff(Exception):
    """An episode did not come to its end."""


def play_episode(
    environment: Any, policy: Policy, start: Start | int, reel: Reel | None = None, attendant: Attendant | None = None
) -> Episode:
    """Play one episode with the mode of the policy's distribution.

    Args:
        environment: Gives native observations, as the policy takes them.
        policy: With weights.
        start: How the episode begins, or only its seed.
        reel: Takes a picture of every step.
        attendant: Who is there; None: nobody.

    Raises:
        BrokenOff: The attendant broke it off.
    """
    start = start if isinstance(start, Start) else Start(start)
    attendant = attendant or Nobody()
    attendant.resetting(start)
    observation, info = environment.reset(seed=start.seed, **({"options": start.options} if start.options else {}))
    cube = start.cube_m if start.cube_m is not None else info.get("cube_pos_m")
    attendant.said()  # of the pause before: of no episode
    attendant.began(observation, info)
    steps, total, outcome = 0, 0.0, Outcome(0.0, False, False, False)
    actions: list[np.ndarray] = []
    while not (outcome.terminated or outcome.truncated):
        seen = attendant.before_step(observation)
        if seen is None:
            attendant.ended(None)
            raise BrokenOff
        if reel:
            reel.add(environment, seen)
        actions.append(attendant.choose(policy.act(seen)))
        observation, reward, terminated, truncated, info = environment.step(actions[-1])
        said = attendant.said()
        outcome = judge(said, float(reward), terminated, truncated, bool(info["is_success"]))
        steps += 1
        total += float(outcome.reward)
        attendant.saw(observation, info, outcome)
    if reel:
        reel.end(environment, observation, success=outcome.success)
    attendant.ended(outcome)
    change = float(np.abs(np.diff(actions, axis=0)).mean()) if steps > 1 else 0.0
    truth = info.get("true_success")
    return Episode(
        seed=start.seed,
        steps=steps,
        success=outcome.success,
        return_=total,
        smoothness=change,
        cube_m=None if cube is None else (float(cube[0]), float(cube[1])),
        judged_by="human" if said else str(info.get("judged_by", "")),
        true_success=None if truth is None else bool(truth),
        placed=start.cube_m is not None,
    )
