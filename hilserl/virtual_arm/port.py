"""The serial port: a pseudo-terminal under a stable name, which can be unplugged."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import struct
import tty
from pathlib import Path

from hilserl.errors import RobotError

# `termios2` of Linux: four flags, line discipline, 19 control characters, input and output speed as plain numbers.
_TCGETS2 = 0x802C542A
_TERMIOS2 = struct.Struct("4IB19s2I")
_CHUNK = 4096


class SerialPort:
    """A pseudo-terminal; the host opens `path`.

    Attributes:
        path: Symbolic link to the terminal; gone while it is unplugged.
        lost: Bytes for a host that did not read them.
    """

    def __init__(self, path: Path) -> None:
        """Plug it in.

        Raises:
            RobotError: `path` is something else, or cannot be made.
        """
        self.path = path
        self.lost = 0
        self._master = self._slave = -1
        if path.exists() and not path.is_symlink():
            raise RobotError(f"{path} exists and is no link: a virtual arm does not replace it. Choose another `--port`.")
        self.plug()

    @property
    def plugged(self) -> bool:
        """Whether it is there."""
        return self._master >= 0

    def fileno(self) -> int:
        """Return the file descriptor to wait on; -1 while it is unplugged."""
        return self._master

    def plug(self) -> None:
        """Make the terminal and its name; nothing where it is there."""
        if self.plugged:
            return
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        link = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(os.ttyname(self._slave))
            link.replace(self.path)
        except OSError as error:
            self._close()
            raise RobotError(f"{self.path}: the port of the virtual arm cannot be made there ({error.strerror}).") from None

    def unplug(self) -> None:
        """Take the terminal away from whoever has it open, as pulling the USB cable does; nothing where it is gone."""
        if self.plugged:
            with contextlib.suppress(OSError):  # somebody else took the name
                if os.readlink(self.path) == os.ttyname(self._slave):
                    self.path.unlink()
            self._close()

    def baud_rate(self) -> int:
        """Return what the host set its port to [bit/s]."""
        answer = fcntl.ioctl(self._master, _TCGETS2, bytes(_TERMIOS2.size))
        return int(_TERMIOS2.unpack(answer)[-1])

    def read(self) -> bytes:
        """Return what the host wrote; nothing where it wrote nothing."""
        try:
            return os.read(self._master, _CHUNK)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> None:
        """Give bytes to the host; what nobody reads is lost, as on a real port."""
        try:
            written = os.write(self._master, data)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO):
                raise
            written = 0
        self.lost += len(data) - written

    def _close(self) -> None:
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1
