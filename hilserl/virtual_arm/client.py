"""Start a virtual arm as a process of its own, and talk to its control socket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hilserl.errors import RobotError
from hilserl.virtual_arm.server import ServerOptions

READY = "ready"
_START_S = 60.0
_ANSWER_S = 60.0
_END_S = 10.0


class ControlClient:
    """Asks the control socket of a virtual arm."""

    def __init__(self, path: Path) -> None:
        """Connect.

        Raises:
            RobotError: Nobody listens there.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER_S)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise RobotError(f"{path}: no virtual arm listens there ({error.strerror}). Start one with `hilserl virtual-arm`.") from None
        self._lines = self._socket.makefile("r")

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask for something; see the verbs of `Control`.

        Raises:
            RobotError: The arm refused, with its reason, or is gone.
        """
        try:
            self._socket.sendall(json.dumps({"do": do} | arguments, default=str).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise RobotError(f"the virtual arm did not answer `{do}` ({error!r}).") from None
        if not line:
            raise RobotError(f"the virtual arm ended before it answered `{do}`.")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise RobotError(f"the virtual arm refused `{do}`: {answer['error']}")
        return answer

    def close(self) -> None:
        """Hang up; safe to call twice."""
        self._lines.close()
        self._socket.close()


class VirtualArmProcess:
    """A virtual arm in a process of its own; ends with the `with` block, or with this process.

    Attributes:
        options: What it serves.
        port: Path of its serial port.
        calibration: LeRobot's calibration file of it.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.port = options.port_path
        self.calibration = options.calibration_path
        self._process: subprocess.Popen[str] | None = None
        self._client: ControlClient | None = None

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            RobotError: It ended, with its reason, or did not answer in time.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hilserl.virtual_arm", self.options.to_json()],
            stdin=subprocess.PIPE if self.options.until_stdin_ends else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != READY:
            code = self._process.wait(_END_S)
            self.stop()
            raise RobotError(f"the virtual arm in {self.options.folder} did not start (exit code {code}); its reason is above.")
        self._client = ControlClient(self.options.control_path)
        return self

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask the arm for something; see `ControlClient.ask`."""
        assert self._client is not None, "start() comes first"
        return self._client.ask(do, **arguments)

    def camera(self, name: str) -> Path:
        """Return where the frames of a camera are, for a `FrameReader`."""
        return self.options.camera_path(name)

    def wait_for_hand(self, timeout_s: float = 120.0) -> None:
        """Wait until the hand has arrived.

        Raises:
            RobotError: It has not, in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.ask("state")["moved_by_hand"]:
            if time.monotonic() > deadline_s:
                raise RobotError(f"the hand had not arrived after {timeout_s:.0f} s.")
            time.sleep(0.02)

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it; safe to call twice."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()
