"""The arm moved by a gamepad, while its right shoulder button is held: LeRobot's assignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.teleop.device import Action
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.intervention import Control
from hilserl.teleop.joystick import Joystick
from hilserl.teleop.keyboard import EventKeys

HELP = (
    "hold the right shoulder button to act; left stick: forward, back, left, right; right stick: up, down; left and right trigger: "
    "close, open; Y success, A failure, X forget this episode"
)
_TRIGGER = 0.5


@dataclass(frozen=True)
class Layout:
    """Which axis and which button does what.

    Attributes:
        left_x, left_y, right_y: Axes of the sticks; right and down are positive.
        act: Button to hold.
        close, open: Buttons of the gripper.
        close_axis, open_axis: Triggers of the gripper, where they are axes.
        says: Buttons that say something of the episode.
    """

    left_x: int
    left_y: int
    right_y: int
    act: int
    close: int
    open: int
    says: dict[int, TeleopEvent]
    close_axis: int | None = None
    open_axis: int | None = None


# linux/input-event-codes.h: ABS_X 0, ABS_Y 1, ABS_Z 2, ABS_RY 4, ABS_RZ 5; BTN_A 0x130, BTN_X, BTN_Y 0x133, BTN_TR 0x137, BTN_TL2 0x138
_XBOX = Layout(
    0, 1, 4, 0x137, 0x138, 0x139,
    {0x134: TeleopEvent.SUCCESS, 0x130: TeleopEvent.FAILURE, 0x133: TeleopEvent.RERECORD_EPISODE},
    close_axis=2, open_axis=5,
)  # fmt: skip
# The indices that LeRobot 0.6.1 has built in (gamepad_utils.py): a Logitech RumblePad 2, or an F710 in its D position.
_LOGITECH = Layout(
    0, 1, 3, 5, 6, 7, {3: TeleopEvent.SUCCESS, 1: TeleopEvent.FAILURE, 0: TeleopEvent.RERECORD_EPISODE}
)  # fmt: skip
_BTN_JOYSTICK, _BTN_GAMEPAD, _ABS_RZ = 0x120, 0x130, 5


class Gamepad:
    """A gamepad as a device; keys of the terminal say of the episode what its buttons do not."""

    name = "gamepad"
    hand_back_s = 0.2

    def __init__(self, config: TrainConfig, keys: EventKeys) -> None:
        """Open it.

        Raises:
            RobotError: There is none.
        """
        settings = config.actor.intervention.gamepad
        self._pad = Joystick(settings.device)
        self._keys = keys
        self._deadzone = settings.deadzone
        self._size = len(config.action_names)
        self._pressed: set[int] = set()
        self._said: set[TeleopEvent] = set()

    @property
    def is_there(self) -> bool:
        """Whether it is connected."""
        return self._pad.is_there

    def begin_episode(self) -> None:
        """Forget what was pressed before."""
        self._look()
        self._pressed.clear()
        self._said.clear()

    def wants(self) -> bool:
        """Look at it; tell whether its button is held."""
        self._pressed.clear()
        self._look()
        return self._layout().act in self._pad.held

    def action(self) -> Action:
        """Return what sticks and triggers say; a tap on a gripper button counts, however short."""
        layout, axes = self._layout(), self._pad.axes
        wanted = [-self._stick(layout.left_y), -self._stick(layout.left_x), -self._stick(layout.right_y)]
        down = self._pad.held | self._pressed
        opens = layout.open in down or axes.get(layout.open_axis if layout.open_axis is not None else -1, -1.0) > _TRIGGER
        closes = layout.close in down or axes.get(layout.close_axis if layout.close_axis is not None else -1, -1.0) > _TRIGGER
        wanted.append(float(opens) - float(closes))
        return np.array(wanted[: self._size], np.float32)

    def changed(self, control: Control) -> None:
        """Nothing to do: it neither holds nor mirrors."""

    def events(self) -> frozenset[TeleopEvent]:
        """Return what was said since the last call."""
        self._look()
        said, self._said = frozenset(self._said), set()
        return said | self._keys.events()

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        self._pad.close()
        self._keys.close()

    def _look(self) -> None:
        pressed = self._pad.poll()
        says = self._layout().says
        self._pressed |= pressed
        self._said.update(says[button] for button in pressed if button in says)

    def _stick(self, axis: int) -> float:
        value = self._pad.axes.get(axis, 0.0)
        return 0.0 if abs(value) < self._deadzone else value

    def _layout(self) -> Layout:
        """Return the layout of the gamepad that is plugged in: codes, where the kernel tells them."""
        if not self._pad.by_code:
            return _LOGITECH
        return _XBOX if self._pad.has_button(_BTN_GAMEPAD) else _LOGITECH_BY_CODE


# The same buttons by their codes: BTN_JOYSTICK and what follows; the right stick is ABS_Z and ABS_RZ.
_LOGITECH_BY_CODE = Layout(
    _LOGITECH.left_x, _LOGITECH.left_y, _ABS_RZ,
    _BTN_JOYSTICK + _LOGITECH.act, _BTN_JOYSTICK + _LOGITECH.close, _BTN_JOYSTICK + _LOGITECH.open,
    {_BTN_JOYSTICK + button: event for button, event in _LOGITECH.says.items()},
)  # fmt: skip
