"""The action codec: the only place that turns `[-1, 1]` into motion and motion into `[-1, 1]`.

An action is `delta_x, delta_y, delta_z[, gripper]`: the tool's displacement in the base frame and
the jaw's, each relative to what is *measured* now, so an error never accumulates (FAILURES R02).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.units import GRIPPER, GRIPPER_SPAN_RAD, gripper_to_rad

Array = NDArray[np.floating[Any]]
Action = NDArray[np.float32]

# Beyond this, the arm does not reach the target, and what it can do is what gets stored.
_REACHED_M = 5e-4
# Turning the tool towards vertical must not outrun the servos (5.4 rad/s at no load).
_MAX_TURN_RAD_S = 2.0


@dataclass(frozen=True)
class JointTarget:
    """What an action means for the joints.

    Attributes:
        joint_target_rad: Joint angles to command [rad], shape (6,), inside the limits.
        executed_action: The action after all clipping, in the policy's space, shape (A,): decoding
            it at the same joint angles gives the same command.
        tool_target_m: Tool position aimed for, base frame [m], shape (3,), inside the workspace.
        residual_m: Distance between that and what the joint target reaches [m].
    """

    joint_target_rad: Array
    executed_action: Action
    tool_target_m: Array
    residual_m: float


class ActionCodec:
    """Decode actions into joint targets and encode joint targets as actions, for one run's config."""

    def __init__(self, config: TrainConfig, kinematics: Kinematics, *, max_turn_rad_s: float = _MAX_TURN_RAD_S) -> None:
        """Make the codec of one arm; `max_turn_rad_s` bounds what joints do just to turn the tool to vertical [rad/s]."""
        robot = config.robot
        self.action_names = config.action_names
        self._kinematics = kinematics
        self._has_gripper = "gripper" in self.action_names
        self._scale_m = robot.action_scale_m
        self._gripper_step_rad = robot.max_gripper_step_pct / 100.0 * GRIPPER_SPAN_RAD
        self._max_turn_rad = max_turn_rad_s / robot.control_hz
        self._held_gripper_rad = gripper_to_rad(robot.reset_gripper_pct)
        self._workspace_min_m = np.array(robot.workspace_min_m)
        self._workspace_max_m = np.array(robot.workspace_max_m)

    @property
    def size(self) -> int:
        """Number of action dimensions."""
        return len(self.action_names)

    def decode(self, action: ArrayLike, joint_pos_rad: Array, gripper_target_rad: float | None = None) -> JointTarget:
        """Turn an action into joint targets, clipped to what is allowed and possible.

        Args:
            action: Policy action, shape (A,); values outside [-1, 1] are clipped.
            joint_pos_rad: Measured joint angles [rad], shape (6,).
            gripper_target_rad: Where a task without a gripper action holds the jaw [rad]; None: at
                the configured reset opening.

        Raises:
            RobotError: The action or the measurement is not finite, or has the wrong shape.
        """
        wanted = self._checked(action, joint_pos_rad)
        tool, _ = self._kinematics.forward(joint_pos_rad)
        aimed = tool + wanted[:3] * self._scale_m
        inside = np.minimum(np.maximum(aimed, self._workspace_min_m), self._workspace_max_m)
        # A tool that is outside comes back one step at a time.
        target = np.minimum(np.maximum(inside, tool - self._scale_m), tool + self._scale_m)
        joints, residual_m = self._kinematics.inverse_with_residual(joint_pos_rad, target, self._max_turn_rad)
        executed = wanted.copy()
        if residual_m > _REACHED_M:
            reached, _ = self._kinematics.forward(joints)
            executed[:3] = np.clip((reached - tool) / self._scale_m, -1.0, 1.0)
        else:
            executed[:3] = np.where(target == aimed, wanted[:3], (target - tool) / self._scale_m)
        if self._has_gripper:
            joints[GRIPPER], executed[3] = self._decode_gripper(float(wanted[3]), float(joint_pos_rad[GRIPPER]))
        else:
            held = self._held_gripper_rad if gripper_target_rad is None else gripper_target_rad
            joints[GRIPPER] = min(max(held, self._kinematics.lower_rad[GRIPPER]), self._kinematics.upper_rad[GRIPPER])
        return JointTarget(joints, executed.astype(np.float32), target, residual_m)

    def encode(self, joint_pos_rad: Array, joint_target_rad: Array) -> tuple[Action, float]:
        """Express a joint-space command as an action, through the same kinematics.

        Args:
            joint_pos_rad: Measured joint angles [rad], shape (6,).
            joint_target_rad: Commanded joint angles [rad], shape (6,).

        Returns:
            Action, shape (A,), clipped to [-1, 1]; and the residual [m]: how far the commanded tool
            motion is longer than an action can express.

        Raises:
            RobotError: An input is not finite.
        """
        if not (np.isfinite(joint_pos_rad).all() and np.isfinite(joint_target_rad).all()):
            raise RobotError(
                f"cannot encode joints {joint_pos_rad} -> {joint_target_rad} rad: not finite. Check the dataset's joint columns."
            )
        tool, _ = self._kinematics.forward(joint_pos_rad)
        goal, _ = self._kinematics.forward(joint_target_rad)
        motion = (goal - tool) / self._scale_m
        action = np.empty(self.size)
        action[:3] = np.clip(motion, -1.0, 1.0)
        if self._has_gripper:
            action[3] = np.clip((joint_target_rad[GRIPPER] - joint_pos_rad[GRIPPER]) / self._gripper_step_rad, -1.0, 1.0)
        residual_m = float(np.linalg.norm(motion - action[:3])) * self._scale_m
        return action.astype(np.float32), residual_m

    def _checked(self, action: ArrayLike, joint_pos_rad: Array) -> Array:
        wanted = np.asarray(action, dtype=np.float32).astype(np.float64)  # as it will be stored
        if wanted.shape != (self.size,):
            raise RobotError(f"action has shape {wanted.shape}, this task acts in ({self.size},) = {list(self.action_names)}.")
        if not np.isfinite(wanted).all():
            named = dict(zip(self.action_names, wanted.tolist(), strict=True))
            raise RobotError(f"action {named} is not finite. The arm was not moved; check the policy.")
        if not np.isfinite(joint_pos_rad).all():
            raise RobotError(f"measured joints {joint_pos_rad} rad are not finite. The arm was not moved.")
        return np.clip(wanted, -1.0, 1.0)

    def _decode_gripper(self, wanted: float, measured_rad: float) -> tuple[float, float]:
        """Return the jaw's target [rad] and the executed action."""
        aimed = measured_rad + wanted * self._gripper_step_rad
        target = min(max(aimed, self._kinematics.lower_rad[GRIPPER]), self._kinematics.upper_rad[GRIPPER])
        if target == aimed:
            return target, wanted
        return float(target), float(np.clip((target - measured_rad) / self._gripper_step_rad, -1.0, 1.0))
