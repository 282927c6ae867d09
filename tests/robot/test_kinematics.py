import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from hilserl.errors import KinematicsError
from hilserl.robot.kinematics import HOME_RAD, euler
from hilserl.robot.model import mjcf_path
from hilserl.schema import JOINT_NAMES


def rotation_xyz(roll, pitch, yaw):
    cr, sr, cp, sp, cy, sy = math.cos(roll), math.sin(roll), math.cos(pitch), math.sin(pitch), math.cos(yaw), math.sin(yaw)
    x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return x, y, z


def urdf_frame(joint_pos_rad, link):
    """Position of a link of the arm's URDF: a second model, by a second implementation."""
    root = ElementTree.parse(mjcf_path().parents[1] / "SO101" / "so101_new_calib.urdf").getroot()
    angles = dict(zip(JOINT_NAMES, joint_pos_rad, strict=True))
    parents = {joint.find("child").get("link"): joint for joint in root.findall("joint")}
    chain = []
    while link in parents:
        chain.append(parents[link])
        link = chain[-1].find("parent").get("link")
    pose = np.eye(4)
    for joint in reversed(chain):
        origin = joint.find("origin")
        x, y, z = rotation_xyz(*map(float, origin.get("rpy").split()))
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = z @ y @ x, list(map(float, origin.get("xyz").split()))
        pose = pose @ step
        if joint.get("type") == "revolute":
            turn = np.eye(4)
            turn[:3, :3] = rotation_xyz(0, 0, angles[joint.get("name")])[2]  # every axis is z
            pose = pose @ turn
    return pose[:3, 3]


def test_forward_kinematics_agree_with_the_urdf(kinematics, rng):
    for joints in rng.uniform(kinematics.lower_rad, kinematics.upper_rad, (50, 6)):
        position, rotation = kinematics.forward(joints)
        np.testing.assert_allclose(position, urdf_frame(joints, "tcp_frame_link"), atol=1e-5)  # 0.01 mm
        np.testing.assert_allclose(kinematics.fixed_fingertip(joints), urdf_frame(joints, "gripper_frame_link"), atol=1e-5)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_forward_kinematics_agree_with_what_placo_says(kinematics):
    """placo computes LeRobot's end-effector positions; its numbers were recorded once."""
    recorded = json.loads(Path(__file__).with_name("placo_forward_kinematics.json").read_text())
    for pose in recorded["poses"]:
        position, _ = kinematics.forward(pose["joint_pos_rad"])
        np.testing.assert_allclose(position, pose["tcp_frame_link_m"], atol=1e-5)  # 0.01 mm
        np.testing.assert_allclose(kinematics.fixed_fingertip(pose["joint_pos_rad"]), pose["gripper_frame_link_m"], atol=1e-5)


def test_the_tool_is_between_the_jaws_and_not_at_lerobots_fingertip(kinematics):
    tool, _ = kinematics.forward(HOME_RAD)
    assert np.linalg.norm(tool - kinematics.fixed_fingertip(HOME_RAD)) == pytest.approx(0.0199, abs=1e-4)


def test_jacobian_is_the_derivative_of_the_position(kinematics, rng):
    step = 1e-6
    for joints in rng.uniform(kinematics.lower_rad, kinematics.upper_rad, (20, 6)):
        differences = [
            (kinematics.forward(joints + step * unit)[0] - kinematics.forward(joints - step * unit)[0]) / (2 * step) for unit in np.eye(6)
        ]
        np.testing.assert_allclose(kinematics.jacobian(joints), np.stack(differences, axis=1), atol=1e-8)


def test_every_reachable_point_is_found_from_home(kinematics, postures):
    for joints in postures:
        point, _ = kinematics.forward(joints)
        found = kinematics.inverse(HOME_RAD, point)
        reached, _ = kinematics.forward(found)
        assert np.linalg.norm(reached - point) < 1e-4, f"{point} m"


@pytest.mark.failure("R03")
def test_a_small_step_delivers_what_was_commanded(kinematics, postures, rng):
    ratios = []
    for joints in postures:
        start = kinematics.inverse(HOME_RAD, kinematics.forward(joints)[0])
        tool, _ = kinematics.forward(start)
        command = rng.normal(size=3)
        command *= 0.02 / np.linalg.norm(command)
        found, residual_m = kinematics.inverse_with_residual(start, tool + command)
        if residual_m < 1e-3:  # else the target is out of reach
            ratios.append((kinematics.forward(found)[0] - tool) @ command / 0.02**2)
    assert len(ratios) > 150
    assert min(ratios) > 0.99
    assert max(ratios) < 1.01


@pytest.mark.failure("R04")
def test_limits_hold_for_any_target(kinematics, rng):
    for joints, target in zip(rng.uniform(-4, 4, (300, 6)), rng.uniform(-0.6, 0.6, (300, 3)), strict=True):
        found = kinematics.inverse(joints, target)
        assert (found >= kinematics.lower_rad).all()
        assert (found <= kinematics.upper_rad).all()


def test_wrist_roll_limit_is_the_stricter_of_joint_and_actuator(kinematics):
    assert kinematics.upper_rad[4] == pytest.approx(2.7438473)  # the actuator alone would accept 2.84121
    assert kinematics.clamp_to_limits(np.full(6, 9.0))[4] == kinematics.upper_rad[4]


def test_wrist_roll_and_gripper_are_held(kinematics, postures):
    start = postures[0].copy()
    start[4:] = 0.3, 0.7
    np.testing.assert_array_equal(kinematics.inverse(start, [0.22, 0.05, 0.08])[4:], [0.3, 0.7])


