"""Keys of the terminal, one by one, without a display: works over ssh. A terminal tells only that a key went down, not up."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import termios
from types import TracebackType
from typing import Any, Self

from hilserl.errors import RobotError

logger = logging.getLogger(__name__)

_CHUNK = 1024
_SEQUENCES = {
    **{b"\x1b[" + code: name for code, name in ((b"A", "up"), (b"B", "down"), (b"C", "right"), (b"D", "left"))},
    **{b"\x1bO" + code: name for code, name in ((b"A", "up"), (b"B", "down"), (b"C", "right"), (b"D", "left"))},
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
}
_LONGEST = max(map(len, _SEQUENCES))


class TerminalKeys:
    """Keys that were pressed in a terminal since the last look; Ctrl-C goes on working. Restored at the end, however that comes."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Take the terminal over.

        Args:
            descriptor: Of the terminal; None: standard input.

        Raises:
            RobotError: It is none.
        """
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._waiting = b""
        if not os.isatty(self._descriptor):
            raise RobotError(
                "keys come from a terminal, and standard input is none. Start this in a terminal (ssh is fine), not as a service or in a "
                "pipe; or choose `actor.intervention.type: gamepad` or `leader`."
            )
        self._before: list[Any] | None = termios.tcgetattr(self._descriptor)
        now = termios.tcgetattr(self._descriptor)
        now[3] &= ~(termios.ICANON | termios.ECHO)
        now[6][termios.VMIN], now[6][termios.VTIME] = 0, 0  # reading never waits
        termios.tcsetattr(self._descriptor, termios.TCSANOW, now)
        atexit.register(self.close)

    @classmethod
    def if_there_are(cls) -> TerminalKeys | None:
        """Take standard input over where it is a terminal, and this process in its foreground; else None."""
        if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty() or not _is_ours(sys.stdin.fileno()):
            return None
        return cls()

    def pressed(self) -> list[str]:
        """Return the keys since the last call, in order: characters, or names such as `up`, `page down` and `escape`."""
        if self._before is None or not _is_ours(self._descriptor):
            return []
        fresh = b""
        try:
            while data := os.read(self._descriptor, _CHUNK):
                fresh += data
        except OSError as error:
            logger.warning("The terminal is gone (%s): keys say nothing any more.", error.strerror)
            self._before = None
            return []
        # A sequence may be cut in two by the network; an escape to which nothing came until now was that key.
        text, self._waiting = self._waiting + fresh, b""
        keys: list[str] = []
        while text:
            if not text.startswith(b"\x1b"):
                keys.append(text[:1].decode("latin-1"))
                text = text[1:]
            elif found := next((code for code in _SEQUENCES if text.startswith(code)), None):
                keys.append(_SEQUENCES[found])
                text = text[len(found) :]
            elif fresh and len(text) < _LONGEST and any(code.startswith(text) for code in _SEQUENCES):
                self._waiting, text = text, b""
            elif text == b"\x1b":
                keys.append("escape")
                text = b""
            else:
                text = text[_unknown(text) :]
        return keys

    def close(self) -> None:
        """Give the terminal back as it was; safe to call twice."""
        if self._before is not None:
            with contextlib.suppress(OSError, termios.error):  # a terminal that was closed needs nothing back
                if _is_ours(self._descriptor):
                    termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)
            self._before = None
            atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _is_ours(descriptor: int) -> bool:
    """Tell whether we are in the foreground of a terminal: using it from the background would stop this process."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody stops us
        return True


def _unknown(text: bytes) -> int:
    """Return the length of an escape sequence that means nothing here."""
    if text[1:2] not in (b"[", b"O"):
        return 2
    for index in range(2, len(text)):
        if 0x40 <= text[index] <= 0x7E:
            return index + 1
    return len(text)
