"""What surrounds the steps of an episode on an arm: its clock, whoever may take over, and the operator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hilserl.actor.loop import Human
from hilserl.actor.pace import Pace
from hilserl.evaluation.play import Observation
from hilserl.evaluation.result import Episode
from hilserl.evaluation.starts import Start
from hilserl.teleop.events import NO_EVENTS, Outcome, TeleopEvent
from hilserl.teleop.operator import Moment, Operator, Wish

logger = logging.getLogger(__name__)

_WAIT_S = 0.05


class Attended:
    """An `hilserl.evaluation.Attendant`.

    Args:
        environment: Of the episodes.
        human: Whoever may take over; None: nobody.
        operator: Watches and commands.
        pace: Keeps the control period; None: as fast as it goes.
        helps: The human may take over: it is work. Else it is an evaluation, and they only say how an episode went.
        pause_s: Time to arrange the scene before an episode [s].
        should_stop: Asked every step.
        say: Tells a person what comes.
    """

    def __init__(
        self,
        environment: Any,
        human: Human | None,
        operator: Operator,
        pace: Pace | None,
        *,
        helps: bool,
        pause_s: float = 0.0,
        should_stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        self.help_steps = 0
        self._environment, self._human, self._operator, self._pace = environment, human, operator, pace
        self._helps, self._pause_s, self._should_stop, self._say = helps, pause_s, should_stop, say
        self._episode = -1
        self._steps, self._return = 0, 0.0
        self._was_human = False
        self._done: np.ndarray | None = None

    @property
    def wants_end(self) -> bool:
        """Whether no further episode is wanted."""
        return self._should_stop()

    def resetting(self, start: Start) -> None:
        """Wait while the operator wants no episode, tell where the object belongs, and give time to put it there."""
        self._episode += 1
        while self._operator.wish() is not Wish.GO and not self._should_stop():
            self._operator.wait(_WAIT_S)
        if self._pause_s and not self._should_stop():
            place = f" ({start.shown})" if start.shown else ""
            self._say(f"Episode {self._episode + 1}: arrange the scene{place}; the arm moves in {self._pause_s:g} s")
            self._wait(self._pause_s)
        self._operator.resetting(self._episode, evaluation=not self._helps)

    def began(self, observation: Observation, info: Mapping[str, Any]) -> None:
        """Start the clock."""
        self._steps, self._return = 0, 0.0
        if self._human and self._helps:
            self._human.reset()
        self._operator.began(Moment(self._episode, 0, observation, info, evaluation=not self._helps))
        if self._pace:
            self._pace.begin()

    def before_step(self, observation: Observation) -> Observation | None:
        """Stand still while the operator wants that; None: it ends here."""
        if self._pace:
            self._pace.observed()
        if self._should_stop():
            return None
        held = False
        while (wish := self._operator.wish()) is Wish.HOLD:
            held = True
            if self._should_stop():
                return None
            self._operator.wait(_WAIT_S)
        if wish is Wish.HOME:
            return None
        look: Callable[[], Observation] | None = getattr(self._environment, "observe", None)
        if not held or look is None:
            return observation
        if self._pace:
            self._pace.begin()
        return look()

    def choose(self, action: np.ndarray) -> np.ndarray:
        """Wait for the end of the control period; a person who may help, and wants to, wins over the policy."""
        if self._pace:
            self._pace.wait()
        wanted = self._human.intervene() if self._human and self._helps else None
        self._was_human = wanted is not None
        self.help_steps += self._was_human
        self._done = action if wanted is None else wanted
        return self._done

    def said(self) -> frozenset[TeleopEvent]:
        """Return what the person said of the episode."""
        return self._human.events() if self._human else NO_EVENTS

    def saw(self, observation: Observation, info: Mapping[str, Any], outcome: Outcome) -> None:
        """Show the step."""
        self._steps += 1
        self._return += outcome.reward
        self._operator.saw(
            Moment(
                self._episode,
                self._steps,
                observation,
                info,
                info.get("executed_action", self._done),
                reward=outcome.reward,
                return_=self._return,
                success=outcome.success,
                is_intervention=self._was_human,
                evaluation=not self._helps,
            )
        )

    def ended(self, outcome: Outcome | None) -> None:
        """Show how it ended."""
        how = "cut" if outcome is None else "success" if outcome.success else "failure" if outcome.terminated else "time"
        self._operator.ended(how, outcome is not None and outcome.success, self._return)

    def finished(self, played: Sequence[Episode]) -> None:
        """Say how it went, when no further episode comes."""
        count = f"{len(played)} episode{'s' * (len(played) != 1)}"
        self._operator.told(ended=f"{count}, {sum(episode.success for episode in played)} succeeded")

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._should_stop():
            time.sleep(_WAIT_S)
