"""What the loops ask of whoever watches and commands them from outside: the console, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError
from hilserl.schema import IMAGE_PREFIX
from hilserl.teleop.events import Outcome


class Wish(Enum):
    """What the operator wants of the motion at this moment."""

    GO = "go"
    HOLD = "hold"
    """Stand still now; the episode goes on later."""
    PAUSE = "pause"
    """Begin no other episode."""
    HOME = "home"
    """End the episode, go to the start, wait there."""


@dataclass(frozen=True)
class Moment:
    """One control step, as it is shown.

    Attributes:
        episode: Its number.
        step: Steps of it that are done.
        observation: As the environment returned it: native frames by `observation.images.<camera>`.
        seen: The policy's own frames by the same keys, where somebody made them.
        info: The environment's.
        action: Executed, shape (A,).
        reward: Of this step.
        return_: Of the episode so far.
        success: The episode is one, so far.
        is_intervention: Somebody but the policy acted.
        evaluation: Nobody learns from it.
    """

    episode: int
    step: int
    observation: Mapping[str, np.ndarray]
    info: Mapping[str, Any]
    action: np.ndarray | None = None
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)
    reward: float = 0.0
    return_: float = 0.0
    success: bool = False
    is_intervention: bool = False
    evaluation: bool = False

    @classmethod
    def after(
        cls,
        place: tuple[int, int],
        observation: Mapping[str, np.ndarray],
        info: Mapping[str, Any],
        outcome: Outcome,
        return_: float,
        *,
        seen: Mapping[str, np.ndarray],
        is_intervention: bool = False,
        evaluation: bool = False,
    ) -> Moment:
        """Return the moment after a step; `place` is the episode and how many steps of it are done, `seen` the policy's observation."""
        frames = {key: value for key, value in seen.items() if key.startswith(IMAGE_PREFIX)}
        executed, reward = np.asarray(info["executed_action"]), float(outcome.reward)
        return cls(*place, observation, info, executed, frames, reward, return_, outcome.success, is_intervention, evaluation)


class Operator(Protocol):
    """Whoever commands from outside. No call waits, but `wait`.

    Attributes:
        real_time: A simulation without a clock keeps the control period: somebody drives or wants to watch.
    """

    @property
    def real_time(self) -> bool:
        """Whether an unthrottled simulation keeps the control period now."""

    def human(self, config: TrainConfig, environment: Any, make: Callable[[TrainConfig, Any], Any]) -> Any:
        """Return who may take over in this environment, whose life is the `Human`'s: whom `make` returns, and the operator; or None."""

    def linked(self, client: Any) -> None:
        """The actor has this end of a link, whose state is shown."""

    def stands_by(self, error: RobotError) -> bool:
        """Tell whether the robot was stopped, and a person is there to look after it: then the actor waits, and does not end."""

    def wait_for_rearming(self, should_stop: Callable[[], str | None]) -> str | None:
        """Wait until a person has re-armed the robot; return why the actor stops instead, or None."""

    def wish(self) -> Wish:
        """Return what is wanted now; the dead-man counts.

        Raises:
            RobotError: The robot was stopped.
        """

    def wait(self, seconds: float) -> None:
        """Wait while the wish is not `GO`, at most so long [s]."""

    def rests(self) -> None:
        """Nothing moves, and no step is under way: the environment may be looked at."""

    def arrived(self, moment: Moment) -> None:
        """The arm is at its start, where it was sent, and waits."""

    def may_evaluate(self, at_steps: int) -> bool | None:
        """Tell whether the evaluation that is due may begin; None: the person was asked and has not answered yet."""

    def resetting(self, episode: int, *, evaluation: bool = False) -> None:
        """The arm goes to its start."""

    def began(self, moment: Moment) -> None:
        """An episode begins, or goes on after a hold."""

    def saw(self, moment: Moment) -> None:
        """A step was done."""

    def ended(self, how: str, success: bool, return_: float) -> None:
        """The episode ended: `success`, `failure`, `time`, `discarded` or `cut`."""

    def told(self, **facts: Any) -> None:
        """Something else that is shown, such as `text` or what was recorded so far."""


class NoOperator:
    """Nobody watches."""

    real_time = False

    def human(self, config: TrainConfig, environment: Any, make: Callable[[TrainConfig, Any], Any]) -> Any:
        """Return whom `make` returns."""
        return make(config, environment)

    def linked(self, client: Any) -> None:
        """Say nothing."""

    def stands_by(self, error: RobotError) -> bool:
        """Nobody is there."""
        return False

    def wait_for_rearming(self, should_stop: Callable[[], str | None]) -> str | None:
        """Do not wait."""
        return None

    def wish(self) -> Wish:
        """Go on."""
        return Wish.GO

    def wait(self, seconds: float) -> None:
        """Do not wait."""

    def rests(self) -> None:
        """Say nothing."""

    def arrived(self, moment: Moment) -> None:
        """Say nothing."""

    def may_evaluate(self, at_steps: int) -> bool | None:
        """Evaluate."""
        return True

    def resetting(self, episode: int, *, evaluation: bool = False) -> None:
        """Say nothing."""

    def began(self, moment: Moment) -> None:
        """Say nothing."""

    def saw(self, moment: Moment) -> None:
        """Say nothing."""

    def ended(self, how: str, success: bool, return_: float) -> None:
        """Say nothing."""

    def told(self, **facts: Any) -> None:
        """Say nothing."""
