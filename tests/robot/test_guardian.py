"""The guardian: real processes are killed, and the servos of the virtual arm are asked what is left of their torque."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safety_testing import PATIENCE_S, Drive, alive, report_of, tell, torque, until

from hilserl.config.safety import SafetyConfig
from hilserl.errors import RobotError
from hilserl.files import file_lock
from hilserl.robot import guardian_process
from hilserl.robot.feetech import ServoBus
from hilserl.robot.guardian import Guardian
from hilserl.robot.guardian_process import read_report
from hilserl.robot.latch import latched, robot_folder
from hilserl.virtual_arm.client import VirtualArmProcess


@pytest.mark.failure("R09")
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(more, marks=pytest.mark.slow) for more in (signal.SIGTERM, signal.SIGSEGV))]
)
def test_a_driver_that_dies_leaves_no_torque(virtual_arm: VirtualArmProcess, drive: Drive, number: int) -> None:
    owner, guardian = drive()
    assert torque(virtual_arm) == [True] * 6
    owner.send_signal(number)
    report = report_of(guardian)
    assert torque(virtual_arm) == [False] * 6
    assert report.off == dict.fromkeys(range(1, 7), True) and "without switching its torque off" in report.reason
    assert latched("arm") is None  # nothing that a passed preflight does not see


@pytest.mark.slow
@pytest.mark.failure("R09")
def test_a_driver_that_leaves_without_a_word_leaves_no_torque(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive()
    tell(owner, "exit")
    assert all(report_of(guardian).off.values())
    assert owner.wait(PATIENCE_S) == 0 and torque(virtual_arm) == [False] * 6


@pytest.mark.failure("R09")
@pytest.mark.parametrize("how", [pytest.param("stopped", marks=pytest.mark.slow), "hangs"])
def test_a_driver_that_falls_silent_is_killed_and_the_arm_taken_down(virtual_arm: VirtualArmProcess, drive: Drive, how: str) -> None:
    owner, guardian = drive(guardian_silence_s=0.5)
    if how == "stopped":
        owner.send_signal(signal.SIGSTOP)
    else:
        tell(owner, "hang")
    report = report_of(guardian)
    assert owner.wait(PATIENCE_S) == -signal.SIGKILL
    assert torque(virtual_arm) == [False] * 6 and "silent" in report.reason
    assert report.owner_gone_s is not None and report.off_s is not None and report.owner_gone_s < report.off_s


@pytest.mark.slow
def test_in_lock_step_silence_is_no_reason(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive(lock_step=True, guardian_silence_s=0.2)
    owner.send_signal(signal.SIGSTOP)
    time.sleep(0.8)
    assert torque(virtual_arm) == [True] * 6 and alive(guardian)
    owner.send_signal(signal.SIGKILL)
    report_of(guardian)
    assert torque(virtual_arm) == [False] * 6


@pytest.mark.slow
@pytest.mark.failure("R09")
def test_signals_that_end_a_service_do_not_end_the_guardian(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(guardian, number)
    owner.send_signal(signal.SIGKILL)
    assert all(report_of(guardian).off.values()) and torque(virtual_arm) == [False] * 6


@pytest.mark.slow
@pytest.mark.failure("R08")
@pytest.mark.parametrize(
    ("ailments", "left"),
    [({"dead": True}, []), ({"temperature_c": 80.0}, []), ({"silent": True}, [2])],
    ids=["dead", "overheated", "silent"],
)
def test_a_servo_in_trouble_does_not_keep_the_others_torqued(
    virtual_arm: VirtualArmProcess, drive: Drive, ailments: dict[str, Any], left: list[int]
) -> None:
    owner, guardian = drive()
    virtual_arm.ask("servo", servo=2, ailments=ailments)
    time.sleep(0.1)
    owner.send_signal(signal.SIGKILL)
    report = report_of(guardian)
    assert [servo for servo, on in enumerate(torque(virtual_arm), start=1) if on] == left
    held = latched("arm")
    if "temperature_c" in ailments:
        assert all(report.off.values()) and held is None
    else:  # it cannot say that it is off
        assert report.off == {1: True, 2: False, 3: True, 4: True, 5: True, 6: True}
        assert held is not None and held.rule == "guardian" and "servo 2" in held.text and "power supply" in held.text


@pytest.mark.failure("R09")
def test_an_arm_that_is_unplugged_goes_off_as_soon_as_it_is_plugged_in(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive()
    owner.send_signal(signal.SIGSTOP)  # else it would notice
    virtual_arm.ask("unplug")
    owner.send_signal(signal.SIGKILL)
    time.sleep(0.7)
    assert alive(guardian) and torque(virtual_arm) == [True] * 6  # nothing but the power switch helps now
    virtual_arm.ask("plug")
    assert all(report_of(guardian).off.values()) and torque(virtual_arm) == [False] * 6


@pytest.mark.slow
@pytest.mark.failure("R09")
def test_a_port_that_never_comes_back_latches_the_arm(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive(reconnect_s=0.5)
    virtual_arm.ask("unplug")
    owner.send_signal(signal.SIGKILL)
    report = report_of(guardian)
    held = latched("arm")
    assert not any(report.off.values()) and held is not None and "power supply off" in held.text


@pytest.mark.slow
def test_a_power_cut_leaves_no_torque_when_the_power_is_back(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive()
    owner.send_signal(signal.SIGSTOP)
    virtual_arm.ask("supply", on=False)
    virtual_arm.ask("advance", seconds=0.1)
    owner.send_signal(signal.SIGKILL)
    virtual_arm.ask("supply", on=True)
    virtual_arm.ask("advance", seconds=0.1)
    assert all(report_of(guardian).off.values()) and torque(virtual_arm) == [False] * 6


@pytest.mark.failure("R09")
def test_a_good_bye_leaves_the_arm_alone(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, guardian = drive()
    tell(owner, "good-bye")
    assert owner.wait(PATIENCE_S) == 0 and until(lambda: not alive(guardian))
    assert read_report("arm") is None and torque(virtual_arm) == [True] * 6


@pytest.mark.slow
def test_a_driver_can_leave_the_arm_to_its_guardian(virtual_arm: VirtualArmProcess, drive: Drive) -> None:
    owner, _ = drive()
    tell(owner, "take over")
    assert owner.stdout is not None and owner.stdout.readline() == "report: asked: a test asked for it\n"
    assert owner.wait(PATIENCE_S) == 0 and torque(virtual_arm) == [False] * 6


@pytest.mark.slow
@pytest.mark.failure("R09")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGKILL, "has died"), (signal.SIGSTOP, "has not answered")])
def test_a_driver_notices_that_its_guardian_is_gone(virtual_arm: VirtualArmProcess, drive: Drive, number: int, word: str) -> None:
    owner, guardian = drive()
    os.kill(guardian, number)
    assert owner.stdout is not None
    said = owner.stdout.readline()
    assert said.startswith("error: ") and word in said and torque(virtual_arm) == [False] * 6
    owner.wait(PATIENCE_S)
    if number == signal.SIGSTOP:
        os.kill(guardian, signal.SIGKILL)


def test_nobody_drives_an_arm_that_a_guardian_still_takes_down(
    virtual_arm: VirtualArmProcess, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilserl.robot.guardian_process._LOCK_S", 0.2)
    with file_lock(robot_folder("arm") / "guardian.lock"):
        process = subprocess.run(
            [sys.executable, "-c", _IMPATIENT, str(virtual_arm.port)], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    assert process.returncode == 1 and "another process drives robot `arm`" in process.stderr


_IMPATIENT = """
import os, sys
from hilserl.robot import guardian_process
guardian_process._LOCK_S = 0.2
sys.argv[1] = guardian_process.Settings(sys.argv[1], "arm", os.getppid(), None, 0.1, 1.0, 1.0).to_json()
sys.exit(guardian_process.main())
"""


def test_without_a_guardian_nothing_is_driven(own_home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    guardian = Guardian(str(tmp_path / "no-port"), robot_id="arm", safety=SafetyConfig())
    with pytest.raises(RobotError, match="guardian of robot `arm` did not start"):
        guardian.start()
    assert "no-port" in capfd.readouterr().err and not guardian.running


@pytest.mark.failure("R09")
def test_after_a_stop_no_goal_reaches_a_servo(virtual_arm: VirtualArmProcess) -> None:
    from hilserl.errors import BusError
    from hilserl.robot.landing import soft_land

    bus = ServoBus(str(virtual_arm.port), timeout_s=2.0)
    try:
        bus.write_goals(bus.read_state().position_ticks)
        assert torque(virtual_arm) == [True] * 6
        full = virtual_arm.ask("register", servo=1, name="Torque_Limit")["value"]
        assert all(soft_land(bus, 0.1).values()) and torque(virtual_arm) == [False] * 6
        assert virtual_arm.ask("register", servo=1, name="Torque_Limit")["value"] == pytest.approx(full / 5, abs=1)  # it fell before
        with pytest.raises(BusError, match="was stopped"):
            bus.write_goals([2047] * 6)
        assert torque(virtual_arm) == [False] * 6
        assert all(soft_land(bus, 0.0).values())
    finally:
        bus.close()


def test_a_black_box_that_cannot_be_saved_is_said_and_stops_nothing(own_home: Path, tmp_path: Path) -> None:
    (robot_folder("arm") / "black-box.ring").mkdir(parents=True)  # what cannot be read as a ring
    settings = guardian_process.Settings(str(tmp_path / "port"), "arm", os.getppid(), None, 0.1, 1.0, 1.0)
    report = guardian_process.Report("its owner died", noticed_s=1.0, off=dict.fromkeys(range(1, 7), True), note="all is off.")
    guardian_process._finish(settings, report)
    written = read_report("arm")
    assert written is not None and written.reason == "its owner died"
    assert written.note.startswith("all is off. The black box could not be saved: ")
