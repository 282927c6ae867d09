"""Keys of another terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hilserl.config.models import TaskConfig, TrainConfig
from hilserl.errors import RobotError
from hilserl.teleop.device import Person
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.make import make_human
from hilserl.teleop.remote_keys import RemoteKeys, listening_robots, send_key

CONFIG = TrainConfig(task=TaskConfig(type="lift"), actor={"intervention": {"type": "keyboard"}})
ROBOT = CONFIG.robot.id


def test_an_actor_without_a_terminal_is_moved_and_told_from_another(own_home, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # a service
    person = make_human(CONFIG, None)
    assert isinstance(person, Person)
    assert listening_robots() == [ROBOT]
    person.reset()
    assert person.intervene() is None
    send_key(ROBOT, "up")
    send_key(ROBOT, "c")
    send_key(ROBOT, "s")
    np.testing.assert_array_equal(person.intervene(), [1, 0, 0, -1])
    assert person.events() == {TeleopEvent.SUCCESS}
    person.close()
    with pytest.raises(RobotError, match="listens for keys on this host"):
        send_key(ROBOT, "s")


def test_only_the_owner_may_type_and_what_a_dead_actor_left_is_replaced(own_home):
    first = RemoteKeys(ROBOT)
    again = RemoteKeys(ROBOT)
    path = own_home / "robots" / ROBOT / "keys.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    send_key(ROBOT, "x" * 100)
    assert again.pressed() == ["x" * 32]
    assert again.pressed() == first.pressed() == []
    again.close()
    again.close()
    assert again.pressed() == [] and not path.exists()
    first.close()


@pytest.mark.slow
def test_the_command_sends_what_is_typed(own_home):
    listening = RemoteKeys(ROBOT)
    person, terminal = pty.openpty()
    command = [str(Path(sys.executable).parent / "hilserl"), "keys"]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert f"Keys go to the actor of `{ROBOT}`" in process.stdout.readline()
        os.write(person, b"\x1b[As")
        seen: list[str] = []
        deadline_s = time.monotonic() + 60.0
        while "s" not in seen and time.monotonic() < deadline_s:
            seen += listening.pressed()
            time.sleep(0.02)
        assert [key for key in seen if key] == ["up", "s"]
        os.write(person, b"\x1b")
        assert process.wait(60) == 0
    os.close(person)
    os.close(terminal)
    listening.close()
