"""Keys of a terminal, a real one: a pseudo-terminal, as ssh gives."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import numpy as np
import pytest

from hilserl.config.models import TaskConfig, TrainConfig
from hilserl.errors import RobotError
from hilserl.teleop.device import Person
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.keyboard import Keyboard
from hilserl.teleop.terminal_keys import TerminalKeys

LIFT = TrainConfig(task=TaskConfig(type="lift"), actor={"intervention": {"type": "keyboard"}})


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    person, program = pty.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def test_keys_arrive_one_by_one_and_the_terminal_is_given_back(terminal):
    person, program = terminal
    before = termios.tcgetattr(program)
    with TerminalKeys(program) as keys:
        assert keys.pressed() == []
        os.write(person, b"s\x1b[A\x1bOB\x1b[5~o")
        assert keys.pressed() == ["s", "up", "down", "page up", "o"]
        os.write(person, b"\x1b[1;5Cx")  # ctrl + right means nothing here
        assert keys.pressed() == ["x"]
        assert not termios.tcgetattr(program)[3] & (termios.ECHO | termios.ICANON)
        assert termios.tcgetattr(program)[3] & termios.ISIG  # Ctrl-C goes on working
    assert termios.tcgetattr(program) == before
    assert keys.pressed() == []


def test_a_sequence_cut_by_the_network_is_one_key_and_escape_alone_is_another(terminal):
    person, program = terminal
    with TerminalKeys(program) as keys:
        os.write(person, b"\x1b")
        assert keys.pressed() == []
        os.write(person, b"[C")
        assert keys.pressed() == ["right"]
        os.write(person, b"\x1b")
        assert keys.pressed() == []
        assert keys.pressed() == ["escape"]


def test_a_pipe_is_no_terminal():
    readable, writable = os.pipe()
    with pytest.raises(RobotError, match="standard input is none"):
        TerminalKeys(readable)
    os.close(readable)
    os.close(writable)


def test_a_key_is_a_step_and_no_tap_is_lost(terminal):
    person, program = terminal
    human = Person(LIFT, Keyboard(LIFT, TerminalKeys(program)))
    os.write(person, b"\x1b[A")  # before the episode: of no meaning in it
    human.reset()
    assert human.intervene() is None
    os.write(person, b"\x1b[A\x1b[D" + b"e" + b"c")  # pressed and released between two looks
    np.testing.assert_array_equal(human.intervene(), [1, 1, 1, -1])
    np.testing.assert_array_equal(human.intervene(), [0, 0, 0, 0])  # still in control: a held key repeats after half a second
    os.write(person, b"\x1b[B\x1b[A")
    np.testing.assert_array_equal(human.intervene(), [0, 0, 0, 0])
    for _ in range(7):
        last = human.intervene()
    assert last is None
    human.close()


@pytest.mark.parametrize(
    ("key", "event"),
    [
        ("s", TeleopEvent.SUCCESS),
        ("S", TeleopEvent.SUCCESS),
        ("f", TeleopEvent.FAILURE),
        ("q", TeleopEvent.FAILURE),
        ("r", TeleopEvent.RERECORD_EPISODE),
        ("t", TeleopEvent.TERMINATE_EPISODE),
    ],
)
def test_keys_say_what_became_of_the_episode_once(terminal, key, event):
    person, program = terminal
    keyboard = Keyboard(LIFT, TerminalKeys(program))
    os.write(person, key.encode() + b"\x1b[A")
    assert keyboard.events() == {event}
    assert keyboard.events() == frozenset()
    assert keyboard.wants()  # asking for events takes no motion away
    keyboard.close()


def test_a_task_without_gripper_ignores_its_keys(terminal):
    person, program = terminal
    keyboard = Keyboard(TrainConfig(actor={"intervention": {"type": "keyboard"}}), TerminalKeys(program))
    os.write(person, b"o")
    assert not keyboard.wants()
    os.write(person, b"o\x1b[A")
    assert keyboard.wants()
    np.testing.assert_array_equal(keyboard.action(), [1, 0, 0])
    keyboard.close()


def test_a_process_that_is_interrupted_leaves_a_usable_terminal(terminal):
    _, program = terminal
    before = termios.tcgetattr(program)
    code = "import time; from hilserl.teleop.terminal_keys import TerminalKeys; TerminalKeys(); print('ready', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert termios.tcgetattr(program) != before
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert termios.tcgetattr(program) == before
