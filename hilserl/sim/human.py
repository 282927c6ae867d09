"""A simulated human: watches, takes over when the policy is stuck, hands back before success.

Stands in for the person at the leader arm, so that the intervention path is exercised without one:
reaction time, noise, bouts of bounded length, and fewer bouts as the policy gets better.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import SimulationError
from hilserl.sim.expert import ScriptedExpert
from hilserl.sim.privileged import PrivilegedState, is_held, reach_target_m

_PROGRESS_M = 0.004
_EMA_WEIGHT = 0.1
_NOT_HELD_M = 1.0


class HumanState(Enum):
    """What the human is doing.

    WATCHING -> REACTING when stuck, if this occasion is taken; REACTING -> ACTING after the reaction
    time, or back to WATCHING when the policy moves on by itself; ACTING -> WATCHING at the end of a bout.
    """

    WATCHING = auto()
    REACTING = auto()
    ACTING = auto()


class SimulatedHuman:
    """Decide at every step whether to take over, and act while in control.

    Attributes:
        state: What the human is doing.
        success_ema: Moving average of the policy's outcomes; the more it succeeds, the less often
            the human reacts.
    """

    def __init__(self, config: TrainConfig, rng: np.random.Generator) -> None:
        """Watch the policy of `config.actor.intervention`; all randomness comes from `rng`.

        Raises:
            SimulationError: The configuration asks for no simulated human.
        """
        self._settings = config.actor.intervention
        if not self._settings.is_simulated:
            raise SimulationError(f"actor.intervention.type is {self._settings.type!r}: set it to `simulated` to have a simulated human.")
        self._task = config.task
        self._scale_m = config.robot.action_scale_m
        self._expert = ScriptedExpert(config)
        self._rng = rng
        self.success_ema = 0.0
        self.state = HumanState.WATCHING
        self._best = np.inf
        self._idle_steps = 0
        self._steps = 0

    @property
    def probability(self) -> float:
        """Chance to react to the next occasion."""
        return self._settings.probability * (1.0 - self.success_ema)

    def reset(self) -> None:
        """Begin to watch a new episode; what was learned about the policy's success stays."""
        self._watch()

    def observe_outcome(self, success: bool) -> None:
        """Note how an episode ended: the chance to react tapers as success rises."""
        self.success_ema += _EMA_WEIGHT * (float(success) - self.success_ema)

    def intervene(self, state: PrivilegedState) -> NDArray[np.float32] | None:
        """Act in the place of the policy, or let it go on.

        Args:
            state: The true state now.

        Returns:
            Action in [-1, 1], shape (A,), while the human is in control; else None.
        """
        left = self._goal_distance(state)
        match self.state:
            case HumanState.WATCHING:
                self._note_progress(left)
                if self._idle_steps >= self._settings.stuck_steps:
                    self._consider(state)
            case HumanState.REACTING:
                if self._note_progress(left):
                    self._watch(left)
                else:
                    self._steps += 1
        if self.state is HumanState.REACTING and self._steps >= self._settings.delay_steps:
            self.state, self._steps = HumanState.ACTING, 0
            self._expert.reset()
        if self.state is HumanState.ACTING:
            if self._steps < self._settings.max_bout_steps and not self._close_to_success(state):
                self._steps += 1
                return self._act(state)
            self._watch(left)
        return None

    def _watch(self, left: float = np.inf) -> None:
        self.state = HumanState.WATCHING
        self._best = left
        self._idle_steps = 0
        self._steps = 0

    def _note_progress(self, left: float) -> bool:
        """Count steps without progress towards the goal; tell whether this step made some."""
        if left < self._best - _PROGRESS_M:
            self._best, self._idle_steps = left, 0
            return True
        self._idle_steps += 1
        return False

    def _consider(self, state: PrivilegedState) -> None:
        """Take this occasion, or let it pass and wait for the next."""
        if not self._close_to_success(state) and self._rng.random() < self.probability:
            self.state, self._steps = HumanState.REACTING, 0
        self._idle_steps = 0

    def _act(self, state: PrivilegedState) -> NDArray[np.float32]:
        action = self._expert.action(state)
        noisy: NDArray[Any] = action + self._rng.normal(0.0, self._settings.noise, action.shape)
        return np.clip(noisy, -1.0, 1.0).astype(np.float32)

    def _goal_distance(self, state: PrivilegedState) -> float:
        """Measure what is left to do [m]; for `lift`, an unheld cube counts as far away."""
        if self._task.type == "reach":
            return float(np.linalg.norm(state.tool_pos_m - reach_target_m(self._task, state)))
        if is_held(state):
            return self._task.lift_height_m - state.cube_height_m
        return _NOT_HELD_M + float(np.linalg.norm(state.tool_pos_m - state.cube_pos_m))

    def _close_to_success(self, state: PrivilegedState) -> bool:
        """Tell whether one more step could succeed: that one is the policy's."""
        left = self._goal_distance(state)
        within = self._task.reach_tolerance_m if self._task.type == "reach" else 0.0
        return left <= within + self._scale_m * np.sqrt(3.0)
