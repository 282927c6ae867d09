"""`hilserl virtual-arm` and LeRobot's own commands on what it prints."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hilserl.robot.frame_memory import FrameReader
from hilserl.virtual_arm.client import ControlClient

BIN = Path(sys.executable).parent
SLOW_START_S = 240.0  # LeRobot's commands import for 10 s, and for a minute on a busy machine


class Running:
    """The command, with its output so far."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self._clients: list[ControlClient] = []
        environment = os.environ | {"HILSERL_HOME": str(home), "COLUMNS": "500"}
        self.process = subprocess.Popen(
            [str(BIN / "hilserl"), "virtual-arm", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.output = ""
        assert self.process.stdout is not None
        while "Ctrl-C ends it" not in self.output:
            line = self.process.stdout.readline()
            assert line, self.output
            self.output += line

    def command(self, name: str) -> list[str]:
        """Return a LeRobot command as it is printed for copying."""
        text = self.output.replace("\\\n", " ")
        found = re.search(rf"^ *{name} .*$", text, re.MULTILINE)
        assert found, self.output
        words = shlex.split(found.group())
        return [sys.executable, str(Path(__file__).with_name("patient_lerobot.py")), *words]

    def control(self, arm: str = "follower") -> ControlClient:
        self._clients.append(ControlClient(self.home / "virtual-arm" / arm / "control.sock"))
        return self._clients[-1]

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return exit code and the rest of the output."""
        for client in self._clients:
            client.close()
        os.killpg(self.process.pid, signal.SIGINT)
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, rest


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type[Running]]:
    started: list[Running] = []

    def run(*arguments: str) -> Running:
        started.append(Running(tmp_path / "home", *arguments))
        return started[-1]

    yield run
    for one in started:
        if one.process.poll() is None:
            one.interrupt()


def wait_for(condition, seconds: float = SLOW_START_S) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_it_runs_until_ctrl_c_and_leaves_nothing_behind(start):
    arm = start("--new")
    assert "port " + str(arm.home / "virtual-arm" / "follower" / "port") in arm.output
    client = arm.control("leader")
    first = client.ask("state")["joint_pos_rad"]
    wait_for(lambda: max(abs(a - b) for a, b in zip(client.ask("state")["joint_pos_rad"], first, strict=True)) > 0.2)  # it waves
    client.close()
    code, rest = arm.interrupt()
    assert code == 0, rest
    assert rest.strip() == "Ended."
    assert not list(arm.home.rglob("control.sock"))
    assert not list(arm.home.rglob("port"))


@pytest.mark.slow
def test_tell_looks_and_breaks(start):
    arm = start("--leader=none", "--no-wire-time")
    assert "lerobot-teleoperate" not in arm.output

    def tell(*words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"HILSERL_HOME": str(arm.home)}
        return subprocess.run([str(BIN / "hilserl"), "virtual-arm", "tell", *words], capture_output=True, text=True, env=environment)

    assert json.loads(tell("state").stdout)["plugged"] is True
    assert tell("unplug").stdout == "done\n"
    assert json.loads(tell("state").stdout)["plugged"] is False
    wrong = tell('{"do": "jam"}')
    assert (wrong.returncode, "`servo`: missing required argument" in wrong.stderr) == (1, True)
    assert "not JSON" in tell('{"do: "jam"}').stderr
    assert "no virtual arm listens there" in tell("state", "--arm", "leader").stderr


def test_a_camera_is_where_it_says(start):
    arm = start("--leader=none", "--camera=wrist", "--camera-size=64x48", "--camera-fps=20")
    found = re.search(r"^camera +wrist +(.*)$", arm.output, re.MULTILINE)
    assert found, arm.output
    with FrameReader(Path(found.group(1))) as reader:
        assert (reader.width, reader.height, reader.fps) == (64, 48, 20.0)
        assert reader.wait(after=0, timeout_s=60.0) is not None


def test_a_size_that_makes_no_sense_is_refused(tmp_path):
    environment = os.environ | {"HILSERL_HOME": str(tmp_path)}
    words = [str(BIN / "hilserl"), "virtual-arm", "--camera=wrist", "--camera-size=64"]
    refused = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (refused.returncode, "give two numbers of pixels" in refused.stderr) == (1, True), refused.stderr


def test_an_arm_that_dies_ends_the_command_with_an_error(start):
    arm = start("--leader=none")
    client = arm.control()
    client.ask("stop")
    client.close()
    rest, _ = arm.process.communicate(timeout=60)
    assert arm.process.returncode == 1
    assert "the virtual follower ended" in rest


@pytest.mark.slow
def test_lerobot_teleoperate_moves_the_follower_after_the_leader(start):
    arm = start("--new")
    follower, leader = arm.control(), arm.control("leader")
    with subprocess.Popen(
        [*arm.command("lerobot-teleoperate"), "--fps=30"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    ) as teleoperate:
        try:
            wait_for(lambda: teleoperate.poll() is not None or all(follower.ask("state")["torque_on"]))
            leader.ask("hand", move="to", joints_rad={"shoulder_pan": 0.5, "shoulder_lift": -0.8, "elbow_flex": 0.9, "wrist_flex": 0.7})
            wait_for(lambda: not leader.ask("state")["moved_by_hand"])

            def apart() -> float:
                ours, theirs = (one.ask("state")["joint_pos_rad"] for one in (follower, leader))
                return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))

            wait_for(lambda: teleoperate.poll() is not None or apart() < 0.03)
            assert teleoperate.poll() is None
            assert abs(follower.ask("state")["joint_pos_rad"][0] - 0.5) < 0.05
        finally:
            if teleoperate.poll() is None:
                os.killpg(teleoperate.pid, signal.SIGINT)
                teleoperate.wait(60)
    assert not any(follower.ask("state")["torque_on"])


@pytest.mark.slow
def test_lerobot_calibrate_and_then_the_arm_remembers(start):
    """A person at the keyboard: ENTER in the middle, ENTER when the hand has been through all ranges."""
    arm = start("--uncalibrated", "--leader=none")
    client = arm.control()
    keyboard, terminal = pty.openpty()
    calibrate = subprocess.Popen(
        arm.command("lerobot-calibrate"), stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    os.close(terminal)
    said = bytearray()

    def listen() -> None:
        assert calibrate.stdout is not None
        while data := os.read(calibrate.stdout.fileno(), 65536):
            said.extend(data)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        wait_for(lambda: b"middle of its range" in said or calibrate.poll() is not None)
        client.ask("hand", move="to", joints_rad=_MIDDLE)
        wait_for(lambda: not client.ask("state")["moved_by_hand"])
        os.write(keyboard, b"\n")
        wait_for(lambda: b"MIN" in said or calibrate.poll() is not None)
        client.ask("hand", move="sweep", speed_rad_s=2.0)
        wait_for(lambda: not client.ask("state")["moved_by_hand"])
        os.write(keyboard, b"\n")
        assert calibrate.wait(60) == 0, said.decode(errors="replace")[-2000:]
    finally:
        if calibrate.poll() is None:
            calibrate.kill()
            calibrate.wait()
        listener.join()
        os.close(keyboard)
        assert calibrate.stdout is not None
        calibrate.stdout.close()
        client.close()
    file = arm.home / "virtual-arm" / "follower" / "calibration" / "follower.json"
    written = json.loads(file.read_text())
    arm.interrupt()

    again = start("--leader=none")
    client = again.control()
    for servo, joint in enumerate(written.values(), 1):
        for name, key in (("Homing_Offset", "homing_offset"), ("Min_Position_Limit", "range_min"), ("Max_Position_Limit", "range_max")):
            assert client.ask("register", servo=servo, name=name)["value"] == joint[key]
    client.close()
    assert json.loads(file.read_text()) == written


_MIDDLE = dict.fromkeys(("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"), 0.0) | {"gripper": 0.785}


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/dev", os.W_OK), reason="needs a port under /dev, which only root can make")
def test_lerobot_find_port_sees_it_go(start):
    port = Path(f"/dev/ttyVIRTUAL{os.getpid()}")
    arm = start("--leader=none", f"--follower-port={port}")
    client = arm.control()
    with subprocess.Popen([str(BIN / "lerobot-find-port")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as find:
        assert find.stdin is not None and find.stdout is not None
        while "Remove the USB cable" not in (line := find.stdout.readline()):
            assert line or find.poll() is None
        client.ask("unplug")
        find.stdin.write("\n")
        find.stdin.flush()
        said, _ = find.communicate(timeout=60)
        assert f"The port of this MotorsBus is '{port}'" in said
    client.ask("plug")
    client.close()
    arm.interrupt()
    assert not port.is_symlink()
