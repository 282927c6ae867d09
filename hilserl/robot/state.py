"""Assemble `observation.state` from joints: the same function for live frames and datasets (D04)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.kinematics import Kinematics, euler
from hilserl.schema import state_components

Array = NDArray[np.floating[Any]]


def assemble_state(
    config: TrainConfig,
    kinematics: Kinematics,
    joint_pos_rad: ArrayLike,
    joint_vel: ArrayLike,
    cube: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Assemble the state vector in the order of `schema.state_components(config)`.

    Args:
        config: The run's configuration: which components, in which order.
        kinematics: The one kinematics.
        joint_pos_rad: Measured joint angles [rad], shape (6,).
        joint_vel: Joint velocities from `joint_velocity` [rad/s], shape (6,).
        cube: Position of the cube in the base frame [m], shape (3,); for `cube_from_tool` only,
            which is the cube minus the tool along the axes of the base frame.

    Returns:
        State, shape (S,), float32.

    Raises:
        RobotError: `cube_from_tool` is configured and no cube was given.
    """
    tool, rotation = kinematics.forward(joint_pos_rad)
    parts: list[ArrayLike] = []
    for component in state_components(config):
        match component.name:
            case "joint_pos":
                parts.append(joint_pos_rad)
            case "joint_vel":
                parts.append(joint_vel)
            case "ee_pos":
                parts.append(tool)
            case "ee_euler":
                parts.append(euler(rotation))
            case "cube_from_tool":
                if cube is None:
                    raise RobotError(
                        "`cube_from_tool` needs the cube's position, which only a simulation knows. Set `observation.privileged: false`."
                    )
                parts.append(np.asarray(cube) - tool)
            case name:
                raise RobotError(f"state component {name!r} has no computation; add it to hilserl/robot/state.py.")
    return np.concatenate(parts).astype(np.float32)


def joint_velocity(joint_pos_rad: ArrayLike, previous_rad: ArrayLike | None, control_hz: float) -> Array:
    """Estimate joint velocities over the last control period; zero at the start of an episode.

    Args:
        joint_pos_rad: Joint angles now [rad], shape (6,).
        previous_rad: Joint angles one control step earlier [rad], shape (6,), or None at the start.
        control_hz: Control rate [Hz].

    Returns:
        Velocities [rad/s], shape (6,).
    """
    now = np.asarray(joint_pos_rad, dtype=np.float64)
    return np.zeros_like(now) if previous_rad is None else (now - np.asarray(previous_rad)) * control_hz
