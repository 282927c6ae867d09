import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilserl.errors import RobotError
from hilserl.robot.units import gripper_to_pct, gripper_to_rad, joints_from_lerobot, joints_to_lerobot

values = st.lists(st.floats(-180, 180), min_size=6, max_size=6)


@pytest.mark.failure("R01")
def test_body_joints_are_degrees_and_the_gripper_is_a_percentage():
    # By hand: 90 deg = pi/2; gripper -0.1745 rad closed, -0.1745 + 1.9199 open (facts of so101_nexus).
    joints = joints_from_lerobot([90.0, -45.0, 0.0, 30.0, 180.0, 100.0])
    np.testing.assert_allclose(joints, [np.pi / 2, -np.pi / 4, 0.0, np.pi / 6, np.pi, 1.7454], atol=1e-12)
    np.testing.assert_allclose(gripper_to_rad(0.0), np.deg2rad(-10), atol=1e-4)
    np.testing.assert_allclose(gripper_to_pct(0.0), 9.1, atol=0.05)


@given(values)
def test_conversion_there_and_back_changes_nothing(lerobot):
    np.testing.assert_allclose(joints_to_lerobot(joints_from_lerobot(lerobot)), lerobot, atol=1e-9)


def test_whole_trajectories_convert_like_single_frames():
    frames = np.random.default_rng(0).uniform(-90, 90, (4, 5, 6))
    np.testing.assert_array_equal(joints_from_lerobot(frames)[2, 3], joints_from_lerobot(frames[2, 3]))


@pytest.mark.parametrize("convert", [joints_from_lerobot, joints_to_lerobot])
def test_another_number_of_joints_is_refused(convert):
    with pytest.raises(RobotError, match=r"shape \(3, 5\).*6 joints"):
        convert(np.zeros((3, 5)))
