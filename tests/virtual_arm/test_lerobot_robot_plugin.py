"""The distribution `lerobot_robot_hilserl`: its robot, leader and camera, as LeRobot makes them from their configurations."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import wait_longer
from plugin_testing import FOLDER, PLUGIN, ROOT

from hilserl.config.models import CameraConfig
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess

REAL_TIME = ArmOptions(timing=Timing(wire=False))
CAMERA = CameraConfig(width=80, height=60)


@pytest.fixture(scope="module", autouse=True)
def plugin() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER / "src"))
    __import__(PLUGIN)
    yield
    sys.path.remove(str(FOLDER / "src"))


@pytest.fixture
def arms(own_home: Path, start_arm) -> tuple[VirtualArmProcess, VirtualArmProcess]:
    """The follower, with a camera, and the leader of `hilserl virtual-arm`, in lock step and in real time."""
    folder = own_home / "virtual-arm"
    lock_step = ArmOptions(lock_step_hz=30.0, timing=Timing(wire=False), start_rad=(0.0, -0.4, 0.5, 1.2, 0.0, 0.5))
    follower = start_arm("follower", lock_step, folder=folder / "follower", cameras={"wrist": CAMERA})
    return follower, start_arm("leader", ArmOptions(lock_step_hz=30.0, timing=Timing(wire=False)), folder=folder / "leader")


def test_the_distribution_has_the_name_that_lerobot_imports():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == PLUGIN == FOLDER.name and PLUGIN.startswith("lerobot_robot_")
    assert (FOLDER / "src" / PLUGIN / "__init__.py").is_file()
    assert f"hilserl=={ours['version']}" in project["dependencies"]
    assert project["requires-python"] == ours["requires-python"]


def test_lerobot_makes_robot_and_leader_of_the_running_arms(arms):
    from lerobot.robots import RobotConfig, make_robot_from_config
    from lerobot.teleoperators import TeleoperatorConfig, make_teleoperator_from_config

    config = RobotConfig.get_choice_class("so101_virtual")
    robot = make_robot_from_config(config(cameras={"wrist": camera_config(fps=30)}))
    leader = make_teleoperator_from_config(TeleoperatorConfig.get_choice_class("so101_virtual_leader")())
    for device in (robot, leader):
        wait_longer(device.bus)
        device.connect()
    assert robot.observation_features["wrist"] == (60, 80, 3)
    seen = robot.get_observation()
    assert seen["wrist"].shape == (60, 80, 3) and seen["wrist"].std() > 10
    action = leader.get_action()
    assert set(action) == set(robot.action_features)
    for _ in range(60):
        robot.send_action(action)
    after = robot.get_observation()
    assert max(abs(after[name] - action[name]) for name in action) < 1.0
    assert (after["wrist"] != seen["wrist"]).any()
    leader.disconnect()
    robot.disconnect()
    assert not any(arms[0].ask("state")["torque_on"])


def camera_config(**values):
    from lerobot_robot_hilserl import HilserlVirtualCameraConfig

    return HilserlVirtualCameraConfig(**values)


def make_camera(**values):
    from lerobot.cameras import make_cameras_from_configs

    return make_cameras_from_configs({"wrist": camera_config(**values)})["wrist"]


def test_without_a_running_arm_the_error_says_how_to_start_one(own_home):
    with pytest.raises(ValueError, match="hilserl virtual-arm --camera wrist"):
        camera_config()
    with pytest.raises(ConnectionError, match="no camera there"):
        make_camera(width=80, height=60, fps=30).connect()


def test_a_size_that_the_camera_does_not_have_is_refused(arms):
    camera = make_camera(width=640, height=480, fps=30)
    with pytest.raises(ConnectionError, match=r"configured are 640x480 .* it delivers 80x60"):
        camera.connect()
    assert not camera.is_connected


@pytest.mark.failure("R14")
def test_a_camera_that_freezes_or_goes_is_an_error_and_not_an_old_picture(own_home, start_arm):
    folder = own_home / "virtual-arm" / "follower"
    arm = start_arm("follower", REAL_TIME, folder=folder, cameras={"wrist": CAMERA}, camera_fps=30.0)
    camera = make_camera()
    assert (camera.width, camera.height, camera.fps) == (80, 60, 30)
    camera.connect()
    first = camera.read_latest(max_age_ms=60_000)
    assert first.std() > 10
    assert camera.read().shape == camera.async_read(timeout_ms=60_000).shape == (60, 80, 3)
    arm.ask("camera", camera="wrist", fault="frozen")
    with pytest.raises(TimeoutError, match="frozen"):
        while True:
            camera.async_read(timeout_ms=200)
    with pytest.raises(TimeoutError, match="ms old"):
        camera.read_latest(max_age_ms=100)
    arm.ask("camera", camera="wrist", fault="gone")
    with pytest.raises(ConnectionError, match="gone"):
        camera.read_latest()
    camera.disconnect()
    arm.ask("camera", camera="wrist")
    camera.connect()
    np.testing.assert_equal(camera.read().shape, first.shape)
    camera.disconnect()


def test_cameras_are_found(arms):
    from lerobot_robot_hilserl import HilserlVirtualCamera

    found = HilserlVirtualCamera.find_cameras()
    assert [(camera["name"], camera["type"]) for camera in found] == [("wrist", "hilserl_virtual")]
    assert found[0]["id"] == str(arms[0].camera("wrist"))
