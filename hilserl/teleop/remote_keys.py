"""Keys of another terminal: an actor that runs as a service has none, and the person stands at the arm with `hilserl keys`.

A Unix socket of this host, only for its owner; one datagram a key.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Protocol

from hilserl.errors import RobotError
from hilserl.files import home
from hilserl.robot.latch import robot_folder

logger = logging.getLogger(__name__)

_SOCKET = "keys.sock"
_LONGEST_NAME = 107  # of a Unix socket
_LONGEST_KEY = 32


class Keys(Protocol):
    """Where keys come from."""

    def pressed(self) -> list[str]:
        """Return the keys since the last call, in order."""

    def close(self) -> None:
        """Listen no more; safe to call twice."""


class RemoteKeys:
    """Keys that `hilserl keys` sends to the actor of one robot."""

    def __init__(self, robot_id: str) -> None:
        """Listen.

        Raises:
            RobotError: The name of the socket is too long for Linux.
        """
        self._path = robot_folder(robot_id) / _SOCKET
        if len(os.fsencode(self._path)) > _LONGEST_NAME:
            raise RobotError(
                f"{self._path}: longer than a Unix socket's name may be ({_LONGEST_NAME} bytes). Set HILSERL_HOME to a shorter one."
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._path))
        os.chmod(self._path, 0o600)

    @classmethod
    def if_possible(cls, robot_id: str) -> RemoteKeys | None:
        """Listen where the name of the socket is short enough; else say so, and return None."""
        try:
            return cls(robot_id)
        except RobotError as error:
            logger.warning("`hilserl keys` cannot reach this process: %s", error)
            return None

    def pressed(self) -> list[str]:
        """Return the keys since the last call, in order."""
        keys: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while self._socket.fileno() >= 0:
                keys.append(self._socket.recv(_LONGEST_KEY).decode(errors="replace"))
        return keys

    def close(self) -> None:
        """Listen no more; safe to call twice."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            self._path.unlink(missing_ok=True)


class AllKeys:
    """Keys of several places."""

    def __init__(self, *places: Keys | None) -> None:
        """Listen to those that there are."""
        self._places = [place for place in places if place is not None]

    def pressed(self) -> list[str]:
        """Return the keys since the last call, place by place."""
        return [key for place in self._places for key in place.pressed()]

    def close(self) -> None:
        """Listen no more; safe to call twice."""
        for place in self._places:
            place.close()


def listening_robots() -> list[str]:
    """Return the robots of this host whose actors listen for keys, or did when they died."""
    return sorted(path.parent.name for path in (home() / "robots").glob(f"*/{_SOCKET}"))


def send_key(robot_id: str, key: str) -> None:
    """Send one key to the actor of a robot.

    Raises:
        RobotError: It does not listen.
    """
    path: Path = robot_folder(robot_id) / _SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(key.encode()[:_LONGEST_KEY], str(path))
        except OSError as error:
            raise RobotError(
                f"no actor of robot `{robot_id}` listens for keys on this host ({error.strerror}). Start a training or `hilserl record` "
                "with `actor.intervention.type` leader, gamepad or keyboard."
            ) from None
