"""The whole driver on a virtual arm in real time, moving, while something fails: it stops by itself, and nothing keeps its torque."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safety_testing import PATIENCE_S, alive, report_of, torque, until

from hilserl.config.environment import RobotConfig
from hilserl.errors import RobotError
from hilserl.robot.arm import Arm
from hilserl.robot.kinematics import HOME_RAD
from hilserl.robot.latch import latched
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.server import ServerOptions

HOME = np.array([*HOME_RAD[:5], 0.6])


@pytest.fixture(scope="module", params=[1.0, 0.02], ids=["stiff", "soft"])
def live_arm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualArmProcess]:
    folder = tmp_path_factory.mktemp("live")
    options = ServerOptions(
        folder=folder, name="arm", until_stdin_ends=True, arm=ArmOptions(stiffness=request.param, start_rad=tuple(HOME))
    )
    with VirtualArmProcess(options) as arm:
        yield arm


def settings_of(arm: VirtualArmProcess, **safety: Any) -> RobotConfig:
    """Return settings that a busy test machine keeps: who starves for a second is not dead."""
    patient = {"guardian_silence_s": 5.0, "landing_s": 0.1, "reconnect_s": 30.0, "silent_ticks": 3} | safety
    return RobotConfig.model_validate(
        {
            "type": "so101_follower",
            "id": "arm",
            "port": str(arm.port),
            "calibration_dir": arm.calibration.parent,
            "bus_timeout_s": 0.5,
            "safety": patient,
        }
    )


@pytest.fixture
def moving(live_arm: VirtualArmProcess, own_home: Path) -> Iterator[Arm]:
    live_arm.ask("reset")
    arm = Arm(settings_of(live_arm))
    arm.connect()
    try:
        yield arm
    finally:
        arm.close()


def move_until_it_stops(arm: Arm) -> str:
    """Wave until something stops the arm; return what it says."""
    with pytest.raises(RobotError) as caught:
        for count in range(100_000):
            arm.follow(HOME + 0.2 * np.sin(0.5 * count) * np.array([1, 0.5, 0.5, 1, 1, 0]), 5)
    return str(caught.value)


FAULTS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "dead servo": ("servo", {"servo": 3, "ailments": {"dead": True}}, "silent", "servo 3 (elbow_flex) does not answer"),
    "overheated": ("servo", {"servo": 2, "ailments": {"temperature_c": 80.0}}, "error", "servo 2 (shoulder_lift) reports overheated"),
    "hot": ("servo", {"servo": 2, "ailments": {"temperature_c": 67.0}}, "hot", "67 deg C"),
    "encoder": ("servo", {"servo": 4, "ailments": {"encoder_lost": True}}, "error", "encoder"),
    "reboot": ("reboot", {"servo": 2}, "reboot", "servo 2 (shoulder_lift) has started anew"),
    "power glitch": ("power_cycle", {}, "reboot", "started anew"),
    "brown-out": ("supply", {"source_v": 7.0}, "voltage", "it was 1"),
}


@pytest.mark.slow
@pytest.mark.failure("R08")
@pytest.mark.failure("R10")
@pytest.mark.failure("R12")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_takes_the_moving_arm_down(live_arm: VirtualArmProcess, moving: Arm, fault: str) -> None:
    verb, arguments, rule, text = FAULTS[fault]
    moving.follow(HOME, 10)
    live_arm.ask(verb, **arguments)
    assert text in move_until_it_stops(moving)
    assert torque(live_arm) == [False] * 6
    held = latched("arm")
    assert held is not None and held.rule == rule
    if fault == "dead servo":
        return
    assert held.black_box is not None and json.loads(Path(held.black_box).read_text())["ticks"] > 10
    moving.close()
    with pytest.raises(RobotError, match="hilserl rearm"):
        Arm(settings_of(live_arm)).connect()


@pytest.mark.slow
@pytest.mark.failure("R13")
def test_a_jammed_joint_is_let_go_of_and_then_taken_down(live_arm: VirtualArmProcess, moving: Arm) -> None:
    moving.follow(HOME, 10)
    live_arm.ask("jam", servo=1)
    seen = []
    with pytest.raises(RobotError, match=r"servo 1 \(shoulder_pan\) was in the way of something 5 times"):
        for _ in range(1000):
            moving.follow(HOME + np.array([0.5, 0, 0, 0, 0, 0]), 25)
            if moving.interrupted is not None:
                seen.append(moving.interrupted.rule)
                assert until(lambda: abs(moving.state.command_rad - moving.state.joint_pos_rad)[0] < 0.05)  # it pushes no more
    assert seen == ["stall"] * 4
    assert live_arm.ask("state")["status"] == [0] * 6  # long before the servo's own 2 s
    assert torque(live_arm) == [False] * 6


@pytest.mark.slow
def test_a_free_arm_does_not_stall(live_arm: VirtualArmProcess, moving: Arm) -> None:
    for target in ([0.8, 0, 0, 0, 0, 0.5], [-0.8, 0.2, -0.4, -0.5, 1, -0.7], [0, 0.6, -0.9, 0, -1, 0.9], [0, 0, 0, 0, 0, 0]):
        moving.move_to(HOME + np.array(target), 2.0)
        assert moving.interrupted is None
    assert moving.stopped is None


@pytest.mark.slow
@pytest.mark.failure("R09")
def test_an_unplugged_arm_is_switched_off_when_it_is_plugged_in_again(live_arm: VirtualArmProcess, moving: Arm) -> None:
    moving.follow(HOME, 10)
    guardian = moving._guardian.pid
    live_arm.ask("unplug")
    assert "port is gone" in move_until_it_stops(moving)
    assert torque(live_arm) == [True] * 6
    live_arm.ask("plug")
    assert until(lambda: torque(live_arm) == [False] * 6)
    assert report_of(guardian).reason.startswith("asked: ")
    assert latched("arm") is not None


@pytest.mark.slow
def test_a_power_cut_is_noticed_and_nothing_moves_when_the_power_is_back(live_arm: VirtualArmProcess, moving: Arm) -> None:
    moving.follow(HOME, 10)
    live_arm.ask("supply", on=False)
    assert "no servo answers" in move_until_it_stops(moving)
    live_arm.ask("supply", on=True)
    assert until(lambda: live_arm.ask("state")["voltage_v"] > 10)
    assert torque(live_arm) == [False] * 6


@pytest.mark.slow
def test_the_emergency_stop_lands_the_moving_arm(live_arm: VirtualArmProcess, moving: Arm) -> None:
    from hilserl.robot.estop import stop_robot

    moving.follow(HOME, 10)
    assert stop_robot("arm", "a test", patience_s=PATIENCE_S) == "the torque of all servos is off"
    assert torque(live_arm) == [False] * 6
    assert "emergency stop was pressed (a test)" in move_until_it_stops(moving)


@pytest.mark.slow
@pytest.mark.failure("R09")
def test_a_driver_whose_guardian_dies_lands_the_arm(live_arm: VirtualArmProcess, moving: Arm) -> None:
    import os

    moving.follow(HOME, 10)
    os.kill(moving._guardian.pid, signal.SIGKILL)
    assert "has died" in move_until_it_stops(moving)
    assert torque(live_arm) == [False] * 6


@pytest.mark.slow
@pytest.mark.failure("R09")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_killed_driver_leaves_an_arm_without_torque_and_a_black_box(live_arm: VirtualArmProcess, own_home: Path, number: int) -> None:
    live_arm.ask("reset")
    robot = settings_of(live_arm, guardian_silence_s=2.0)
    with subprocess.Popen([sys.executable, "-c", DRIVER, robot.model_dump_json()], stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            guardian = int(driver.stdout.readline())
            driver.send_signal(number)
            report = report_of(guardian)
        finally:
            driver.kill()
    assert report.off_s is not None and torque(live_arm) == [False] * 6
    boxes = list((own_home / "black-box").glob("arm-*.json"))
    assert len(boxes) == 1 and json.loads(boxes[0].read_text())["saved_by"] == "guardian"
    assert latched("arm") is None


@pytest.mark.slow
@pytest.mark.failure("R17")
def test_the_next_driver_waits_until_the_arm_of_a_killed_one_is_down(live_arm: VirtualArmProcess, own_home: Path) -> None:
    live_arm.ask("reset")
    robot = settings_of(live_arm, landing_s=1.0)
    with subprocess.Popen([sys.executable, "-c", DRIVER, robot.model_dump_json()], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        guardian = int(driver.stdout.readline())
        driver.kill()
    arm = Arm(robot)
    arm.connect()
    try:
        assert not alive(guardian) and torque(live_arm) == [True] * 6
        arm.move_to(HOME, 1.0)
    finally:
        arm.close()
    assert torque(live_arm) == [False] * 6


@pytest.mark.slow
@pytest.mark.failure("R22")
def test_a_target_that_is_no_number_moves_nothing(live_arm: VirtualArmProcess, moving: Arm) -> None:
    moving.move_to(HOME, 1.0)
    before = moving.state.command_rad
    with pytest.raises(RobotError, match="not six finite numbers"):
        moving.follow([0.0, np.nan, 0.0, 0.0, 0.0, 0.0], 5)
    np.testing.assert_array_equal(moving.state.command_rad, before)
    moving.follow(HOME, 5)  # it can still be moved by who knows where


DRIVER = """
import sys
from hilserl.config.environment import RobotConfig
from hilserl.robot.arm import Arm
arm = Arm(RobotConfig.model_validate_json(sys.argv[1]))
arm.connect()
print(arm._guardian.pid, flush=True)
while True:
    arm.follow(arm.state.command_rad, 50)
"""
