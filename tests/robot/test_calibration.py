"""LeRobot's calibration files, read as LeRobot reads them."""

import json

import numpy as np
import pytest

from hilserl.config.models import RobotConfig
from hilserl.errors import RobotError
from hilserl.robot.calibration import Calibration, calibration_file
from hilserl.robot.units import joints_from_lerobot
from hilserl.schema import JOINT_NAMES
from hilserl.virtual_arm.calibration import lerobot_calibration, mountings


@pytest.fixture
def content(kinematics) -> dict:
    return lerobot_calibration(mountings(kinematics.lower_rad, kinematics.upper_rad, seed=3))


@pytest.fixture
def load(kinematics, content, tmp_path):
    def load() -> Calibration:
        (tmp_path / "arm.json").write_text(json.dumps(content))
        robot = RobotConfig(type="so101_follower", id="arm", port="/dev/x", calibration_dir=tmp_path)
        return Calibration.load(robot, kinematics.lower_rad, kinematics.upper_rad)

    return load


@pytest.mark.failure("R01")
@pytest.mark.failure("R07")
def test_ticks_mean_what_lerobot_means_by_them(load, content, rng) -> None:
    """LeRobot's own conversion in degrees, then the one place that turns its units into radians."""
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    modes = [MotorNormMode.DEGREES] * 5 + [MotorNormMode.RANGE_0_100]
    bus = FeetechMotorsBus(
        port="",
        motors={name: Motor(index + 1, "sts3215", mode) for index, (name, mode) in enumerate(zip(JOINT_NAMES, modes, strict=True))},
        calibration={name: MotorCalibration(**joint) for name, joint in content.items()},
    )
    calibration = load()
    for _ in range(20):
        ticks = np.rint(rng.uniform(calibration.range_min, calibration.range_max))
        theirs = bus._normalize({index + 1: int(tick) for index, tick in enumerate(ticks)})
        joints = joints_from_lerobot([theirs[index + 1] for index in range(6)])
        np.testing.assert_allclose(calibration.to_rad(ticks), joints, atol=1e-12)
        assert calibration.to_ticks(joints).tolist() == ticks.tolist()


def test_commands_stay_inside_the_calibrated_range(load) -> None:
    calibration = load()
    assert calibration.to_ticks(np.full(6, 9.0)).tolist() == calibration.range_max.tolist()
    assert calibration.to_ticks(np.full(6, -9.0)).tolist() == calibration.range_min.tolist()
    with pytest.raises(RobotError, match="six finite numbers"):
        calibration.to_ticks([0, 0, np.nan, 0, 0, 0])


def test_a_velocity_is_the_derivative_of_the_position(load) -> None:
    calibration = load()
    ticks = (calibration.range_min + calibration.range_max) / 2
    np.testing.assert_allclose(
        calibration.to_rad_s(np.full(6, 10.0)), calibration.to_rad(ticks + 10) - calibration.to_rad(ticks), atol=1e-12
    )


@pytest.mark.parametrize(
    ("joint", "key", "value", "problem"),
    [
        ("elbow_flex", "id", 2, "has servo id 2, an SO-101 has 3 there"),
        ("gripper", "drive_mode", 1, "drive mode 1"),
        ("wrist_roll", "homing_offset", 3000, "beyond the half turn"),
        ("wrist_flex", "range_max", 5000, "outside 0 to 4095"),
        ("shoulder_pan", "range_min", 2000, "a stop was missed"),
    ],
)
def test_a_calibration_that_cannot_be_right_is_refused_with_the_remedy(load, content, joint, key, value, problem) -> None:
    content[joint][key] = value
    with pytest.raises(RobotError, match=rf"`{joint}`: .*{problem}.*lerobot-calibrate --robot.type=so101_follower --robot.port=/dev/x"):
        load()


def test_a_missing_or_damaged_file_is_named(load, content, tmp_path, kinematics) -> None:
    del content["gripper"]
    with pytest.raises(RobotError, match=r"arm\.json: no calibration of an SO-101 \(KeyError\('gripper'\)\)"):
        load()
    robot = RobotConfig(type="so101_follower", id="other", port="/dev/x", calibration_dir=tmp_path)
    with pytest.raises(RobotError, match=r"there is no calibration of robot `other`.*lerobot-calibrate"):
        Calibration.load(robot, kinematics.lower_rad, kinematics.upper_rad)


@pytest.mark.failure("R07")
def test_servos_with_another_calibration_are_refused(load) -> None:
    calibration = load()
    held = {
        "Homing_Offset": calibration.homing_offset,
        "Min_Position_Limit": calibration.range_min,
        "Max_Position_Limit": calibration.range_max,
    }
    calibration.require_same_in_servos(lambda servo, register: int(held[register][servo - 1]))
    with pytest.raises(RobotError, match=r"servo 4 \(`wrist_flex`\) has `Homing_Offset` .*another arm's or older"):
        calibration.require_same_in_servos(
            lambda servo, register: int(held[register][servo - 1]) + (servo == 4 and register == "Homing_Offset")
        )


def test_the_file_is_where_lerobot_writes_it(monkeypatch, tmp_path) -> None:
    from lerobot.robots.so_follower import SO101Follower
    from lerobot.utils.constants import HF_LEROBOT_CALIBRATION, ROBOTS

    monkeypatch.delenv("HF_LEROBOT_CALIBRATION", raising=False)
    robot = RobotConfig(type="so101_follower", id="arm", port="/dev/x")
    assert calibration_file(robot) == HF_LEROBOT_CALIBRATION / ROBOTS / SO101Follower.name / "arm.json"
    monkeypatch.setenv("HF_LEROBOT_CALIBRATION", str(tmp_path))
    assert calibration_file(robot) == tmp_path / "robots" / "so_follower" / "arm.json"
