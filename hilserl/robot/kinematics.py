"""Forward and inverse kinematics of the SO-101, on its MuJoCo model.

Frames: everything is in the arm's base frame (x forward, z up). The tool frame is the MJCF site
`gripperframe` *between the jaws*, with z along the approach direction; the tip of the fixed jaw
(LeRobot's `gripper_frame_link`, 19.9 mm away) is `fixed_fingertip`.

Inverse kinematics is for position. The four joints before the wrist roll move, wrist roll and
gripper are held. Four joints for three numbers leave one freedom, used to turn the tool towards
vertical as far as position and limits allow.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.errors import KinematicsError
from hilserl.robot.least_squares import Vector, limited_step
from hilserl.robot.model import FINGERTIP_SITE, TOOL_SITE, skeleton_model
from hilserl.robot.mujoco_import import mujoco
from hilserl.schema import JOINT_NAMES

Array = NDArray[np.floating[Any]]

POSITION_JOINTS = 4
"""Joints that inverse kinematics moves: shoulder_pan, shoulder_lift, elbow_flex, wrist_flex."""

HOME_RAD = (0.0, -0.6, 0.6, 1.35, 0.0, 0.0)
"""A folded, tool-down posture from which every reachable point is solved well."""

_DAMPING = 0.01
_TOLERANCE_M = 2e-5
_MIN_GAIN = 0.99  # an iteration that gains less than 1 % ends the search: the point is out of reach
_MAX_ITERATIONS = 30
_VERTICAL_ITERATIONS = 5
_VERTICAL_TOLERANCE_RAD = 0.01
_MAX_TURN_RAD = 0.3


class Kinematics:
    """Kinematics of one SO-101. Not thread-safe: it owns scratch memory.

    Attributes:
        lower_rad: Lower joint limits [rad], shape (6,): the stricter of joint and actuator range.
        upper_rad: Upper joint limits [rad], shape (6,).
    """

    def __init__(self, lower_rad: ArrayLike | None = None, upper_rad: ArrayLike | None = None) -> None:
        """Compute with the model's limits, or stricter ones.

        Args:
            lower_rad: Lower limits of one arm [rad], shape (6,); None: the model's.
            upper_rad: Upper limits [rad], shape (6,); None: the model's.
        """
        model = _model()
        if tuple(model.joint(i).name for i in range(model.njnt)) != JOINT_NAMES:
            raise KinematicsError(
                f"the SO-101 model has joints {[model.joint(i).name for i in range(model.njnt)]}, expected {list(JOINT_NAMES)}."
            )
        self._model = model
        self._data = mujoco.MjData(model)
        self._tool = model.site(TOOL_SITE).id
        self._fingertip = model.site(FINGERTIP_SITE).id
        # MuJoCo's wrist_roll actuator accepts 0.1 rad more than the joint.
        self.lower_rad: Array = np.maximum(model.jnt_range[:, 0], model.actuator_ctrlrange[:, 0])
        self.upper_rad: Array = np.minimum(model.jnt_range[:, 1], model.actuator_ctrlrange[:, 1])
        self.lower_rad = self.lower_rad if lower_rad is None else np.maximum(self.lower_rad, lower_rad)
        self.upper_rad = self.upper_rad if upper_rad is None else np.minimum(self.upper_rad, upper_rad)
        self._qpos = self._data.qpos
        self._tool_pos = self._data.site_xpos[self._tool]
        self._tool_mat = self._data.site_xmat[self._tool]
        self._anchors = self._data.xanchor[:POSITION_JOINTS]
        self._axes = self._data.xaxis[:POSITION_JOINTS]
        self._limits = list(zip(self.lower_rad[:POSITION_JOINTS].tolist(), self.upper_rad[:POSITION_JOINTS].tolist(), strict=True))

    def forward(self, joint_pos_rad: ArrayLike) -> tuple[Array, Array]:
        """Compute the tool's pose in the base frame.

        Args:
            joint_pos_rad: Joint angles [rad], shape (6,).

        Returns:
            Position [m], shape (3,), and rotation matrix R_base_tool, shape (3, 3).
        """
        self._place(joint_pos_rad)
        return self._tool_pos.copy(), self._tool_mat.reshape(3, 3).copy()

    def fixed_fingertip(self, joint_pos_rad: ArrayLike) -> Array:
        """Compute the position of the fixed jaw's tip in the base frame [m], shape (3,)."""
        self._place(joint_pos_rad)
        tip: Array = self._data.site_xpos[self._fingertip].copy()
        return tip

    def jacobian(self, joint_pos_rad: ArrayLike) -> Array:
        """Compute the derivative of the tool's position by the joints [m/rad], shape (3, 6)."""
        self._place(joint_pos_rad)
        jacobian: Array = np.cross(self._data.xaxis, self._tool_pos - self._data.xanchor).T
        jacobian[:, 5] = 0.0  # the jaw moves itself, not the tool
        return jacobian

    def clamp_to_limits(self, joint_pos_rad: ArrayLike) -> Array:
        """Clip joint angles [rad], shape (6,), to the limits."""
        clipped: Array = np.minimum(np.maximum(joint_pos_rad, self.lower_rad), self.upper_rad)
        return clipped

    def inverse(self, joint_pos_rad: ArrayLike, target_pos_m: ArrayLike) -> Array:
        """Find joint angles that bring the tool to a position, close to the present ones.

        Args:
            joint_pos_rad: Where to start from [rad], shape (6,). Wrist roll and gripper are held.
            target_pos_m: Tool position in the base frame [m], shape (3,).

        Returns:
            Joint angles [rad], shape (6,), inside the limits. For a point out of reach: the
            nearest found; `inverse_with_residual` tells how near.
        """
        return self.inverse_with_residual(joint_pos_rad, target_pos_m)[0]

    def inverse_with_residual(
        self, joint_pos_rad: ArrayLike, target_pos_m: ArrayLike, max_turn_rad: float = math.inf
    ) -> tuple[Array, float]:
        """Solve as `inverse`; also return the remaining distance to the target [m].

        Damped least squares with an active set: a joint that would pass its limit is put on it,
        and the others are solved again for what is left.

        Args:
            joint_pos_rad: As for `inverse` [rad], shape (6,).
            target_pos_m: As for `inverse` [m], shape (3,).
            max_turn_rad: How far joints may move just to turn the tool to vertical [rad]: a control
                step has no time for more.

        Raises:
            KinematicsError: An input is not finite.
        """
        start = self.clamp_to_limits(joint_pos_rad)
        x, y, z = map(float, np.asarray(target_pos_m, dtype=np.float64))
        if not (math.isfinite(x + y + z) and math.isfinite(start.sum())):
            raise KinematicsError(f"inverse kinematics got joints {joint_pos_rad!r} rad and target {target_pos_m!r} m: not finite.")
        self._qpos[:] = start
        joints = start[:POSITION_JOINTS].tolist()
        turning, best_m, turn_left_rad = True, math.inf, max_turn_rad
        for iteration in range(_MAX_ITERATIONS + 1):
            self._qpos[:POSITION_JOINTS] = joints
            mujoco.mj_kinematics(self._model, self._data)
            tool_x, tool_y, tool_z = self._tool_pos.tolist()
            error = (x - tool_x, y - tool_y, z - tool_z)
            distance_m = math.hypot(*error)
            solved_or_stalled = not turning and (distance_m < _TOLERANCE_M or distance_m > _MIN_GAIN * best_m)
            if solved_or_stalled or iteration == _MAX_ITERATIONS:
                break
            best_m = math.inf if turning else distance_m
            turning = turning and iteration < _VERTICAL_ITERATIONS
            turn = self._turn_to_vertical if turning else None
            most = min(_MAX_TURN_RAD, turn_left_rad)
            joints, turned_rad = limited_step(joints, self._position_rows(), error, self._limits, _DAMPING, turn, most)
            turn_left_rad -= turned_rad
            turning = turned_rad > _VERTICAL_TOLERANCE_RAD and turn_left_rad > _VERTICAL_TOLERANCE_RAD
        start[:POSITION_JOINTS] = joints
        return start, distance_m

    def _position_rows(self) -> list[Vector]:
        """Compute the position Jacobian's columns, one per moving joint [m/rad]."""
        tool_x, tool_y, tool_z = self._tool_pos.tolist()
        rows = []
        for (ax, ay, az), (px, py, pz) in zip(self._axes.tolist(), self._anchors.tolist(), strict=True):
            dx, dy, dz = tool_x - px, tool_y - py, tool_z - pz
            rows.append((ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx))
        return rows

    def _turn_to_vertical(self) -> tuple[list[float], float]:
        """Tell how fast each joint turns the tool to point down, and by how much it should [rad].

        Returns:
            Rate of each moving joint about the tilt axis times sin(tilt), and sin(tilt) squared.
        """
        approach_x, approach_y, _ = self._tool_mat[2::3].tolist()
        tilt_x, tilt_y = -approach_y, approach_x  # approach x down
        return [axis[0] * tilt_x + axis[1] * tilt_y for axis in self._axes.tolist()], tilt_x * tilt_x + tilt_y * tilt_y

    def _place(self, joint_pos_rad: ArrayLike) -> None:
        self._qpos[:] = joint_pos_rad
        mujoco.mj_kinematics(self._model, self._data)


