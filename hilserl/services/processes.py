"""A child process with a log file that can neither outlive us nor die unnoticed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hilserl.errors import ServiceError
from hilserl.files import home

_GUARD = Path(__file__).with_name("guard.py")
_TAIL_LINES = 15
_SMALL_DISK_BYTES = 10_000_000


class ManagedProcess:
    """One service: started in its own session under a guard, watched, stopped with all it started.

    Args:
        name: What a person calls it, such as `Prefect server`; the log is `<HILSERL_HOME>/logs/<name>.log`.
        command: Program and arguments.
        env: Its whole environment; None inherits ours.
        cwd: Its working directory; None inherits ours.
        log: Another log file.
        grace_s: Time between SIGTERM and SIGKILL when the whole tree has to end [s].
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        grace_s: float = 10.0,
    ) -> None:
        self.name = name
        self.log = log or home() / "logs" / f"{name.lower().replace(' ', '-')}.log"
        self._command, self._env, self._cwd, self._grace_s = list(command), env, cwd, grace_s
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def start(self, *, pass_fds: Sequence[int] = ()) -> None:
        """Start it, also again when it has ended, and return at once. The previous log is kept as `.old`.

        Args:
            pass_fds: Descriptors that stay open exactly as long as the service's tree lives (a lock).
        """
        assert not self.is_alive, f"{self.name} is running"
        self._stopping = False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        guarded = [sys.executable, str(_GUARD), str(os.getpid()), str(self._grace_s), *self._command]
        with self.log.open("wb") as log:
            self._guard = subprocess.Popen(
                guarded,
                env=self._env,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        """Process id of the guard, the root of the service's process tree."""
        assert self._guard is not None, f"{self.name} was not started"
        return self._guard.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, or None while anything of the service is alive or before its start."""
        return None if self._guard is None else self._guard.poll()

    @property
    def was_started(self) -> bool:
        """Whether `start` was called."""
        return self._guard is not None

    @property
    def is_alive(self) -> bool:
        """Whether it was started and anything of it still runs."""
        return self._guard is not None and self._guard.poll() is None

    def check(self) -> None:
        """Do nothing while the service lives.

        Raises:
            ServiceError: It ended although nobody stopped it; quotes the end of its log.
        """
        if self.exit_code is not None and not self._stopping:
            free = shutil.disk_usage(self.log.parent).free
            disk = f" Its disk is full: {free / 1e6:.1f} MB are free under {self.log.parent}." if free < _SMALL_DISK_BYTES else ""
            raise ServiceError(f"{self.name} ended unexpectedly with code {self.exit_code}.{disk}{self.log_tail()}\nFull log: {self.log}")

    def log_tail(self) -> str:
        """Return the last lines of the log, indented, or nothing if there are none."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return "".join(f"\n  | {line}" for line in ["The end of its log:", *lines[-_TAIL_LINES:]]) if lines else " It wrote no log."

    def request_stop(self, *, everything: bool = False) -> None:
        """Ask it to end, and do not wait.

        Args:
            everything: False: SIGTERM to the service alone, which may finish what it is doing.
                True: SIGTERM to all it started, then to the service; SIGKILL after the grace period.
        """
        self._stopping = True
        if self._guard is not None and self._guard.poll() is None:
            self._guard.send_signal(signal.SIGUSR1 if everything else signal.SIGTERM)

    def stop(self, timeout_s: float = 0.0) -> None:
        """End the service and everything it started; harmless before `start` and when repeated.

        Args:
            timeout_s: Time that the service alone has, after a SIGTERM, to finish what it is doing [s]; then its whole tree is ended.
        """
        if self._guard is None:
            return
        if timeout_s > 0:
            self.request_stop()
            if self._ended_within(timeout_s):
                return
        self.request_stop(everything=True)
        if not self._ended_within(2 * self._grace_s + 5.0):
            _kill_tree(self._guard.pid)
            self._guard.wait()

    def _ended_within(self, timeout_s: float) -> bool:
        assert self._guard is not None
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def _kill_tree(pid: int) -> None:
    import psutil

    root = psutil.Process(pid)
    for process in [*root.children(recursive=True), root]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue  # it ended by itself in the meantime


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int, what: str, remedy: str, host: str = "127.0.0.1") -> None:
    """Refuse a port that is taken, before anything is started on it.

    Raises:
        ServiceError: Names the port, who holds it where the system tells, and the remedy.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise ServiceError(f"Port {port} for the {what} needs administrator rights. {remedy}") from None
        except OSError as error:
            raise ServiceError(f"Port {port} for the {what} is in use{_holder(port)} ({error.strerror} on {host}). {remedy}") from None


def _holder(port: int) -> str:
    import psutil

    try:
        pids = {c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port and c.pid}
        names = [f"process {pid}, {psutil.Process(pid).name()}" for pid in sorted(pids)]
    except psutil.Error:
        return ""  # another user's process: the system does not say
    return f" by {'; '.join(names)}" if names else ""
