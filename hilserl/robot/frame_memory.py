"""One camera's newest frame in shared memory: a file that a renderer writes and any process reads, without copies in between.

A header of 256 bytes, then the pixels (H, W, 3), uint8, RGB. The header's sequence is odd while a frame is being written
(a seqlock): who reads it before and after copying knows whether the copy is whole. Times are the monotonic clock of the machine.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hilserl.errors import RobotError

Image = NDArray[np.uint8]

_MAGIC = b"HILSERL1"
_HEADER_BYTES = 256
_FIXED = struct.Struct("<8sIId128s")  # magic, width, height, frames per second, socket to ask for a frame (none: frames come by themselves)
_MOVING = struct.Struct("<QQQQ")  # sequence, number, time [ns], 1 when the camera has gone
_SEQUENCE = struct.Struct("<Q")
_MOVING_AT = 192
_GONE_AT = _MOVING_AT + 24
_WHOLE_S = 1.0
_ASK_S = 30.0
_POLL_S = 0.0005


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        image: RGB, shape (H, W, 3), uint8; a copy.
        number: Counts the frames of this camera, from 1 on.
        at: When it was taken, by `time.monotonic()` [s].
    """

    image: Image
    number: int
    at: float

    @property
    def age_s(self) -> float:
        """How long ago it was taken [s]."""
        return time.monotonic() - self.at


