"""What a person says of an episode: LeRobot's teleoperation events, and what they mean for a step."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum


class TeleopEvent(Enum):
    """LeRobot's `TeleopEvents` by their values, without importing LeRobot; and answers to a question, which judge no episode."""

    SUCCESS = "success"
    FAILURE = "failure"
    RERECORD_EPISODE = "rerecord_episode"
    TERMINATE_EPISODE = "terminate_episode"
    YES = "yes"
    NO = "no"


NO_EVENTS: frozenset[TeleopEvent] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """How a step ended.

    Attributes:
        reward: After the step.
        terminated: The task itself ended.
        truncated: Something else ended the episode.
        success: The task was done.
        discarded: The person does not want this episode.
    """

    reward: float
    terminated: bool
    truncated: bool
    success: bool
    discarded: bool = False


def how_it_ended(outcome: Outcome) -> str:
    """Say how an episode ended: `success`, `failure`, `time` or `discarded`."""
    if outcome.discarded:
        return "discarded"
    return "success" if outcome.success else "failure" if outcome.terminated else "time"


def judge(events: Collection[TeleopEvent], reward: float, terminated: bool, truncated: bool, success: bool) -> Outcome:
    """Let a person's verdict win over the environment's.

    `success` ends the task with reward 1; `failure` and `terminate_episode` end it with none (as in LeRobot: done, no bootstrap);
    `rerecord_episode` cuts the episode off (the state that follows counts as usual) and says that nobody wants it. Success wins
    over the others, which a person pressed by mistake then.

    Args:
        events: What the person said during the step.
        reward: The environment's.
        terminated: The environment's.
        truncated: The environment's.
        success: The environment's.
    """
    if TeleopEvent.SUCCESS in events:
        return Outcome(reward if success else reward + 1.0, True, False, True)
    if TeleopEvent.RERECORD_EPISODE in events:
        return Outcome(reward, terminated, not terminated, success, discarded=True)
    if TeleopEvent.FAILURE in events or TeleopEvent.TERMINATE_EPISODE in events:
        return Outcome(reward - 1.0 if success else reward, True, False, False)
    return Outcome(reward, terminated, truncated, success)
