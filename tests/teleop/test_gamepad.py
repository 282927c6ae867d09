"""A gamepad without one: the bytes that Linux' joystick interface sends, through a pipe with a name."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hilserl.config.models import TaskConfig, TrainConfig
from hilserl.errors import RobotError
from hilserl.teleop.device import Person
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.gamepad import _LOGITECH, _LOGITECH_BY_CODE, _XBOX, Gamepad
from hilserl.teleop.joystick import Joystick
from hilserl.teleop.keyboard import EventKeys

ACT, CLOSE, OPEN = 5, 6, 7


class Pad:
    """The kernel's side."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._open()

    def _open(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR)

    def axis(self, number: int, value: float, *, initial: bool = False) -> None:
        self._send(round(value * 32767), 0x82 if initial else 0x02, number)

    def button(self, number: int, down: bool = True, *, initial: bool = False) -> None:
        self._send(int(down), 0x81 if initial else 0x01, number)

    def unplug(self) -> None:
        os.close(self.descriptor)

    def plug(self) -> None:
        self._open()

    def _send(self, value: int, kind: int, number: int) -> None:
        os.write(self.descriptor, struct.pack("<IhBB", 0, value, kind, number))


@pytest.fixture
def pad(tmp_path: Path) -> Iterator[Pad]:
    made = Pad(tmp_path / "js0")
    yield made
    made.unplug()


@pytest.fixture
def config(pad: Pad) -> TrainConfig:
    intervention = {"type": "gamepad", "gamepad": {"device": str(pad.path)}, "take_over_s": 0.0}
    return TrainConfig(task=TaskConfig(type="lift"), actor={"intervention": intervention})


@pytest.fixture
def gamepad(config: TrainConfig) -> Iterator[Gamepad]:
    made = Gamepad(config, EventKeys(None))
    yield made
    made.close()


def test_sticks_move_the_arm_while_the_button_is_held(pad, config, gamepad):
    human = Person(config, gamepad)
    human.reset()
    pad.axis(1, -1.0)
    assert human.intervene() is None  # not without the button
    pad.button(ACT)
    pad.axis(0, -0.5)
    pad.axis(3, 1.0)
    action = human.intervene()
    np.testing.assert_allclose(action, [1.0, 0.5, -1.0, 0.0], atol=1e-4)  # forward, left, down: as in LeRobot
    pad.button(ACT, down=False)
    assert human.intervene() is not None
    assert human.intervene() is not None  # 0.2 s
    assert human.intervene() is None


def test_a_tap_between_two_looks_counts_and_so_do_both_grip_buttons(pad, gamepad):
    pad.button(ACT)
    pad.button(CLOSE)
    pad.button(CLOSE, down=False)
    assert gamepad.wants()
    assert gamepad.action()[3] == -1.0
    gamepad.wants()
    assert gamepad.action()[3] == 0.0
    pad.button(OPEN)
    gamepad.wants()
    assert gamepad.action()[3] == 1.0


def test_small_deflections_are_none(pad, gamepad):
    pad.button(ACT)
    pad.axis(1, 0.09)
    gamepad.wants()
    np.testing.assert_array_equal(gamepad.action(), np.zeros(4))


@pytest.mark.parametrize(("button", "event"), [(3, TeleopEvent.SUCCESS), (1, TeleopEvent.FAILURE), (0, TeleopEvent.RERECORD_EPISODE)])
def test_buttons_say_what_became_of_the_episode_once(pad, gamepad, button, event):
    pad.button(button)
    pad.button(button, down=False)
    assert gamepad.events() == {event}
    assert gamepad.events() == frozenset()


@pytest.mark.failure("R21")
def test_a_button_that_was_down_before_the_episode_is_no_intervention(pad, config, gamepad):
    pad.button(ACT, initial=True)
    human = Person(config, gamepad)
    human.reset()
    assert all(human.intervene() is None for _ in range(5))
    pad.button(ACT, down=False)
    human.intervene()
    pad.button(ACT)
    assert human.intervene() is not None


@pytest.mark.failure("R21")
def test_a_gamepad_that_goes_lets_go_and_is_used_again_when_it_is_back(pad, config, gamepad, monkeypatch, caplog):
    monkeypatch.setattr("hilserl.teleop.joystick._RETRY_S", 0.0)
    human = Person(config, gamepad)
    human.reset()
    human.intervene()
    pad.button(ACT)
    pad.axis(1, -1.0)
    assert human.intervene()[0] == pytest.approx(1.0)
    pad.unplug()
    np.testing.assert_array_equal(human.intervene(), np.zeros(4))  # handing back, without motion
    human.intervene()
    assert human.intervene() is None
    assert "is gone" in caplog.text
    pad.plug()
    human.intervene()
    pad.button(ACT)
    assert human.intervene() is not None


def test_no_gamepad_is_an_error_that_says_where_to_look(tmp_path):
    with pytest.raises(RobotError, match=r"no gamepad there \(No such file"):
        Joystick(str(tmp_path / "js7"))


def test_the_layouts_are_of_the_kernels_codes():
    from evdev import ecodes

    assert (_XBOX.left_x, _XBOX.left_y, _XBOX.right_y) == (ecodes.ABS_X, ecodes.ABS_Y, ecodes.ABS_RY)
    assert (_XBOX.close_axis, _XBOX.open_axis) == (ecodes.ABS_Z, ecodes.ABS_RZ)
    assert (_XBOX.act, _XBOX.close, _XBOX.open) == (ecodes.BTN_TR, ecodes.BTN_TL2, ecodes.BTN_TR2)
    assert _XBOX.says == {
        ecodes.BTN_Y: TeleopEvent.SUCCESS,
        ecodes.BTN_A: TeleopEvent.FAILURE,
        ecodes.BTN_X: TeleopEvent.RERECORD_EPISODE,
    }
    assert (_LOGITECH_BY_CODE.left_x, _LOGITECH_BY_CODE.right_y) == (ecodes.ABS_X, ecodes.ABS_RZ)
    assert _LOGITECH_BY_CODE.act == ecodes.BTN_JOYSTICK + _LOGITECH.act
