"""What the process that drives an arm does with its guardian: start it before any torque, beat, and say good-bye."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from typing import Self

from hilserl.config.safety import SafetyConfig
from hilserl.errors import RobotError
from hilserl.robot.guardian_process import BEAT, GOOD_BYE, READY, TAKE_OVER, Report, Settings, read_report

_START_S = 60.0
_END_S = 10.0
_DEAF_S = 2.0  # a guardian that echoes no heartbeat for so long guards nothing


class Guardian:
    """The guardian of one arm, as its owner sees it."""

    def __init__(self, port: str, *, robot_id: str, safety: SafetyConfig, lock_step: bool = False) -> None:
        """Prepare it.

        Args:
            port: Of the arm.
            robot_id: Of the arm.
            safety: How long it waits, and how it lands.
            lock_step: The arm's time stands still between steps: only the end of this process counts, not its silence.
        """
        self._settings = Settings(
            port=str(port),
            robot_id=robot_id,
            owner=os.getpid(),
            silence_s=None if lock_step else safety.guardian_silence_s,
            landing_s=safety.landing_s,
            reconnect_s=safety.reconnect_s,
            answer_s=safety.answer_s,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._echoed_s = 0.0
        self._owes_echo = False

    @property
    def running(self) -> bool:
        """Whether it guards."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "start() comes first"
        return self._process.pid

    def start(self) -> Self:
        """Start it, and wait until it guards: from now on against this process's end, and from the first heartbeat on against silence.

        Raises:
            RobotError: It does not start; an earlier one may still be busy with this arm.
        """
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "hilserl.robot.guardian_process", self._settings.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # no Ctrl-C of our terminal, no signal to our group
        )
        assert process.stdin is not None and process.stdout is not None
        ready = select.select([process.stdout], [], [], _START_S)[0] and process.stdout.readline() == READY
        if not ready:
            self._end()
            raise RobotError(
                f"the guardian of robot `{self._settings.robot_id}` did not start (exit code {process.returncode}); its reason is above. "
                "Without it nothing switches the torque off when this process dies, so the arm is not moved."
            )
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(process.stdout.fileno(), False)
        self._owes_echo = False
        return self

    def beat(self) -> None:
        """Send a heartbeat. Never blocks.

        Raises:
            RobotError: The guardian is dead or hangs: take the arm down, nobody else would.
        """
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None, "start() comes first"
        now = time.monotonic()
        if not self._owes_echo:  # a pause between heartbeats is none of the guardian's
            self._echoed_s, self._owes_echo = now, True
        try:
            os.write(process.stdin.fileno(), BEAT)
            while os.read(process.stdout.fileno(), 4096):
                self._echoed_s, self._owes_echo = now, False
        except BlockingIOError:  # all echoes are read
            pass
        except OSError:
            raise self._lost("has died") from None
        if process.poll() is not None:
            raise self._lost("has died")
        if now - self._echoed_s > _DEAF_S:
            raise self._lost(f"has not answered for {now - self._echoed_s:.1f} s")

    def take_over(self, reason: str) -> None:
        """Let it take the arm down, because this process could not; close the port first. It goes on after this process."""
        self._tell(TAKE_OVER + b"asked: " + reason.replace("\n", " ").encode()[:3000] + b"\n")

    def good_bye(self) -> None:
        """Send it home: every servo said that its torque is off. Safe to call twice."""
        self._tell(GOOD_BYE)
        self._end()

    def wait_for_report(self, timeout_s: float) -> Report | None:
        """Wait until it has ended by itself; return what it did, None where it is still at it."""
        assert self._process is not None, "start() comes first"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
            self._end()
            return read_report(self._settings.robot_id)
        return None

    def leave(self) -> None:
        """Stop to look after one that goes on; the system collects it when this process ends."""
        if self._process is not None and self._process.poll() is None:
            self._close_pipes()
            self._process.returncode = 0  # nothing to complain about when this object goes
        self._process = None

    def _tell(self, message: bytes) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # it is dead
                os.write(self._process.stdin.fileno(), message)

    def _end(self) -> None:
        if (process := self._process) is None:
            return
        self._close_pipes()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def _close_pipes(self) -> None:
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _lost(self, what: str) -> RobotError:
        return RobotError(
            f"the guardian of robot `{self._settings.robot_id}` {what}, so nothing would stop the arm if this process died. "
            "The arm is taken down; start the run again."
        )
