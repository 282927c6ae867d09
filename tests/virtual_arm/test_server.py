"""The process: its port, its control socket, its clock, what it remembers, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial

from hilserl.errors import RobotError
from hilserl.robot.packets import Instruction, Packet, PacketReader
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import ControlClient
from hilserl.virtual_arm.server import ServerOptions

LOCK_STEP = ArmOptions(lock_step_hz=50.0, timing=Timing(wire=False))


def ask_port(path: Path, packet: Packet, answers: int = 1, baud_rate: int = 1_000_000) -> list[Packet]:
    reader, received = PacketReader(), []
    with serial.Serial(str(path), baud_rate, timeout=0.05) as port:
        port.write(packet.encode())
        deadline_s = time.monotonic() + 30.0
        while len(received) < answers and time.monotonic() < deadline_s:
            received += reader.feed(port.read(64))
    return received


def test_the_port_is_there_while_the_arm_is(start_arm):
    arm = start_arm()
    assert ask_port(arm.port, Packet(1, Instruction.PING)) == [Packet(1, 0)]
    assert ask_port(arm.port, Packet(2, Instruction.PING)) == [Packet(2, 0)]  # opened again
    arm.stop()
    assert not arm.port.is_symlink()
    assert not arm.options.control_path.exists()


@pytest.mark.parametrize("baud_rate", [500_000, 250_000, 128_000])
def test_the_ports_baud_rate_is_the_hosts(start_arm, baud_rate):
    arm = start_arm()
    arm.ask("register", servo=3, name="Baud_Rate", value={500_000: 1, 250_000: 2, 128_000: 3}[baud_rate])
    assert ask_port(arm.port, Packet(0xFE, Instruction.PING), baud_rate=baud_rate) == [Packet(3, 0)]


def test_unplugging_ends_an_open_port_and_plugging_makes_it_anew(start_arm):
    arm = start_arm()
    with serial.Serial(str(arm.port), 1_000_000, timeout=0.1) as port:
        arm.ask("unplug")
        with pytest.raises((serial.SerialException, OSError)):
            for _ in range(100):
                port.read(1)
    assert not arm.port.exists()
    arm.ask("unplug")
    arm.ask("plug")
    arm.ask("plug")
    assert ask_port(arm.port, Packet(1, Instruction.PING)) == [Packet(1, 0)]


def test_lock_step_time_passes_only_with_goals(start_arm):
    arm = start_arm(arm=LOCK_STEP)
    goals = Packet(0xFE, Instruction.SYNC_WRITE, bytes([42, 2, 1, 0, 8, 2, 0, 8]))
    others = Packet(0xFE, Instruction.SYNC_WRITE, bytes([41, 1, 1, 50, 2, 50]))
    for packet in (others, goals, others, goals):
        ask_port(arm.port, packet, answers=0)
    assert ask_port(arm.port, Packet(1, Instruction.PING)) == [Packet(1, 0)]
    assert arm.ask("state")["time_s"] == pytest.approx(0.04)
    assert arm.ask("advance", seconds=1.0)["time_s"] == pytest.approx(1.04)


def test_real_time_is_real(start_arm):
    arm = start_arm(arm=ArmOptions())
    before_s, began_s = arm.ask("state")["time_s"], time.monotonic()
    while time.monotonic() - began_s < 0.5:
        time.sleep(0.05)
    passed_s = arm.ask("state")["time_s"] - before_s
    assert 0.05 < passed_s < time.monotonic() - began_s + 0.3  # a slow machine slows it, nothing hurries it


def test_eeprom_is_remembered_if_wanted(start_arm, tmp_path):
    for keep, expected in ((True, 7), (False, 0)):
        folder = tmp_path / str(keep)
        arm = start_arm(folder=folder, keep_eeprom=keep)
        for register, value in ((55, 0), (23, 7)):
            assert ask_port(arm.port, Packet(4, Instruction.WRITE, bytes([register, value])))
        arm.stop()
        assert start_arm(folder=folder, keep_eeprom=keep).ask("register", servo=4, name="I_Coefficient")["value"] == expected


def test_a_damaged_memory_is_named(start_arm, tmp_path, capfd):
    (tmp_path / "eeprom.json").write_text("{}")
    with pytest.raises(RobotError, match="did not start"):
        start_arm(folder=tmp_path, keep_eeprom=True)
    assert "no EEPROM of a virtual arm" in capfd.readouterr().err


def test_a_second_arm_in_the_same_folder_is_refused(start_arm, tmp_path, capfd):
    start_arm(folder=tmp_path)
    with pytest.raises(RobotError, match="did not start"):
        start_arm(folder=tmp_path)
    assert "a virtual arm runs there already" in capfd.readouterr().err


def test_a_port_name_that_is_taken_by_something_else_is_left_alone(start_arm, tmp_path, capfd):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(RobotError, match="did not start"):
        start_arm(port=tmp_path / "mine")
    assert "does not replace it" in capfd.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


def test_the_remains_of_a_killed_arm_are_no_obstacle(start_arm, tmp_path):
    arm = start_arm(folder=tmp_path)
    arm._process.send_signal(signal.SIGKILL)
    arm._process.wait()
    assert ask_port(start_arm(folder=tmp_path).port, Packet(1, Instruction.PING)) == [Packet(1, 0)]


def test_it_ends_with_whoever_started_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from hilserl.virtual_arm.client import VirtualArmProcess;"
        "from hilserl.virtual_arm.server import ServerOptions;"
        f"VirtualArmProcess(ServerOptions(Path({str(tmp_path)!r}), until_stdin_ends=True)).start();"
        "print('up', flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    client = ControlClient(tmp_path / "control.sock")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline_s = time.monotonic() + 30.0
    while (tmp_path / "control.sock").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    client.close()


# The control socket


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (b"nonsense", "Expecting value"),
        (b"[]", "a request is"),
        (b'{"do": "fly"}', "one of the verbs advance, camera, cube, frame, hand, jam"),
        (b'{"do": "jam"}', "`servo`: missing required argument"),
        (b'{"do": "jam", "servo": 9}', "servo 9: there are 1 to 6"),
        (b'{"do": "jam", "servo": "three"}', "`servo`: input should be a valid integer"),
        (b'{"do": "wire", "faults": {"dorp": 1}}', "'dorp' is unknown. There are: drop,"),
        (b'{"do": "servo", "servo": 1, "ailments": {"sick": true}}', "'sick' is unknown"),
        (b'{"do": "register", "servo": 1, "name": "Goal"}', "'Goal' is unknown"),
        (b'{"do": "register", "servo": 1, "name": "ID", "value": 300}', "does not fit"),
        (b'{"do": "hand", "move": "to", "joints_rad": {"thumb": 1}}', "'thumb' is unknown"),
        (b'{"do": "hand", "move": "recording"}', "needs the `folder`"),
        (b'{"do": "advance", "seconds": 1e9}', "give 0 to 3600 s"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(shared_control, request_, complaint):
    answer = shared_control(request_)
    assert answer["ok"] is False
    assert complaint in answer["error"]


@pytest.fixture(scope="module")
def shared_control(tmp_path_factory):
    from hilserl.virtual_arm.client import VirtualArmProcess

    options = ServerOptions(folder=tmp_path_factory.mktemp("arm"), arm=LOCK_STEP, until_stdin_ends=True)
    with VirtualArmProcess(options), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(options.control_path))
        lines = peer.makefile("rb")

        def ask(line: bytes) -> dict:
            peer.sendall(line + b"\n")
            return dict(json.loads(lines.readline()))

        yield ask
        lines.close()


def test_the_socket_is_for_its_owner_only(start_arm):
    assert os.stat(start_arm().options.control_path).st_mode & 0o777 == 0o600


def test_nobody_there_is_said(tmp_path):
    with pytest.raises(RobotError, match="no virtual arm listens there"):
        ControlClient(tmp_path / "control.sock")


def test_a_refusal_is_an_error_of_the_client(start_arm):
    with pytest.raises(RobotError, match=r"refused `jam`: servo 9"):
        start_arm().ask("jam", servo=9)
