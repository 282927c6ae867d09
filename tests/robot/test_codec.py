import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilserl.config.models import RobotConfig, TaskConfig, TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.codec import ActionCodec
from hilserl.robot.kinematics import HOME_RAD, Kinematics
from hilserl.robot.units import gripper_to_pct, gripper_to_rad

LIFT = TrainConfig(task=TaskConfig(type="lift"))
CODEC = ActionCodec(LIFT, Kinematics())
unit = st.floats(-1, 1, width=32)


def posture(kinematics, tool=(0.22, 0.0, 0.08), gripper_pct=50.0):
    joints = kinematics.inverse(HOME_RAD, tool)
    joints[5] = gripper_to_rad(gripper_pct)
    return joints


def test_an_action_is_a_displacement_of_the_measured_tool(kinematics):
    joints = posture(kinematics)
    tool, _ = kinematics.forward(joints)
    command = CODEC.decode([1.0, -0.5, 0.25, 0.5], joints)
    moved, _ = kinematics.forward(command.joint_target_rad)
    np.testing.assert_allclose(moved - tool, [0.02, -0.01, 0.005], atol=1e-4)
    assert gripper_to_pct(command.joint_target_rad[5]) == pytest.approx(50.0 + 0.5 * LIFT.robot.max_gripper_step_pct)


@pytest.mark.failure("R06")
@settings(max_examples=60, deadline=None)
@given(st.tuples(unit, unit, unit, unit), st.integers(0, 199))
def test_the_executed_action_decodes_to_the_same_command(postures, action, index):
    joints = CODEC._kinematics.clamp_to_limits(postures[index])
    command = CODEC.decode(action, joints)
    again = CODEC.decode(command.executed_action, joints)
    assert np.abs(command.executed_action).max() <= 1.0
    reached = [CODEC._kinematics.forward(target.joint_target_rad)[0] for target in (command, again)]
    if command.residual_m < 5e-4:
        np.testing.assert_allclose(reached[0], reached[1], atol=5e-5)
    else:  # out of reach: what the arm can do, from another starting guess
        np.testing.assert_allclose(reached[0], reached[1], atol=3e-3)
    assert again.joint_target_rad[5] == pytest.approx(command.joint_target_rad[5], abs=1e-6)


def test_an_action_inside_all_limits_is_stored_unchanged(kinematics):
    action = np.array([0.3, -0.7, 0.1, -0.2], np.float32)
    np.testing.assert_array_equal(CODEC.decode(action, posture(kinematics)).executed_action, action)


@pytest.mark.failure("R06")
def test_the_workspace_clips_and_the_stored_action_says_so(kinematics):
    joints = posture(kinematics, (0.22, 0.145, 0.08))
    command = CODEC.decode([0.0, 1.0, 0.0, 0.0], joints)
    assert command.tool_target_m[1] == pytest.approx(0.15)
    assert command.executed_action[1] == pytest.approx(0.25, abs=0.01)  # 5 of 20 mm
    assert kinematics.forward(command.joint_target_rad)[0][1] == pytest.approx(0.15, abs=1e-4)


@pytest.mark.failure("R06")
def test_beyond_the_arms_reach_the_stored_action_is_what_the_arm_can_do(kinematics):
    joints = posture(kinematics, (0.155, 0.0, 0.12))  # further back is inside the workspace, but the elbow is at its limit
    tool, _ = kinematics.forward(joints)
    command = CODEC.decode([-1.0, 0.0, 0.0, 0.0], joints)
    reached, _ = kinematics.forward(command.joint_target_rad)
    assert command.residual_m > 0.002
    np.testing.assert_allclose(command.executed_action[:3] * LIFT.robot.action_scale_m, reached - tool, atol=1e-6)


def test_a_tool_outside_the_workspace_comes_back_one_step_at_a_time(kinematics):
    joints = posture(kinematics, (0.20, 0.20, 0.08))
    tool, _ = kinematics.forward(joints)
    command = CODEC.decode([0.0, 0.0, 0.0, 0.0], joints)
    assert command.executed_action[1] == pytest.approx(-1.0)
    assert kinematics.forward(command.joint_target_rad)[0][1] == pytest.approx(tool[1] - 0.02, abs=1e-4)


@pytest.mark.failure("R22")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_moves_nothing(kinematics, bad):
    with pytest.raises(RobotError, match=r"'delta_y': (nan|inf|-inf).*not finite"):
        CODEC.decode([0.0, bad, 0.0, 0.0], posture(kinematics))


@pytest.mark.failure("R22")
def test_an_action_out_of_range_is_clipped(kinematics):
    joints = posture(kinematics)
    huge, full = CODEC.decode([7.0, -3.0, 0.0, 2.0], joints), CODEC.decode([1.0, -1.0, 0.0, 1.0], joints)
    np.testing.assert_array_equal(huge.joint_target_rad, full.joint_target_rad)
    np.testing.assert_array_equal(huge.executed_action, [1.0, -1.0, 0.0, 1.0])


def test_another_size_of_action_names_what_is_expected(kinematics):
    with pytest.raises(RobotError, match=r"shape \(3,\).*\(4,\).*gripper"):
        CODEC.decode([0.0, 0.0, 0.0], posture(kinematics))


@pytest.mark.failure("D07")
def test_the_gripper_closes_and_opens_again_over_the_whole_range(kinematics):
    joints = posture(kinematics, gripper_pct=100.0)
    for command, goal in ((-1.0, 0.0), (1.0, 100.0)):
        for _ in range(8):
            joints[5] = CODEC.decode([0, 0, 0, command], joints).joint_target_rad[5]
        assert gripper_to_pct(joints[5]) == pytest.approx(goal, abs=0.1)
        assert CODEC.decode([0, 0, 0, command], joints).executed_action[3] == pytest.approx(0.0, abs=0.01)  # nothing left to do


def test_a_task_without_gripper_action_holds_the_jaw(kinematics):
    codec = ActionCodec(TrainConfig(robot=RobotConfig(reset_gripper_pct=40.0)), kinematics)
    joints = posture(kinematics, gripper_pct=10.0)
    assert gripper_to_pct(codec.decode([0, 0, 0], joints).joint_target_rad[5]) == pytest.approx(40.0)
    assert codec.decode([0, 0, 0], joints, gripper_target_rad=0.5).joint_target_rad[5] == 0.5


@pytest.mark.failure("D06")
def test_encoding_a_decoded_command_gives_the_action_back(kinematics, rng):
    joints = posture(kinematics)
    for action in rng.uniform(-1, 1, (30, 4)):
        encoded, residual_m = CODEC.encode(joints, CODEC.decode(action, joints).joint_target_rad)
        np.testing.assert_allclose(encoded, action, atol=2e-3)
        assert residual_m < 1e-4


@pytest.mark.failure("D06")
def test_a_joint_command_too_fast_for_an_action_reports_its_residual(kinematics):
    joints, far = posture(kinematics), posture(kinematics, (0.22, 0.05, 0.08))
    encoded, residual_m = CODEC.encode(joints, far)
    assert encoded[1] == 1.0
    assert residual_m == pytest.approx(0.03, abs=1e-3)  # 50 mm commanded, 20 mm expressed


def test_encoding_refuses_what_is_not_finite(kinematics):
    with pytest.raises(RobotError, match="not finite"):
        CODEC.encode(posture(kinematics), np.full(6, np.nan))
