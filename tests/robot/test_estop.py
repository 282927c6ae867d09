"""The emergency stop, and the person who re-arms."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safety_testing import PATIENCE_S, Drive, alive, torque, until

from hilserl.config.safety import SafetyConfig
from hilserl.errors import RobotError
from hilserl.files import file_lock
from hilserl.robot.estop import EStop, socket_path, stop_robot
from hilserl.robot.feetech import ServoBus
from hilserl.robot.latch import latch, latched, release, require_released, robot_folder
from hilserl.robot.rearm import rearm
from hilserl.virtual_arm.client import VirtualArmProcess

SETTINGS = SafetyConfig()


def test_a_stop_latches_with_its_first_reason(own_home: Path) -> None:
    require_released("arm")
    latch("arm", "estop", "somebody pressed.")
    latch("arm", "stall", "later.", port="/dev/arm")
    held = latched("arm")
    assert held is not None and held.rule == "estop" and held.port == "/dev/arm"
    with pytest.raises(RobotError, match=r"somebody pressed.*hilserl rearm --robot arm"):
        require_released("arm")
    require_released("another")
    release("arm")
    require_released("arm")


def test_a_damaged_latch_holds(own_home: Path) -> None:
    latch("arm", "estop", "somebody pressed.")
    (robot_folder("arm") / "latch.json").write_text("{")
    with pytest.raises(RobotError, match="cannot be read"):
        require_released("arm")


def test_a_disk_that_takes_nothing_does_not_keep_the_arm_from_stopping(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HILSERL_HOME", "/proc/hilserl")
    estop = EStop("arm")
    estop.press("key `space`")
    assert estop.reason == "key `space`" and "could not be written down" in caplog.text


def test_whoever_presses_first_is_named(own_home: Path) -> None:
    estop = EStop("arm")
    assert estop.reason is None
    estop.press("key `space`")
    estop.press("button")
    assert estop.reason == "key `space`"
    held = latched("arm")
    assert held is not None and "space" in held.text


@pytest.mark.parametrize("folder", ["home", "deep" * 40])
def test_the_socket_stops_and_answers_when_the_arm_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("HILSERL_HOME", str(tmp_path / folder))
    estop = EStop("arm")
    estop.start()

    def arm() -> None:
        until(lambda: estop.reason is not None)
        estop.confirm(True)

    ticking = threading.Thread(target=arm)
    ticking.start()
    try:
        assert stop_robot("arm", "a test", patience_s=PATIENCE_S) == "the torque of all servos is off"
        assert estop.reason == "a test"
    finally:
        ticking.join()
        estop.close()
        estop.close()
    assert not socket_path("arm").exists() and latched("arm") is not None


def test_an_arm_that_nobody_drives_is_latched(own_home: Path) -> None:
    assert "no process drives it" in stop_robot("arm", "a test")
    with pytest.raises(RobotError, match="a test"):
        require_released("arm")


@pytest.mark.slow
def test_a_signal_stops_the_arm(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive()
    owner.send_signal(signal.SIGUSR1)
    assert owner.stdout is not None and owner.stdout.readline() == "stopped: signal SIGUSR1\n"
    assert owner.wait(PATIENCE_S) == 0 and torque(virtual_arm) == [False] * 6
    held = latched("arm")
    assert held is not None and "SIGUSR1" in held.text and until(lambda: not alive(guardian))


def test_a_stop_from_outside_switches_the_torque_off(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, _ = drive()
    assert stop_robot("arm", "a test", patience_s=PATIENCE_S) == "the torque of all servos is off"
    assert torque(virtual_arm) == [False] * 6 and owner.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_a_process_that_does_not_stop_is_killed(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, _ = drive(lock_step=True)  # its guardian does not mind silence
    assert owner.stdin is not None
    owner.stdin.write("hang\n")
    owner.stdin.flush()
    said = stop_robot("arm", "a test", patience_s=1.0)
    assert "was killed; the torque of all servos is off" in said
    assert owner.wait(PATIENCE_S) == -signal.SIGKILL and torque(virtual_arm) == [False] * 6


@pytest.mark.slow
def test_rearming_is_refused_while_the_arm_is_driven(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    drive()
    latch("arm", "stall", "something.", port=str(virtual_arm.port))
    with pytest.raises(RobotError, match="still drives"):
        rearm("arm", SETTINGS)
    assert latched("arm") is not None


def test_rearming_is_refused_while_the_cause_stands(virtual_arm: VirtualArmProcess, own_home: Path) -> None:
    latch("arm", "silent", "servo 3 did not answer.", port=str(virtual_arm.port))
    for ailments, reason in (
        ({"dead": True}, "does not answer"),
        ({"temperature_c": 60.0}, "60 deg C"),
        ({"encoder_lost": True}, "encoder"),
    ):
        virtual_arm.ask("servo", servo=3, ailments=ailments)
        virtual_arm.ask("advance", seconds=0.1)
        with pytest.raises(RobotError, match=rf"stays stopped: servo 3 \(elbow_flex\).*{reason}"):
            rearm("arm", SETTINGS)
        assert latched("arm") is not None
    virtual_arm.ask("servo", servo=3, ailments={"temperature_c": 30.0})
    virtual_arm.ask("advance", seconds=0.1)
    virtual_arm.ask("unplug")
    with pytest.raises(RobotError, match="cannot be opened"):
        rearm("arm", SETTINGS)
    virtual_arm.ask("plug")
    assert rearm("arm", SETTINGS).rule == "silent" and latched("arm") is None
    with pytest.raises(RobotError, match="nothing to re-arm"):
        rearm("arm", SETTINGS)


def test_rearming_clears_an_overload_and_moves_nothing(virtual_arm: VirtualArmProcess, own_home: Path) -> None:
    bus = ServoBus(str(virtual_arm.port), timeout_s=2.0)
    try:
        virtual_arm.ask("jam", servo=3)
        goals = bus.read_state().position_ticks
        goals[2] -= 300
        while not bus.read_state().error[2]:
            bus.write_goals(goals)
        virtual_arm.ask("jam", servo=3, on=False)
        bus.stop_all()
        assert bus.read_state().error[2] == 32  # a servo keeps it
    finally:
        bus.close()
    virtual_arm.ask("advance", seconds=2.0)
    before = virtual_arm.ask("state")["joint_pos_rad"]
    latch("arm", "error", "servo 3 reports overload.", port=str(virtual_arm.port))
    rearm("arm", SETTINGS)
    state = virtual_arm.ask("state")
    assert state["status"] == [0] * 6 and state["torque_on"] == [False] * 6 and latched("arm") is None
    assert state["joint_pos_rad"] == pytest.approx(before, abs=1e-6)


def command(*arguments: str, keys: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run `hilserl`, with a terminal where it gets keys."""
    line = [sys.executable, "-m", "commands.main", *arguments]
    if keys is None:
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    master, slave = pty.openpty()
    try:
        os.write(master, keys)
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=slave)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.slow
def test_the_commands(own_home: Path) -> None:
    assert "no arm was ever driven here" in command("estop").stderr
    with file_lock(robot_folder("arm") / "guardian.lock"):
        stopped = command("estop", "--wait-for-key", keys=b" ")
    assert "robot `arm`: no process drives it" in stopped.stdout and latched("arm") is not None
    assert "needs a person" in command("rearm", "--robot", "arm").stderr
    assert "knows arm" in command("rearm", "--robot", "amr").stderr
    assert "was not its id" in command("rearm", "--robot", "arm", keys=b"yes\n").stderr
    assert latched("arm") is not None
    rearmed = command("rearm", "--robot", "arm", keys=b"arm\n")
    assert rearmed.returncode == 0 and "may be driven again" in rearmed.stdout and latched("arm") is None
    assert command("rearm", "--robot", "arm", keys=b"arm\n").returncode == 1
