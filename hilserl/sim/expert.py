"""A scripted expert that sees the true state: for demonstrations and for the simulated human."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.sim.privileged import PrivilegedState, is_held, reach_target_m

Action = NDArray[np.float32]

_HOVER_M = 0.05
_ALIGNED_M = 0.008
_LOST_M = 0.018
_AT_HEIGHT_M = 0.005
_JAW_STILL_PCT = 2.0
_MAX_CLOSING_STEPS = 10
_DROPPED_M = 0.03


class Phase(Enum):
    """What the expert is doing in the `lift` task."""

    APPROACH = auto()
    DESCEND = auto()
    CLOSE = auto()
    LIFT = auto()


class ScriptedExpert:
    """Do the configured task, one noise-free action at a time.

    `reach` goes straight to the point. `lift` opens and hovers over the cube, descends, closes
    until the jaw stands still, lifts; a cube that slipped or was pushed away is approached again.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._task = config.task
        self._scale_m = config.robot.action_scale_m
        self._gripper_step_pct = config.robot.max_gripper_step_pct
        self._open_pct = config.robot.reset_gripper_pct
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self.phase = Phase.APPROACH
        self._closing_steps = 0
        self._last_gripper_pct = 0.0

    def action(self, state: PrivilegedState) -> Action:
        """Choose the next action.

        Args:
            state: The true state now.

        Returns:
            Action in [-1, 1], shape (A,).
        """
        if self._task.type == "reach":
            return self._towards(state, reach_target_m(self._task, state))
        self._advance(state)
        self._last_gripper_pct = state.gripper_pct
        match self.phase:
            case Phase.APPROACH:
                return self._towards(state, self._approach_point(state), gripper_pct=self._open_pct)
            case Phase.DESCEND:
                return self._towards(state, state.cube_pos_m, gripper_pct=self._open_pct)
            case Phase.CLOSE:
                self._closing_steps += 1
                return self._towards(state, np.array([*state.tool_pos_m[:2], state.cube_pos_m[2]]), gripper_pct=-100.0)
            case Phase.LIFT:
                return self._towards(state, state.tool_pos_m + np.array([0.0, 0.0, self._scale_m]), gripper_pct=-100.0)

    def _advance(self, state: PrivilegedState) -> None:
        """Change phase where the state says so."""
        offset = state.cube_pos_m - state.tool_pos_m
        aside_m = float(np.hypot(offset[0], offset[1]))
        match self.phase:
            case Phase.APPROACH if is_held(state):  # taken over with the cube already grasped
                self.phase = Phase.LIFT
            case Phase.APPROACH if aside_m < _ALIGNED_M and state.gripper_pct > self._open_pct - self._gripper_step_pct:
                self.phase = Phase.DESCEND
            case Phase.DESCEND if aside_m > _LOST_M:
                self.phase = Phase.APPROACH
            case Phase.DESCEND if aside_m < _ALIGNED_M and abs(float(offset[2])) < _AT_HEIGHT_M:
                self.phase, self._closing_steps = Phase.CLOSE, 0
            case Phase.CLOSE if float(np.linalg.norm(offset)) > _DROPPED_M or self._closing_steps > _MAX_CLOSING_STEPS:
                self.phase = Phase.APPROACH
            case Phase.CLOSE if self._closing_steps >= 2 and abs(state.gripper_pct - self._last_gripper_pct) < _JAW_STILL_PCT:
                self.phase = Phase.LIFT
            case Phase.LIFT if float(np.linalg.norm(offset)) > _DROPPED_M:
                self.phase = Phase.APPROACH

    def _approach_point(self, state: PrivilegedState) -> NDArray[np.floating[Any]]:
        """Return the point over the cube; from low and aside, first the way up."""
        over = state.cube_pos_m + np.array([0.0, 0.0, _HOVER_M])
        aside_m = float(np.hypot(*(over - state.tool_pos_m)[:2]))
        if aside_m > _LOST_M and state.tool_pos_m[2] < over[2] - self._scale_m:
            return np.array([*state.tool_pos_m[:2], over[2]])
        return over

    def _towards(self, state: PrivilegedState, target_m: NDArray[np.floating[Any]], gripper_pct: float | None = None) -> Action:
        action = list((target_m - state.tool_pos_m) / self._scale_m)
        if gripper_pct is not None:
            action.append((gripper_pct - state.gripper_pct) / self._gripper_step_pct)
        return np.clip(action, -1.0, 1.0).astype(np.float32)
