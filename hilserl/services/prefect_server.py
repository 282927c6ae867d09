"""The Prefect server and UI of this machine: one per PREFECT_HOME."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hilserl.errors import ServiceError
from hilserl.files import write_json
from hilserl.services.access import require_access
from hilserl.services.environment import prefect_environment, prefect_home
from hilserl.services.processes import ManagedProcess, free_port, require_free_port
from hilserl.services.rest import answers, wait_until

LOOPBACK = "127.0.0.1"
_ENDS_WITHIN_S = 30.0


@dataclass(frozen=True)
class RunningServer:
    """A server that another of our processes started and will stop.

    Attributes:
        api_url: Address of its API.
        folder: Its PREFECT_HOME.
        owner: Who started it: `hilserl up`, `hilserl demo`.
        pid: Process id of the owner.
    """

    api_url: str
    folder: Path
    owner: str
    pid: int

    @property
    def ui_url(self) -> str:
        """Address of its UI."""
        return self.api_url.removesuffix("/api")

    def environment(self) -> dict[str, str]:
        """Return the variables that make Prefect in a process use this server."""
        return prefect_environment(self.api_url, self.folder)


class PrefectServer:
    """A Prefect server with UI, SQLite by default.

    `launch` returns at once; Prefect needs about 8 s of one core, 17 s when the database is new.

    Args:
        port: TCP port; 0 takes a free one.
        folder: PREFECT_HOME; None is `<HILSERL_HOME>/prefect`.
        owner: Who starts it, for the message that another process shows.
        host: Address of this machine to listen on; beyond loopback by HTTPS and with a secret only.

    Raises:
        ServiceError: `host` is beyond loopback, and the secret or the certificate is missing.
    """

    def __init__(self, port: int = 0, folder: Path | None = None, *, owner: str = "hilserl", host: str = LOOPBACK) -> None:
        tls = require_access(host)
        self._host, self._scheme = host, "https" if tls else "http"
        self.port = port or free_port(host)
        self.folder = (folder or prefect_home()).resolve()
        self._owner = owner
        # As `prefect server start` does, less its welcome and 0.5 s: the same app, one worker, no access log.
        app = ["--factory", "prefect.server.api.server:create_app", "--timeout-keep-alive", "5"]
        command = [sys.executable, "-m", "uvicorn", *app, "--host", host, "--port", str(self.port), "--log-level", "warning"]
        if tls:
            command += ["--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)]
        environment = (
            os.environ
            | self.environment()
            | {"PREFECT__SERVER_FINAL": "1", "PREFECT_SERVER_API_PORT": str(self.port), "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"}
        )
        self._process = ManagedProcess("Prefect server", command, env=environment, cwd=None)

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.ui_url}/api"

    @property
    def ui_url(self) -> str:
        """Address of the UI."""
        return f"{self._scheme}://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}"

    @property
    def is_reachable_from_elsewhere(self) -> bool:
        """Whether other hosts reach it; then it speaks HTTPS and asks for the secret."""
        return self._scheme == "https"

    @property
    def pid(self) -> int:
        """Process id at the root of the server's process tree."""
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """Return the variables that make Prefect in a process use this server."""
        return prefect_environment(self.api_url, self.folder)

    def launch(self) -> None:
        """Start the server and return without waiting for it.

        Raises:
            ServiceError: Another server uses the same database, or the port is taken.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(lock, self.folder)
            require_free_port(
                self.port, "Prefect server", "Stop that program, or take another port: `hilserl up --prefect-port 4300`.", self._host
            )
            self._process.start(pass_fds=[lock])  # the kernel frees it when the server is gone, however it went
        finally:
            os.close(lock)
        write_json(_card(self.folder), {"api_url": self.api_url, "owner": self._owner, "pid": os.getpid()})

    def wait_ready(self, timeout_s: float = 180.0, check: Callable[[], None] = lambda: None) -> None:
        """Wait until the API answers.

        Args:
            timeout_s: Limit [s].
            check: Called in between; may raise to give up.

        Raises:
            ServiceError: The server died, or did not answer in time.
        """

        def alive() -> None:
            self.check()
            check()

        wait_until(
            lambda: answers(f"{self.api_url}/health"),
            timeout_s,
            f"The Prefect server did not answer at {self.api_url} (log: {self._process.log})",
            alive,
        )

    def check(self) -> None:
        """Do nothing while the server lives.

        Raises:
            ServiceError: It died.
        """
        self._process.check()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive

    def request_stop(self) -> None:
        """Ask it to end, and do not wait."""
        self._process.request_stop()

    def stop(self) -> None:
        """End it and wait; harmless before `launch` and when repeated."""
        started = self._process.was_started
        self._process.stop()
        if started:
            _card(self.folder).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Launch."""
        self.launch()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop."""
        self.stop()


def find_running(folder: Path | None = None, *, timeout_s: float = 0.0) -> RunningServer | None:
    """Find the server that another of our processes runs on the same database.

    Args:
        folder: PREFECT_HOME; None is `<HILSERL_HOME>/prefect`.
        timeout_s: Time for a server that is still starting [s].

    Returns:
        The server, healthy; None if there is none, or not within `timeout_s`.
    """
    import psutil

    folder = (folder or prefect_home()).resolve()
    if not _is_locked(folder):
        return None
    try:
        card = json.loads(_card(folder).read_text())
    except (OSError, ValueError):
        return None  # locked, and not yet announced
    if not psutil.pid_exists(card["pid"]):
        return None  # its owner was killed: it ends now
    server = RunningServer(card["api_url"], folder, card["owner"], card["pid"])
    try:
        wait_until(lambda: answers(f"{server.api_url}/health"), timeout_s, "The Prefect server did not answer")
    except ServiceError:
        return None
    return server


def _card(folder: Path) -> Path:
    return folder / "server.json"


def _take(lock: int, folder: Path) -> None:
    """Lock the folder; a server whose owner was killed ends within moments, and is waited for."""
    import psutil

    deadline = time.monotonic() + _ENDS_WITHIN_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                card = json.loads(_card(folder).read_text())
                who = f"`{card['owner']}` (process {card['pid']}) at {card['api_url'].removesuffix('/api')}"
                owner_lives = psutil.pid_exists(card["pid"])
            except (OSError, ValueError, KeyError):
                who, owner_lives = "another process", True
        if owner_lives or time.monotonic() > deadline:
            raise ServiceError(
                f"{folder}: the Prefect server on this folder is already run by {who}. Use that one; or end it (Ctrl-C where it runs); "
                "or set HILSERL_HOME to another folder and take other ports."
            )
        time.sleep(0.1)


def _is_locked(folder: Path) -> bool:
    if not (folder / "server.lock").exists():
        return False
    lock = os.open(folder / "server.lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