class FrameWriter:
    """Publishes frames. One writer per file.

    Attributes:
        path: Of the file.
        number: Of the newest frame; 0: none yet.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float = 0.0, request_socket: Path | None = None) -> None:
        """Make the file, in place of one that an earlier writer left.

        Args:
            path: Of the file.
            width: Of the frames [px].
            height: Of the frames [px].
            fps: Frames per second; 0: on request only.
            request_socket: Where a reader asks for a frame; None: they come by themselves.

        Raises:
            RobotError: The file cannot be made, or the socket's name is too long.
        """
        asked_at = os.fsencode(request_socket) if request_socket else b""
        if len(asked_at) > 107:
            raise RobotError(f"{request_socket}: longer than the 107 bytes that a Unix socket's name may have. Choose a shorter folder.")
        self.path = path
        self.number = 0
        self._sequence = 0
        header = _FIXED.pack(_MAGIC, width, height, fps, asked_at)
        new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(header.ljust(_HEADER_BYTES, b"\0"))
                file.truncate(_HEADER_BYTES + height * width * 3)
            self._memory = _map(new, writable=True)
            new.replace(path)  # whole from the first look on; readers of the old file keep it, and see that it has gone
        except OSError as error:
            new.unlink(missing_ok=True)
            raise RobotError(f"{path}: no frame memory can be made there ({error.strerror}). Choose another folder.") from None
        self._pixels = np.frombuffer(self._memory, np.uint8, offset=_HEADER_BYTES).reshape(height, width, 3)

    def write(self, image: Image, at: float | None = None) -> None:
        """Publish a frame (H, W, 3), uint8, RGB, taken at `at` by `time.monotonic()` [s]; None: now."""
        taken_ns = time.monotonic_ns() if at is None else round(at * 1e9)
        self.number += 1
        _SEQUENCE.pack_into(self._memory, _MOVING_AT, self._sequence + 1)
        self._pixels[:] = image
        _MOVING.pack_into(self._memory, _MOVING_AT, self._sequence + 1, self.number, taken_ns, 0)
        self._sequence += 2
        _SEQUENCE.pack_into(self._memory, _MOVING_AT, self._sequence)

    def close(self) -> None:
        """Take the camera away, as pulling its cable does; safe to call twice."""
        if self._memory.closed:
            return
        _SEQUENCE.pack_into(self._memory, _GONE_AT, 1)
        del self._pixels
        self._memory.close()
        self.path.unlink(missing_ok=True)


class FrameReader:
    """Reads the newest frame of a camera; ends with the `with` block.

    Attributes:
        path: Of the file.
        width: Of the frames [px].
        height: Of the frames [px].
        fps: Frames per second; 0: on request only.
        on_request: Whether frames are made when `request` asks for them, and not by themselves.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            RobotError: There is no camera, or the file is none of ours.
        """
        self.path = path
        try:
            self._memory = _map(path, writable=False)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "empty"
            raise RobotError(f"{path}: no camera there ({reason}). Start one with `hilserl virtual-arm --camera wrist`.") from None
        magic, self.width, self.height, self.fps, asked_at = (
            _FIXED.unpack_from(self._memory) if len(self._memory) >= _HEADER_BYTES else (b"", 0, 0, 0.0, b"")
        )
        self._size = self.height * self.width * 3
        if magic != _MAGIC or len(self._memory) != _HEADER_BYTES + self._size:
            self._memory.close()
            raise RobotError(f"{path}: not the frame memory of a camera of this version. Start the virtual arm again.")
        self._asked_at = asked_at.rstrip(b"\0")
        self._socket: socket.socket | None = None

    @property
    def on_request(self) -> bool:
        """Whether frames are made when `request` asks for them."""
        return bool(self._asked_at)

    @property
    def number(self) -> int:
        """Number of the newest frame; 0: there is none yet."""
        return int(_MOVING.unpack_from(self._memory, _MOVING_AT)[1])

    def latest(self) -> Frame | None:
        """Return the newest frame, however old it is; None: there is none yet.

        Raises:
            RobotError: The camera has gone, or its writer stopped in the middle of a frame.
        """
        give_up_s = time.monotonic() + _WHOLE_S
        while True:
            sequence, number, taken_ns, gone = _MOVING.unpack_from(self._memory, _MOVING_AT)
            if gone:
                raise RobotError(f"{self.path}: the camera has gone. Plug it in, or start it again, then connect anew.")
            if number == 0 and sequence == 0:
                return None
            if sequence % 2 == 0:
                pixels = np.frombuffer(self._memory, np.uint8, self._size, _HEADER_BYTES).copy()
                if _SEQUENCE.unpack_from(self._memory, _MOVING_AT)[0] == sequence:
                    return Frame(pixels.reshape(self.height, self.width, 3), number, taken_ns / 1e9)
            if time.monotonic() > give_up_s:
                raise RobotError(f"{self.path}: the camera stopped in the middle of a frame. Start it again.")
            time.sleep(_POLL_S)

    def wait(self, after: int, timeout_s: float) -> Frame | None:
        """Return the newest frame once its number is greater than `after`; asks for one where frames are made on request.

        Returns:
            The frame; None: none came in time, so the camera is frozen.

        Raises:
            RobotError: The camera has gone.
        """
        give_up_s = time.monotonic() + timeout_s
        if self.on_request and self.number <= after:
            self.request()
        while (frame := self.latest()) is None or frame.number <= after:
            if time.monotonic() > give_up_s:
                return None
            time.sleep(_POLL_S)
        return frame

    def request(self) -> None:
        """Have a frame made now, where frames are made on request; returns when it is there, or when the camera is frozen.

        Raises:
            RobotError: Frames come by themselves, or nobody makes them any more.
        """
        if not self.on_request:
            raise RobotError(f"{self.path}: this camera's frames come by themselves.")
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(_ASK_S)
                self._socket.connect(self._asked_at)
            self._socket.sendall(json.dumps({"do": "frame", "camera": self.path.stem}).encode() + b"\n")
            answer = _line(self._socket)
        except OSError as error:
            raise RobotError(f"{self.path}: nobody makes frames any more ({error!r}). Start the virtual arm again.") from None
        if not answer.get("ok"):
            raise RobotError(f"{self.path}: {answer.get('error', 'the virtual arm ended')}")

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        self._memory.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _map(path: Path, *, writable: bool) -> mmap.mmap:
    with path.open("r+b" if writable else "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)


def _line(connection: socket.socket) -> dict[str, Any]:
    """Receive one line of JSON; empty where the other side hung up."""
    received = bytearray()
    while not received.endswith(b"\n"):
        if not (data := connection.recv(4096)):
            return {}
        received += data
    answer: dict[str, Any] = json.loads(received)
    return answer
