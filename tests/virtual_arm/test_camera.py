"""The virtual arm's cameras: the picture of the direct simulation, on request in lock step, and broken when asked to be."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import StartArm, make_follower

from hilserl.config.models import CameraConfig, ImageConfig, ObservationConfig, RobotConfig, TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.frame_memory import FrameReader
from hilserl.sim.env import So101Env
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing

LOCK_STEP = ArmOptions(lock_step_hz=10.0, timing=Timing(wire=False), start_rad=(0.1, -0.4, 0.5, 1.2, 0.0, 0.5))
CUBE_M, CUBE_YAW_RAD = (0.23, 0.03, 0.0125), 0.4
CAMERA = CameraConfig(width=84, height=64)


def test_it_sees_what_the_direct_simulation_sees(start_arm: StartArm):
    seen = ObservationConfig(images={"wrist": ImageConfig(resize=(64, 64))})
    config = TrainConfig(robot=RobotConfig(cameras={"wrist": CAMERA}), observation=seen)
    arm = start_arm(arm=LOCK_STEP, cameras={"wrist": CAMERA})
    arm.ask("cube", position_m=CUBE_M, yaw_rad=CUBE_YAW_RAD)
    with FrameReader(arm.camera("wrist")) as reader:
        frame = reader.wait(after=0, timeout_s=30.0)
    assert frame is not None
    environment = So101Env(config)
    try:
        environment.arrange(arm.ask("state")["joint_pos_rad"], CUBE_M, CUBE_YAW_RAD)
        direct = environment.pictures()["wrist"]
    finally:
        environment.close()
    assert direct.std() > 10
    np.testing.assert_array_equal(frame.image, direct)


def test_in_lock_step_frames_are_of_the_moment_they_are_asked_for_and_repeat(start_arm: StartArm):
    arm = start_arm(arm=LOCK_STEP, cameras={"wrist": CAMERA, "front": CAMERA})

    def play() -> list[np.ndarray]:
        arm.ask("reset")
        robot = make_follower(arm)
        robot.connect()
        seen = []
        with FrameReader(arm.camera("wrist")) as wrist, FrameReader(arm.camera("front")) as front:
            for step in range(4):
                robot.send_action({name: value + 8.0 * step for name, value in robot.get_observation().items()})
                for reader in (wrist, front):
                    reader.request()
                    frame = reader.latest()
                    assert frame is not None
                    seen.append(frame.image)
        robot.disconnect()
        return seen

    first, second = play(), play()
    np.testing.assert_array_equal(first, second)
    assert all((first[at] != first[at + 2]).any() for at in range(6))  # the arm moved, and every frame shows it


def test_real_time_frames_come_by_themselves(start_arm: StartArm):
    arm = start_arm(arm=ArmOptions(timing=Timing(wire=False)), cameras={"wrist": CAMERA}, camera_fps=20.0)
    with FrameReader(arm.camera("wrist")) as reader:
        first = reader.wait(after=0, timeout_s=60.0)
        assert first is not None and first.image.std() > 10
        second = reader.wait(after=first.number, timeout_s=60.0)
        assert second is not None and second.at > first.at
        with pytest.raises(RobotError, match="come by themselves"):
            reader.request()
        with pytest.raises(RobotError, match="in lock step only"):
            arm.ask("frame", camera="wrist")


@pytest.mark.failure("R14")
@pytest.mark.parametrize("options", [LOCK_STEP, ArmOptions(timing=Timing(wire=False))], ids=["lock step", "real time"])
def test_every_fault_of_a_camera_can_be_played(start_arm: StartArm, options: ArmOptions):
    arm = start_arm(arm=options, cameras={"wrist": CAMERA}, camera_fps=50.0)

    with FrameReader(arm.camera("wrist")) as reader:
        good = reader.wait(after=0, timeout_s=60.0)
        assert good is not None
        arm.ask("camera", camera="wrist", fault="frozen")
        frozen = reader.wait(after=reader.number + 1, timeout_s=0.2)  # one may have been on its way
        assert frozen is None
        last = reader.latest()
        assert last is not None
        arm.ask("camera", camera="wrist", fault="stuck")
        stuck = reader.wait(after=reader.number + 1 if not reader.on_request else reader.number, timeout_s=60.0)
        assert stuck is not None and stuck.at > last.at
        np.testing.assert_array_equal(stuck.image, last.image)
        arm.ask("camera", camera="wrist", fault="black")
        black = reader.wait(after=reader.number + 1 if not reader.on_request else reader.number, timeout_s=60.0)
        assert black is not None and black.image.max() == 0
        arm.ask("camera", camera="wrist", fault="gone")
        with pytest.raises(RobotError, match="the camera has gone"):
            reader.latest()
        assert not arm.camera("wrist").exists()
    arm.ask("camera", camera="wrist")
    with FrameReader(arm.camera("wrist")) as reader:
        again = reader.wait(after=0, timeout_s=60.0)
        assert again is not None and again.image.max() > 0
    with pytest.raises(RobotError, match="no camera `side`"):
        arm.ask("camera", camera="side", fault="black")


def test_the_cameras_go_with_the_arm(start_arm: StartArm):
    arm = start_arm(arm=LOCK_STEP, cameras={"wrist": CAMERA})
    reader = FrameReader(arm.camera("wrist"))
    arm.stop()
    with pytest.raises(RobotError, match="the camera has gone"):
        reader.latest()
    reader.close()
    assert not arm.camera("wrist").exists()


def test_an_arm_without_a_camera_says_how_to_get_one(start_arm: StartArm):
    with pytest.raises(RobotError, match="--camera wrist"):
        start_arm().ask("camera", camera="wrist", fault="gone")
