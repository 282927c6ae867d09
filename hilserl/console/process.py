"""The console's process, as the actor sees it: started, started again when it dies, gone when the actor is."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hilserl.config.models import TrainConfig
from hilserl.console import access
from hilserl.console.access import Access
from hilserl.console.wire import Wire
from hilserl.files import home

logger = logging.getLogger(__name__)

_AGAIN_S = 2.0
_MOST_STARTS = 20
_END_S = 5.0


class ConsoleProcess:
    """One console.

    Attributes:
        wire: Our end of the socket; another one after a new start.
        url: Where the page is, without the token; None: not yet known.
    """

    def __init__(self, config: TrainConfig, facts: dict[str, Any]) -> None:
        """Check where it may listen.

        Raises:
            ServiceError: Beyond loopback, and without a certificate.
        """
        self.url: str | None = None
        self._access = Access.of(config.console, config.robot.host)
        self._facts = facts
        self._log = home() / "logs" / f"console-{config.robot.id}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._next_start_s = 0.0
        self.wire: Wire

    def start(self) -> None:
        """Start it, and do not wait."""
        self.wire, theirs = Wire.pair()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hilserl.console.serving", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # no Ctrl-C of our terminal: it ends when we do
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        self._starts += 1
        self._next_start_s = time.monotonic() + _AGAIN_S
        self.wire.send({"kind": "facts", "facts": self._facts | {"access": self._access.to_dict()}})

    def look_after(self) -> None:
        """Start it again where it has died."""
        if self._process is None or self._process.poll() is None or time.monotonic() < self._next_start_s:
            return
        if self._starts >= _MOST_STARTS:
            if self._starts == _MOST_STARTS:
                logger.error("The console ended %d times, and is not started again. Its log: %s", self._starts, self._log)
                self._starts += 1
            return
        logger.warning(
            "The console ended with code %d, and is started again. Its log: %s%s", self._process.returncode, self._log, self._tail()
        )
        self.wire.close()
        self.start()

    def listening(self, message: dict[str, Any]) -> None:
        """It listens now: say where. If it is started again, it takes the same port, so that pages find it again."""
        first = self.url is None
        self.url = message["url"]
        self._access = replace(self._access, port=urlsplit(message["url"]).port or self._access.port)
        if first:
            logger.info("Operator's console: %s", self._access.address(message["url"]))
            for address in message.get("others", ()):
                logger.info("Operator's console, from other hosts: %s", self._access.address(address))

    def stop(self) -> None:
        """End it; safe to call twice."""
        self.wire.close()  # that ends it
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "start() comes first"
        return self._process.pid

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()[-5:] if self._log.exists() else []
        return "".join(f"\n  | {line}" for line in lines)


def consoles_folder() -> Path:
    """Return where consoles say that they run."""
    return home() / "console"


def running_consoles() -> list[dict[str, Any]]:
    """Return the consoles of this machine: `robot`, `url`, `pid`, `mode`, `run`, and `token`, whether one is needed."""
    found = []
    for file in sorted(consoles_folder().glob("*.json")):
        try:
            entry = json.loads(file.read_text())
            os.kill(entry["pid"], 0)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it ended without a word, or is being written
        found.append(entry)
    return found


def page_address(entry: dict[str, Any]) -> str:
    """Return what a person opens, with the token where there is one: for them who may read it."""
    token = (access.configured_token() or access.kept_token()) if entry["token"] else None
    return f"{entry['url']}/?token={token}" if token else str(entry["url"])