def test_a_point_out_of_reach_gives_the_nearest_and_says_how_near(kinematics):
    found, residual_m = kinematics.inverse_with_residual(HOME_RAD, [1.0, 0.0, 0.2])
    reached, _ = kinematics.forward(found)
    assert residual_m == pytest.approx(np.linalg.norm(reached - [1.0, 0.0, 0.2]))
    assert 0.4 < residual_m < 0.7
    assert reached[0] > 0.35  # stretched towards it


def test_the_tool_turns_to_vertical_near_the_table(kinematics):
    tilted = kinematics.inverse(HOME_RAD, [0.30, 0.0, 0.20])
    joints = kinematics.inverse(tilted, [0.22, 0.0, 0.03])
    tilts_deg = []
    for _ in range(2):
        joints = kinematics.inverse(joints, [0.22, 0.0, 0.03])
        tilts_deg.append(math.degrees(math.acos(-kinematics.forward(joints)[1][2, 2])))
    assert tilts_deg[-1] < 1 < math.degrees(math.acos(-kinematics.forward(tilted)[1][2, 2]))


def test_turning_is_bounded_within_one_control_step(kinematics):
    tilted = np.array([0.0, -1.2, 1.0, 0.3, 0.0, 0.0])
    tool, rotation = kinematics.forward(tilted)
    assert math.degrees(math.acos(-rotation[2, 2])) > 45
    held, _ = kinematics.inverse_with_residual(tilted, tool, max_turn_rad=0.2)
    free, _ = kinematics.inverse_with_residual(tilted, tool)
    assert np.abs(held - tilted).max() < 0.25
    assert np.abs(free - tilted).max() > 0.5


@pytest.mark.parametrize("joints, target", [([np.nan] * 6, [0.2, 0, 0.1]), ([0.0] * 6, [0.2, np.inf, 0.1])])
def test_what_is_not_finite_is_refused(kinematics, joints, target):
    with pytest.raises(KinematicsError, match="not finite"):
        kinematics.inverse(joints, target)


def test_euler_is_zero_for_a_tool_that_points_down():
    np.testing.assert_allclose(euler(np.diag([-1.0, 1.0, -1.0])), 0.0, atol=1e-12)


def test_euler_rebuilds_the_orientation(kinematics, rng):
    for joints in rng.uniform(kinematics.lower_rad, kinematics.upper_rad, (50, 6)):
        _, rotation = kinematics.forward(joints)
        roll, pitch, yaw = euler(rotation)
        x, _, _ = rotation_xyz(roll, 0, 0)
        _, y, _ = rotation_xyz(0, pitch, 0)
        _, _, z = rotation_xyz(0, 0, yaw)
        np.testing.assert_allclose(z @ x @ y @ np.diag([-1, 1, -1]), rotation, atol=1e-9)


def test_euler_does_not_jump_inside_the_workspace(kinematics, postures):
    found = np.array([euler(kinematics.forward(kinematics.inverse(HOME_RAD, kinematics.forward(joints)[0]))[1]) for joints in postures])
    assert np.abs(found[:, 0]).max() < math.radians(30)
    assert np.abs(found).max() < math.radians(130)  # far from +-180 deg, where angles wrap


@pytest.mark.failure("R02")
@pytest.mark.failure("R03")
def test_ten_thousand_random_steps_deliver_what_they_say_and_drift_nowhere(kinematics, rng) -> None:
    """Random steps inside the workspace, each from where the last one ended: delivered over commanded is at least 0.97 in every one."""
    low, high = np.array([0.12, -0.12, 0.02]), np.array([0.30, 0.12, 0.20])
    joints = kinematics.inverse(HOME_RAD, [0.22, 0.0, 0.12])
    asked, worst, reached = kinematics.forward(joints)[0], math.inf, 0
    for _ in range(10_000):
        command = rng.uniform(-0.02, 0.02, 3)
        tool, _ = kinematics.forward(joints)
        target = np.clip(tool + command, low, high)
        command = target - tool
        joints, residual_m = kinematics.inverse_with_residual(joints, target, 0.1)
        asked = asked + command
        moved = kinematics.forward(joints)[0] - tool
        if residual_m < 1e-3 and np.linalg.norm(command) > 0.005:
            reached += 1
            worst = min(worst, float(moved @ command / (command @ command)))
        else:
            asked = tool + moved  # out of reach, which the arm says
        assert (joints >= kinematics.lower_rad).all() and (joints <= kinematics.upper_rad).all()
    assert reached > 9_000
    assert worst >= 0.97
    assert np.linalg.norm(kinematics.forward(joints)[0] - asked) < 0.002
    again = kinematics.inverse(HOME_RAD, kinematics.forward(joints)[0])
    tilts = [math.acos(np.clip(-kinematics.forward(posture)[1][2, 2], -1, 1)) for posture in (joints, again)]
    assert abs(tilts[0] - tilts[1]) < 0.2  # nor does the posture wander off


@pytest.mark.failure("R03")
def test_a_straight_line_through_the_workspace_is_followed(kinematics) -> None:
    """Along all three axes, there and back, in steps of 20 mm: the sum of what was delivered is what was commanded."""
    for axis, begin, end in ((0, [0.14, 0.0, 0.06], 0.30), (1, [0.22, -0.12, 0.06], 0.12), (2, [0.22, 0.0, 0.02], 0.18)):
        joints = kinematics.inverse(HOME_RAD, begin)
        start, _ = kinematics.forward(joints)
        step = np.eye(3)[axis] * 0.02
        count = round((end - begin[axis]) / 0.02)
        for sign in (1.0, -1.0):
            for _ in range(count):
                tool, _ = kinematics.forward(joints)
                joints = kinematics.inverse(joints, tool + sign * step)
            moved = kinematics.forward(joints)[0] - start
            np.testing.assert_allclose(moved, (count * step) if sign > 0 else 0.0, atol=1e-3)
