"""What only a simulation knows: the view of the scripted expert and the simulated human."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TaskConfig
from hilserl.sim.scene import CUBE_HALF_M

Array = NDArray[np.floating[Any]]

_OFF_TABLE_M = 0.004
_BETWEEN_JAWS_M = 0.03
_FAR_M = 0.25  # a tool further away than this gains nothing in the potential by coming nearer


@dataclass(frozen=True)
class PrivilegedState:
    """The true state of the scene.

    Attributes:
        tool_pos_m: Tool position, base frame [m], shape (3,).
        cube_pos_m: Centre of the cube, base frame [m], shape (3,).
        cube_yaw_rad: Direction of the cube around the vertical [rad]; a quarter turn looks the same.
        joint_pos_rad: Measured joint angles [rad], shape (6,).
        gripper_pct: Opening of the jaws, 0 closed to 100 open [%].
    """

    tool_pos_m: Array
    cube_pos_m: Array
    cube_yaw_rad: float
    joint_pos_rad: Array
    gripper_pct: float

    @property
    def cube_height_m(self) -> float:
        """How far the cube is above its place on the table [m]."""
        return float(self.cube_pos_m[2]) - CUBE_HALF_M


def reach_target_m(task: TaskConfig, state: PrivilegedState) -> Array:
    """Return the point above the cube that the tool has to reach, base frame [m], shape (3,)."""
    return state.cube_pos_m + np.array([0.0, 0.0, task.reach_height_m])


def succeeds(task: TaskConfig, state: PrivilegedState) -> bool:
    """Tell whether the task's condition holds in this state."""
    if task.type == "reach":
        return float(np.linalg.norm(state.tool_pos_m - reach_target_m(task, state))) <= task.reach_tolerance_m
    return state.cube_height_m >= task.lift_height_m


def potential(task: TaskConfig, state: PrivilegedState) -> float:
    """Say how near the task is to being done, from -1 (far) to 0 (done), for `task.reward: shaped`.

    `reach` counts the distance to the target. `lift` has two stages: up to -0.5 the tool comes to the cube, and
    from there the held cube rises.
    """
    if task.type == "reach":
        return -min(1.0, float(np.linalg.norm(state.tool_pos_m - reach_target_m(task, state))) / _FAR_M)
    if is_held(state):
        return -0.5 * (1.0 - min(1.0, max(0.0, state.cube_height_m / task.lift_height_m)))
    return -0.5 - 0.5 * min(1.0, float(np.linalg.norm(state.tool_pos_m - state.cube_pos_m)) / _FAR_M)


def is_held(state: PrivilegedState) -> bool:
    """Tell whether the cube is off the table, between the jaws."""
    return state.cube_height_m > _OFF_TABLE_M and float(np.linalg.norm(state.cube_pos_m - state.tool_pos_m)) < _BETWEEN_JAWS_M
