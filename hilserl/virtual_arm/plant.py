"""The mechanics: MuJoCo's SO-101 on its table, driven by six motors and pushed by a hand."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.errors import SimulationError
from hilserl.robot.mujoco_import import mujoco
from hilserl.sim.scene import CUBE_HALF_M, Scene, load_scene

Array = NDArray[np.floating[Any]]

JOINTS = 6
REST_RAD = (0.0, -1.745, 1.59, 1.2, 0.0, -0.01)
"""Folded on itself: stays there without torque."""

PHYSICS_HZ = 200.0
_HAND_STIFFNESS, _HAND_DAMPING = 200.0, 4.0  # N m/rad, N m s/rad
_FAR_AWAY_M = (-0.35, -0.35, CUBE_HALF_M)


@dataclass(frozen=True)
class Command:
    """What one motor does during a step.

    Attributes:
        target_rad: Where the position loop pulls the joint [rad]; None: the motor is off.
        gain: Of the position loop, 1 as the model has it.
        max_torque_nm: What the motor can give now [N m].
    """

    target_rad: float | None
    gain: float = 1.0
    max_torque_nm: float = 0.0


class Plant:
    """One arm in MuJoCo. Not thread-safe.

    Attributes:
        timestep_s: Length of a step [s].
        lower_rad: Lower joint limits [rad], shape (6,).
        upper_rad: Upper joint limits [rad], shape (6,).
        scene: What it is built from.
        data: `mujoco.MjData`, to draw it.
        jammed: Joints that something blocks.
    """

    def __init__(self, physics_hz: float = PHYSICS_HZ, start_rad: ArrayLike = REST_RAD) -> None:
        self.scene: Scene = load_scene({}, physics_hz)
        self._model = copy.copy(self.scene.model)  # its gains follow the servos
        self.data: Any = mujoco.MjData(self._model)
        self.timestep_s = float(self._model.opt.timestep)
        self.lower_rad: Array = self._model.jnt_range[:JOINTS, 0].copy()
        self.upper_rad: Array = self._model.jnt_range[:JOINTS, 1].copy()
        self.jammed: set[int] = set()
        self._stiffness, self._damping = float(self._model.actuator_gainprm[0, 0]), float(-self._model.actuator_biasprm[0, 2])
        self.place(start_rad)
        self.place_cube(_FAR_AWAY_M, 0.0)

    @property
    def joint_pos_rad(self) -> Array:
        """Joint angles [rad], shape (6,)."""
        positions: Array = self.data.qpos[:JOINTS].copy()
        return positions

    @property
    def joint_vel_rad_s(self) -> Array:
        """Joint velocities [rad/s], shape (6,)."""
        velocities: Array = self.data.qvel[:JOINTS].copy()
        return velocities

    @property
    def cube(self) -> tuple[Array, float]:
        """Position [m], shape (3,), and yaw [rad] of the cube."""
        pose = self.data.qpos[self.scene.cube_qpos : self.scene.cube_qpos + 7]
        yaw = math.atan2(2 * (pose[3] * pose[6] + pose[4] * pose[5]), 1 - 2 * (pose[5] ** 2 + pose[6] ** 2))
        return pose[:3].copy(), yaw

    def place(self, joint_pos_rad: ArrayLike) -> None:
        """Put the arm somewhere, at rest [rad], shape (6,)."""
        self.data.qpos[:JOINTS] = joint_pos_rad
        self.data.qvel[:JOINTS] = 0.0
        mujoco.mj_forward(self._model, self.data)

    def place_cube(self, position_m: ArrayLike, yaw_rad: float) -> None:
        """Put the cube somewhere [m], shape (3,), upright and at rest."""
        start = self.scene.cube_qpos
        self.data.qpos[start : start + 3] = position_m
        self.data.qpos[start + 3 : start + 7] = math.cos(yaw_rad / 2), 0.0, 0.0, math.sin(yaw_rad / 2)
        self.data.qvel[JOINTS : JOINTS + 6] = 0.0
        mujoco.mj_forward(self._model, self.data)

    def step(
        self, commands: list[Command], hand_rad: Array | None = None, hand_rad_s: ArrayLike = 0.0, hand_torque_nm: float = 0.0
    ) -> Array:
        """Advance one timestep.

        Args:
            commands: For each motor.
            hand_rad: Where a hand pulls the joints [rad], shape (6,); NaN: it leaves that one alone.
            hand_rad_s: How fast it moves [rad/s], shape (6,).
            hand_torque_nm: The most that the hand gives to a joint [N m].

        Returns:
            Torque of each motor [N m], shape (6,).

        Raises:
            SimulationError: The physics diverged.
        """
        model, data = self._model, self.data
        for index, command in enumerate(commands):
            on = command.target_rad is not None
            stiffness = self._stiffness * command.gain if on else 0.0
            model.actuator_gainprm[index, 0] = stiffness
            model.actuator_biasprm[index, 1] = -stiffness
            model.actuator_biasprm[index, 2] = -self._damping if on else 0.0
            model.actuator_forcerange[index] = -command.max_torque_nm, command.max_torque_nm
            data.ctrl[index] = min(max(command.target_rad, -math.pi), math.pi) if command.target_rad is not None else 0.0
        data.qfrc_applied[:JOINTS] = 0.0 if hand_rad is None else self._hand(hand_rad, hand_rad_s, hand_torque_nm)
        blocked = [(index, data.qpos[index]) for index in sorted(self.jammed)]
        mujoco.mj_step(model, data)
        for index, position in blocked:
            data.qpos[index], data.qvel[index] = position, 0.0
        if not math.isfinite(data.qpos.sum()):
            raise SimulationError("the physics of the virtual arm diverged. Start it again; report it with what was sent to it.")
        torques: Array = data.actuator_force[:JOINTS].copy()
        return torques

    def _hand(self, hand_rad: Array, hand_rad_s: ArrayLike, most_nm: float) -> Array:
        data = self.data
        pull = _HAND_STIFFNESS * (hand_rad - data.qpos[:JOINTS]) + _HAND_DAMPING * (hand_rad_s - data.qvel[:JOINTS])
        carried = pull + data.qfrc_bias[:JOINTS]
        torque: Array = np.where(np.isnan(hand_rad), 0.0, np.clip(carried, -most_nm, most_nm))
        return torque
