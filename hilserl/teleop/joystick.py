"""A gamepad as Linux tells it: every press and every motion, in order, on /dev/input/js*. No library, no display."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import time

from hilserl.errors import RobotError

logger = logging.getLogger(__name__)

# linux/joystick.h
_EVENT = struct.Struct("<IhBB")  # time [ms], value, type, number
_BUTTON, _AXIS, _INITIAL = 0x01, 0x02, 0x80
_FULL = 32767.0
_AXIS_MAP, _BUTTON_MAP = 0x80406A32, 0x84006A34  # JSIOCGAXMAP, JSIOCGBTNMAP
_AXES, _BUTTONS = 64, 512
_CHUNK = 64 * _EVENT.size
_RETRY_S = 1.0


class Joystick:
    """Axes and buttons of a gamepad, by their kernel's codes (linux/input-event-codes.h) where it tells them, else by number.

    A gamepad that is unplugged, or out of reach, lets go of everything; it is opened again as soon as it is back.

    Attributes:
        device: Its path.
        axes: Positions, -1 to 1, by code or number.
        held: Buttons that are down.
        by_code: Whether they go by codes.
    """

    def __init__(self, device: str) -> None:
        """Open it.

        Raises:
            RobotError: It is not there, or may not be read.
        """
        self.device = device
        self.axes: dict[int, float] = {}
        self.held: set[int] = set()
        self.by_code = False
        self._codes: tuple[list[int], list[int]] | None = None
        self._descriptor = -1
        self._rest = b""
        self._next_try_s = 0.0
        try:
            self._open()
        except OSError as error:
            raise RobotError(
                f"{device}: no gamepad there ({error.strerror}). Plug it in or switch it on, and look with `ls /dev/input/js*`; "
                "set `actor.intervention.gamepad.device`. Permission denied: join the group `input`."
            ) from None

    @property
    def is_there(self) -> bool:
        """Whether it is connected."""
        return self._descriptor >= 0

    def poll(self) -> set[int]:
        """Take what happened since the last call; return the buttons that were pressed meanwhile, even if they are up again."""
        if not self.is_there and not self._back():
            return set()
        pressed: set[int] = set()
        try:
            while data := os.read(self._descriptor, _CHUNK):
                self._rest += data
            self._lost("no more events")  # end of file
        except BlockingIOError:  # nothing more for now
            pass
        except OSError as error:
            self._lost(error.strerror or repr(error))
        whole = len(self._rest) // _EVENT.size * _EVENT.size
        events, self._rest = self._rest[:whole], self._rest[whole:]
        if self.is_there:
            for _, value, kind, number in _EVENT.iter_unpack(events):
                self._take(value, kind, number, pressed)
        return pressed

    def has_button(self, code: int) -> bool:
        """Tell whether the kernel says that it has a button of this code."""
        return self._codes is not None and code in self._codes[1]

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self, value: int, kind: int, number: int, pressed: set[int]) -> None:
        axes, buttons = self._codes or ([], [])
        if kind & ~_INITIAL == _AXIS:
            self.axes[axes[number] if number < len(axes) else number] = max(value / _FULL, -1.0)
        elif kind & ~_INITIAL == _BUTTON:
            button = buttons[number] if number < len(buttons) else number
            if not value:
                self.held.discard(button)
            else:
                self.held.add(button)
                if not kind & _INITIAL:
                    pressed.add(button)

    def _open(self) -> None:
        self._descriptor = os.open(self.device, os.O_RDONLY | os.O_NONBLOCK)
        self._rest, self._codes = b"", None
        with contextlib.suppress(OSError):  # what is no joystick of the kernel knows no codes
            axes = fcntl.ioctl(self._descriptor, _AXIS_MAP, bytes(_AXES))
            buttons = fcntl.ioctl(self._descriptor, _BUTTON_MAP, bytes(2 * _BUTTONS))
            self._codes = list(axes), list(struct.unpack(f"<{_BUTTONS}H", buttons))
        self.by_code = self._codes is not None

    def _lost(self, reason: str) -> None:
        self.close()
        self.axes.clear()
        self.held.clear()
        self._next_try_s = time.monotonic() + _RETRY_S
        logger.warning("The gamepad %s is gone (%s): the policy acts. It is used again when it is back.", self.device, reason)

    def _back(self) -> bool:
        if time.monotonic() < self._next_try_s:
            return False
        self._next_try_s = time.monotonic() + _RETRY_S
        try:
            self._open()
        except OSError:  # it says so once, when it goes
            return False
        logger.info("The gamepad %s is back.", self.device)
        return True
