"""The gate that every command passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hilserl.config.environment import RobotConfig
from hilserl.errors import RobotError
from hilserl.robot.kinematics import HOME_RAD, Kinematics
from hilserl.robot.limits import Clips, Limits

DT_S = 0.02
HOME = np.array(HOME_RAD)
ROBOT = RobotConfig()
STEP_RAD = ROBOT.max_joint_speed_rad_s * DT_S
KINEMATICS = Kinematics()


@pytest.fixture
def limits() -> Limits:
    return Limits(ROBOT, KINEMATICS)


def near_home(**offsets: float) -> np.ndarray:
    joints = HOME.copy()
    for name, offset in offsets.items():
        joints[["pan", "lift", "elbow", "wrist", "roll", "jaw"].index(name)] += offset
    return joints


def test_what_is_allowed_passes_unchanged(limits: Limits) -> None:
    target = near_home(pan=0.02, elbow=0.02)
    command, clips = limits.clamp(target, HOME, HOME, DT_S)
    np.testing.assert_array_equal(command, target)
    assert clips == Clips() and clips.total == 0


@pytest.mark.failure("R22")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_not_finite_stops(limits: Limits, value: float) -> None:
    target = HOME.copy()
    target[2] = value
    with pytest.raises(RobotError, match=r"elbow_flex.*not finite"):
        limits.clamp(target, HOME, HOME, DT_S)


@pytest.mark.failure("R22")
def test_a_step_is_no_longer_than_the_speed_allows_and_counted(limits: Limits) -> None:
    command, clips = limits.clamp(near_home(pan=1.0), HOME, HOME, DT_S)
    assert command[0] == pytest.approx(STEP_RAD)
    assert clips.speed == 1 and clips.lead == 1


@pytest.mark.failure("R04")
def test_joints_stop_before_the_end_of_their_range_and_the_jaw_may_close(limits: Limits) -> None:
    last = np.array([1.89, -0.6, 0.6, 1.35, 0.0, -0.15])
    command, clips = limits.clamp(last + np.array([0.05, 0, 0, 0, 0, -0.05]), last, last, DT_S, workspace=False)
    margin = ROBOT.safety.joint_margin_rad
    assert command[0] == pytest.approx(KINEMATICS.upper_rad[0] - margin)
    assert command[5] == pytest.approx(KINEMATICS.lower_rad[5])
    assert clips.joint == 1


def test_calibrated_ranges_hold_where_they_are_narrower() -> None:
    upper = KINEMATICS.upper_rad.copy()
    upper[1] = -0.59
    narrow = Limits(ROBOT, KINEMATICS, upper_rad=upper)
    command, clips = narrow.clamp(near_home(lift=0.03), HOME, HOME, DT_S)
    assert command[1] == pytest.approx(HOME[1])  # -0.6, and the margin begins at -0.61: it stays and goes no farther
    assert clips.joint == 1


def test_a_command_is_never_far_ahead_of_the_arm(limits: Limits) -> None:
    command = HOME.copy()
    for _ in range(100):  # the arm does not move
        command, clips = limits.clamp(near_home(pan=1.0), command, HOME, DT_S, workspace=False)
    assert command[0] == pytest.approx(ROBOT.safety.max_lead_rad)
    assert clips.lead == 1


def test_a_joint_that_does_not_answer_still_gets_a_bounded_command(limits: Limits) -> None:
    measured = HOME.copy()
    measured[0] = np.nan
    command, _ = limits.clamp(near_home(pan=1.0), HOME, measured, DT_S)
    assert command[0] == pytest.approx(STEP_RAD)


@pytest.mark.failure("R22")
def test_the_tool_stops_at_the_workspace_and_comes_back(limits: Limits) -> None:
    command, clips = HOME.copy(), Clips()
    for _ in range(200):
        command, clipped = limits.clamp(near_home(pan=1.5), command, command, DT_S)
        clips += clipped
    tool, _ = KINEMATICS.forward(command)
    assert tool[1] == pytest.approx(-0.15, abs=2e-3) or tool[1] == pytest.approx(0.15, abs=2e-3)
    assert clips.workspace > 100
    back, clipped = limits.clamp(HOME, command, command, DT_S)
    assert clipped.workspace == 0 and abs(back[0]) < abs(command[0])


def test_an_arm_outside_may_come_nearer_and_not_farther_away(limits: Limits) -> None:
    outside = near_home(pan=1.2)
    farther, clips = limits.clamp(near_home(pan=1.25), outside, outside, DT_S)
    assert farther[0] == pytest.approx(1.2, abs=1e-3) and clips.workspace == 1
    nearer, clips = limits.clamp(near_home(pan=1.15), outside, outside, DT_S)
    assert nearer[0] == pytest.approx(1.15) and clips.workspace == 0


joints = arrays(np.float64, 6, elements=st.floats(-10, 10))


@given(target=joints, seed=st.integers(0, 2**32 - 1))
def test_no_command_breaks_a_limit(target: np.ndarray, seed: int) -> None:
    limits = Limits(ROBOT, KINEMATICS)
    rng = np.random.default_rng(seed)
    last = rng.uniform(limits.lower_rad, limits.upper_rad)
    measured = np.clip(last + rng.normal(0, 0.05, 6), KINEMATICS.lower_rad, KINEMATICS.upper_rad)
    command, clips = limits.clamp(target, last, measured, DT_S)
    assert (np.abs(command - last) <= STEP_RAD + 1e-9).all()
    assert (command >= limits.lower_rad - 1e-9).all() and (command <= limits.upper_rad + 1e-9).all()
    assert clips.total > 0 or np.allclose(command, target)
