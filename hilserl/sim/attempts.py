"""Attempts at `lift` of every kind: done, nearly done, dropped, missed, pushed, or with nothing in the jaws.

A success classifier must be shown what only looks like success. A kind is what the actor has in mind; what came of it
is for the simulator to say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import SimulationError
from hilserl.sim.expert import ScriptedExpert
from hilserl.sim.privileged import PrivilegedState, is_held

Action = NDArray[np.float32]
Kind = Literal["lifted", "nearly", "dropped", "missed", "empty", "pushed", "aimless"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SHARES: dict[Kind, float] = {"lifted": 0.42, "nearly": 0.2, "dropped": 0.1, "missed": 0.08, "empty": 0.08, "pushed": 0.05, "aimless": 0.07}
_MARGIN_M = 0.012  # by which a near miss means to stay below the height that counts, and a success to pass it
_HIGHEST_M = 0.1
_HELD_STEPS = (2, 10)


def sample_kind(rng: np.random.Generator) -> Kind:
    """Draw a kind: about two fifths succeed, half of the others come near."""
    return KINDS[int(rng.choice(len(KINDS), p=list(_SHARES.values())))]


class Attempt:
    """One episode of a kind, action by action."""

    def __init__(self, config: TrainConfig, kind: Kind, rng: np.random.Generator) -> None:
        """Begin an attempt; all randomness comes from `rng`.

        Raises:
            SimulationError: The task is not `lift`.
        """
        if config.task.type != "lift":
            raise SimulationError(f"attempts are known for `lift` only; the task is `{config.task.type}`.")
        self.kind = kind
        self._rng, self._expert = rng, ScriptedExpert(config)
        self._scale_m, self._step_pct = config.robot.action_scale_m, config.robot.max_gripper_step_pct
        goal_m = config.task.lift_height_m
        self._noise = float(rng.choice([0.05, 0.2, 0.45]))
        self._height_m = float(rng.uniform(goal_m + _MARGIN_M, _HIGHEST_M) if kind == "lifted" else rng.uniform(0.006, goal_m - _MARGIN_M))
        self._offset_m = np.append(rng.choice([-1, 1], 2) * rng.uniform(0.02, 0.05, 2), 0.0)
        self._drift = rng.normal(0.0, 0.3, 3)
        self._hold = int(rng.integers(*_HELD_STEPS))
        self._reached, self._closed = 0, 0
        self._wander: NDArray[Any] = np.zeros(4)

    def action(self, state: PrivilegedState) -> Action:
        """Choose the next action in [-1, 1], shape (4,)."""
        match self.kind:
            case "lifted" | "nearly" | "dropped":
                wanted = self._carry(state)
            case "missed":
                wanted = self._beside(state)
            case "empty":
                wanted = self._empty(state)
            case "pushed":
                wanted = self._push(state)
            case _:
                self._wander = 0.8 * self._wander + 0.6 * self._rng.normal(0.0, 1.0, 4)
                wanted = self._wander
        noisy = np.asarray(wanted, np.float64) + self._rng.normal(0.0, self._noise, 4) * (1, 1, 1, 0.5)
        return np.clip(noisy, -1.0, 1.0).astype(np.float32)

    def _carry(self, state: PrivilegedState) -> NDArray[Any]:
        """Grasp the cube and hold it at a height; drop it there after a while, if that is the kind."""
        if not is_held(state):
            return self._opened() if self.kind == "dropped" and self._reached > self._hold else self._expert.action(state)
        error_m = self._height_m - state.cube_height_m
        if abs(error_m) < 0.008:
            self._reached += 1
        if self.kind == "dropped" and self._reached > self._hold:
            return self._opened()
        if self.kind == "nearly" and state.cube_height_m > self._height_m:
            error_m = min(error_m, -0.004)
        sideways = self._drift if self._reached else np.zeros(3)
        return np.array([sideways[0], sideways[1], np.clip(error_m / self._scale_m, -1, 1), -1.0])

    def _opened(self) -> NDArray[Any]:
        return np.array([0.0, 0.0, 0.3, 1.0])

    def _beside(self, state: PrivilegedState) -> NDArray[Any]:
        """Close the jaws beside the cube, and lift them with a will."""
        if self._closed > 4:
            return np.array([*self._drift[:2], 0.6 if state.tool_pos_m[2] < self._height_m + 0.06 else 0.0, -1.0])
        action = self._expert.action(replace(state, cube_pos_m=state.cube_pos_m + self._offset_m))
        self._closed += action[3] < -0.5
        return action

    def _empty(self, state: PrivilegedState) -> NDArray[Any]:
        """Hold closed, empty jaws over the cube, as high as if it were between them."""
        target = state.cube_pos_m + self._offset_m * 0.5 + np.array([0.0, 0.0, 0.03 + self._height_m])
        return np.append(np.clip((target - state.tool_pos_m) / self._scale_m, -1, 1), -1.0)

    def _push(self, state: PrivilegedState) -> NDArray[Any]:
        """Sweep along the table, through the cube."""
        target = state.cube_pos_m + 0.4 * self._offset_m + np.array([0.0, 0.0, 0.005])
        return np.append(np.clip((target - state.tool_pos_m) / self._scale_m, -1, 1), self._drift[2])
