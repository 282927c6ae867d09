"""The emergency stop: a key, a signal or a socket; it latches, and only a person re-arms.

In the process that drives the arm, `EStop` listens: to SIGUSR1, and on a Unix socket in the arm's folder, in a thread of its own.
The arm looks at `reason` in every tick. From outside, `stop_robot` latches first, so that nobody moves the arm again; then it asks
that process, and kills it where it does not confirm in time: its guardian takes the arm down.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from hilserl.errors import RobotError
from hilserl.files import file_lock
from hilserl.robot.guardian_process import read_report
from hilserl.robot.latch import latch, robot_folder
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

_ANSWER_S = 10.0  # until a stop is confirmed; landing takes one or two
_HEARD_S = 1.0
ALL_OFF = "the torque of all servos is off"
_GUARDIAN_S = 30.0
_LINE = 4096
_LONGEST_PATH = 100  # a Unix socket's name holds 107 bytes


class EStop:
    """The emergency stop of one arm, in the process that drives it. Safe to press from any thread, and from a signal handler."""

    def __init__(self, robot_id: str) -> None:
        self._robot_id = robot_id
        self._pressed: str | None = None
        self._all_off: bool | None = None
        self._confirmed = threading.Event()
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._signal_before: Any = None

    @property
    def reason(self) -> str | None:
        """Who pressed it; None: nobody."""
        return self._pressed

    def start(self) -> None:
        """Listen.

        Raises:
            RobotError: The socket cannot be made.
        """
        path = socket_path(self._robot_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of a process that died: the robot's lease is ours
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            with _short(path) as name:
                self._listener.bind(name)
            os.chmod(path, 0o666)  # everybody on this machine may stop an arm
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise RobotError(
                f"{path}: the emergency stop cannot listen there ({error.strerror}). Set HILSERL_HOME to another folder."
            ) from None
        self._listener.settimeout(0.2)
        self._thread = background_thread(self._serve, "e-stop")
        self._thread.start()
        if threading.current_thread() is threading.main_thread():
            self._signal_before = signal.signal(signal.SIGUSR1, self._on_signal)

    def press(self, source: str) -> None:
        """Stop the arm with its next tick, and keep it stopped.

        Args:
            source: Who or what pressed, such as "key `space`".
        """
        if self._pressed is None:
            self._pressed = source  # first: the arm looks at this
            latch(self._robot_id, "estop", f"the emergency stop was pressed ({source}).")

    def confirm(self, all_off: bool) -> None:
        """Tell who pressed whether every servo said that its torque is off."""
        self._all_off = all_off
        self._confirmed.set()

    def close(self) -> None:
        """Stop to listen; safe to call twice."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            socket_path(self._robot_id).unlink(missing_ok=True)
        if self._signal_before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._signal_before)
            self._signal_before = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.press("signal SIGUSR1")

    def _serve(self) -> None:
        assert self._listener is not None
        while not self._closing.is_set():
            try:
                peer, _ = self._listener.accept()
            except TimeoutError:
                continue
            background_thread(partial(self._answer, peer), "e-stop peer").start()

    def _answer(self, peer: socket.socket) -> None:
        """Whoever connects stops the arm; what he says is only written down."""
        with peer, contextlib.suppress(OSError):  # who pressed does not wait for the answer
            peer.settimeout(_HEARD_S)
            said = b""
            with contextlib.suppress(TimeoutError):
                said = peer.recv(_LINE)
            self.press(said.decode(errors="replace").strip() or "socket")
            heard = self._confirmed.wait(_ANSWER_S)
            peer.sendall(json.dumps({"confirmed": heard, "all_off": self._all_off}).encode() + b"\n")


def socket_path(robot_id: str) -> Path:
    """Return where the process that drives an arm listens."""
    return robot_folder(robot_id) / "estop.sock"


def stop_robot(robot_id: str, source: str, *, patience_s: float = 3.0) -> str:
    """Stop an arm on this machine, whatever its process does. It stays stopped until `rearm`.

    Args:
        robot_id: Which arm.
        source: Who or what stops it.
        patience_s: How long the process that drives it has to confirm, before it is killed [s].

    Returns:
        What happened, for a person.
    """
    latch(robot_id, "estop", f"the emergency stop was pressed ({source}).")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(patience_s)
        try:
            with _short(socket_path(robot_id)) as name:
                peer.connect(name)
        except OSError:
            return "no process drives it now, and none will until it is re-armed"
        owner = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
        try:
            peer.sendall(source.encode() + b"\n")
            answer = json.loads(peer.recv(_LINE) or b"{}")
        except (OSError, ValueError):
            answer = {}
    if answer.get("all_off"):
        return ALL_OFF
    if answer.get("confirmed"):
        return "the arm was stopped, but not every servo said that its torque is off. Switch the arm's power supply off"
    return _kill(robot_id, owner)


def _kill(robot_id: str, owner: int) -> str:
    """Leave the arm to the guardian of a process that does not stop it."""
    with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
        os.kill(owner, signal.SIGKILL)
    try:
        with file_lock(robot_folder(robot_id) / "guardian.lock", timeout_s=_GUARDIAN_S):
            report = read_report(robot_id)
    except TimeoutError:
        return f"process {owner} did not stop it and was killed; its guardian is still at it. Switch the arm's power supply off"
    note = report.note if report is not None else "its guardian says nothing. Switch the arm's power supply off"
    return f"process {owner} did not stop it and was killed; {note}"


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Name a socket's path so shortly that it fits, in the block."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
