"""The actor as a process of this machine: for the demo, and for a flow that is called as a function."""

from __future__ import annotations

import os
import sys
import time

from prefect.settings import PREFECT_API_URL

from hilserl.config import TrainConfig
from hilserl.files import write_json
from hilserl.runs import RunFolder
from hilserl.services.environment import project_root
from hilserl.services.processes import ManagedProcess
from tasks.actor_launch import ActorState, parameters

_GRACE_S = 25.0
_CANCELLED = 3  # exit code of `flows.actor`
_BY_SIGNAL = 128


class LocalActor:
    """A process that imports ahead of time, and then waits for its parameters."""

    def __init__(self, config: TrainConfig, run: RunFolder) -> None:
        self._config, self._run = config, run
        self._file = run.path / "actor_parameters.json"
        self._file.unlink(missing_ok=True)  # an interrupted process of this run had another learner
        self._process = ManagedProcess(
            "actor",
            [sys.executable, "-m", "flows.actor", str(self._file)],
            env=os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value() or ""},
            cwd=project_root(),
            log=run.path / "actor.log",
            grace_s=_GRACE_S,
        )
        self._process.start()

    def adopt(self, address: str) -> bool:
        """Return False: a process of an earlier learner has ended with it."""
        return False

    def launch(self, address: str) -> None:
        """Give the waiting process its parameters; start it again if it died."""
        if not self._process.is_alive:
            self._file.unlink(missing_ok=True)
            self._process.start()
        write_json(self._file, parameters(self._config, self._run, address))

    def state(self) -> ActorState:
        """Judge the process by its exit code."""
        code = self._process.exit_code
        if code is None:
            return ActorState("running")
        if code == 0:
            return ActorState("completed")
        if code == _CANCELLED:
            return ActorState("cancelled", "its flow run was cancelled")
        message = f"the actor's process ended with code {code}.{self._process.log_tail()}"
        return ActorState("gone" if code > _BY_SIGNAL else "failed", message)

    def withdraw(self, reason: str) -> None:
        """End the process."""
        self._process.stop()

    def give_up(self, reason: str) -> None:
        """End the process: it is on this machine, so nothing of it stays."""
        self._process.stop()

    def stop(self, own_end_s: float) -> None:
        """Wait, then end the process."""
        deadline = time.monotonic() + (own_end_s if self._file.exists() else 0.0)
        while self._process.is_alive and time.monotonic() < deadline:
            time.sleep(0.05)
        self._process.stop()