def euler(rotation: Array) -> Array:
    """Express a tool orientation as roll, pitch, yaw, all zero when the tool points straight down.

    The reference orientation R_down has the tool's z pointing down and its x pointing back, as
    the arm holds it in front of itself. `rotation = R_base_ref @ R_down` with
    `R_base_ref = Rz(yaw) @ Rx(roll) @ Ry(pitch)`: yaw is the direction around the vertical, pitch
    the tilt in the arm's plane, roll the sideways tilt. Singular only at roll = ±90 deg, with the
    tool on its side; the usual order would be singular for a horizontal tool, which this arm reaches.

    Args:
        rotation: R_base_tool, shape (3, 3).

    Returns:
        Roll, pitch, yaw [rad], shape (3,), each in [-pi, pi].
    """
    relative = rotation * _DOWN_SIGNS  # R_down is diagonal
    roll = math.asin(min(1.0, max(-1.0, relative[2, 1])))
    pitch = math.atan2(-relative[2, 0], relative[2, 2])
    yaw = math.atan2(-relative[0, 1], relative[1, 1])
    return np.array([roll, pitch, yaw])


@lru_cache(maxsize=1)
def _model() -> Any:
    return skeleton_model()


_DOWN_SIGNS = np.array([-1.0, 1.0, -1.0])
