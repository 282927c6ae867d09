"""The one place where LeRobot's units meet ours (FAILURES R01).

LeRobot 0.6.1 with `use_degrees`: five body joints in degrees, the gripper on a 0-100 scale
(0 closed, 100 open). Inside this project: radians for every joint. The MJCF's zero is the
middle of each joint's range, as is LeRobot's, so body joints differ by the factor only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.errors import RobotError

Array = NDArray[np.floating[Any]]

# Jaw angle on the 0-100 scale: so101_nexus `lerobot_adapter/normalization.py`, joint range of the MJCF.
GRIPPER_CLOSED_RAD = -0.1745
GRIPPER_SPAN_RAD = 1.9199
JOINT_COUNT = 6
GRIPPER = 5


def gripper_to_rad(gripper_pct: float) -> float:
    """Convert the gripper's opening [0-100 %] to its joint angle [rad]."""
    return GRIPPER_CLOSED_RAD + gripper_pct / 100.0 * GRIPPER_SPAN_RAD


def gripper_to_pct(gripper_rad: float) -> float:
    """Convert the gripper's joint angle [rad] to its opening [0-100 %]."""
    return (gripper_rad - GRIPPER_CLOSED_RAD) / GRIPPER_SPAN_RAD * 100.0


def joints_from_lerobot(values: ArrayLike) -> Array:
    """Convert LeRobot joint values to radians.

    Args:
        values: Body joints [deg], then the gripper [0-100 %], shape (..., 6).

    Returns:
        Joint angles [rad], shape (..., 6), float64.

    Raises:
        RobotError: The last axis does not hold six joints.
    """
    lerobot = _six_joints(values)
    joints = np.deg2rad(lerobot)
    joints[..., GRIPPER] = GRIPPER_CLOSED_RAD + lerobot[..., GRIPPER] / 100.0 * GRIPPER_SPAN_RAD
    return joints


def joints_to_lerobot(joint_rad: ArrayLike) -> Array:
    """Convert radians to LeRobot joint values.

    Args:
        joint_rad: Joint angles [rad], shape (..., 6).

    Returns:
        Body joints [deg], then the gripper [0-100 %], shape (..., 6), float64.

    Raises:
        RobotError: The last axis does not hold six joints.
    """
    joints = _six_joints(joint_rad)
    values = np.rad2deg(joints)
    values[..., GRIPPER] = (joints[..., GRIPPER] - GRIPPER_CLOSED_RAD) / GRIPPER_SPAN_RAD * 100.0
    return values


def _six_joints(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != JOINT_COUNT:
        raise RobotError(
            f"joint values have shape {array.shape}, an SO-101 has {JOINT_COUNT} joints on the last axis: "
            "shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll, gripper."
        )
    return array
