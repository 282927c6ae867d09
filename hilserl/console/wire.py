"""The socket between the actor and the console's process: whole JSON messages, and nobody ever waits.

A pair of sockets that only the two processes hold, so that nobody else can speak. A message that finds the other side's
buffer full is lost, and whoever sends it is told.
"""

from __future__ import annotations

import json
import socket
from typing import Any

_LONGEST = 1 << 17


class Wire:
    """One end.

    Attributes:
        is_closed: The other side has gone.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self.is_closed = False

    @classmethod
    def pair(cls) -> tuple[Wire, socket.socket]:
        """Return one end, and the socket of the other for a child process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _LONGEST)
        return cls(ours), theirs

    def fileno(self) -> int:
        """Return the descriptor, for `select`; -1 after `close`."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any]) -> bool:
        """Send a message; False: it was lost."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > _LONGEST:  # the other side would read the first part of it
            return False
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError:  # it is gone, or the message is longer than a socket takes
            self.is_closed = self.is_closed or not self._is_there()
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """Return the next message; None: there is none now."""
        if self.is_closed:
            return None
        try:
            data = self._socket.recv(_LONGEST)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.is_closed = True
            return None
        message: dict[str, Any] = json.loads(data)
        return message

    def close(self) -> None:
        """Hang up; safe to call twice."""
        self.is_closed = True
        self._socket.close()

    def _is_there(self) -> bool:
        if self._socket.fileno() < 0:
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
