"""`hilserl up` with a home of its own, the processes below it, and the run that it trains. For benchmarks that kill some of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from _runs import ROOT

from hilserl.services import rest
from hilserl.services.processes import free_port

KINDS = ("learner", "actor", "prefect-server", "mlflow", "learner-worker", "robot-worker")
_FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"
_RUN_OF = {"learner-worker": "learner", "robot-worker": "actor"}


class Up:
    """One `hilserl up`, started by its command.

    Args:
        folder: `home`, and what it prints.
        ports: Of the Prefect server and the MLflow UI; None takes free ones.

    Attributes:
        seen: Every process that was ever below it.
    """

    def __init__(self, folder: Path, ports: tuple[int, int] | None = None) -> None:
        self.home, self.output = folder / "home", folder / "up.txt"
        self.prefect_port, self.mlflow_port = ports or (free_port(), free_port())
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HILSERL_", "MLFLOW_"))}
        threads = {name: own.get(name, "1") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.environment = own | threads | {"HILSERL_HOME": str(self.home)}
        self.seen: dict[tuple[int, float], psutil.Process] = {}
        self._lock = threading.Lock()  # of `seen`
        self.home.mkdir(parents=True)
        arguments = ["up", "--prefect-port", str(self.prefect_port), "--mlflow-port", str(self.mlflow_port)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "commands.main", *arguments],
                env=self.environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    def require_alive(self) -> None:
        """Raise if `up` ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"`hilserl up` ended with code {self.process.returncode}:\n{self.output.read_text()[-3000:]}")

    def wait_ready(self, timeout_s: float = 300.0) -> None:
        """Wait for its word, and for MLflow."""
        deadline = time.monotonic() + timeout_s
        while "Ready." not in self.output.read_text() or not rest.answers(f"{self.mlflow_url}/health"):
            self.require_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(f"`hilserl up` was not ready within {timeout_s:.0f} s:\n{self.output.read_text()}")
            time.sleep(0.5)

    def start_training(self, config: str, overrides: Mapping[str, Any]) -> None:
        """`prefect deployment run hilserl/train`, as a person types it."""
        prefect = str(Path(sys.executable).with_name("prefect"))
        parameters = ["-p", f"config={json.dumps(config)}", "-p", f"overrides={json.dumps(overrides)}"]
        command = [prefect, "deployment", "run", "hilserl/train", *parameters]
        settings = {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.home / "person")}
        done = subprocess.run(command, env=self.environment | settings, cwd=ROOT, capture_output=True, text=True, timeout=180)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")

    def wait_for_run(self, name: str, timeout_s: float = 300.0) -> Path:
        """Return the folder of the one run called `name`, once it trains."""
        deadline = time.monotonic() + timeout_s
        while True:
            for facts in (self.home / "runs" / name).glob("*/run.json"):
                if (facts.parent / "history.jsonl").exists():
                    return facts.parent
            self.require_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(f"no training within {timeout_s:.0f} s; the flow runs: {self.flow_runs()}")
            time.sleep(0.5)

    def find(self) -> dict[str, psutil.Process]:
        """Return the living processes by kind; the ones that are away are left out."""
        found: dict[str, psutil.Process] = {}
        for guard in psutil.Process(self.process.pid).children():
            below = _children(guard)
            with self._lock:
                for process in (guard, *below):
                    self.seen.setdefault((process.pid, process.create_time()), process)  # psutil knows it from the listing
            kind = _kind(guard)
            if kind is None:
                continue
            for process in below:
                if _kind(process) == kind and kind not in found:
                    found[kind] = process
                elif kind in _RUN_OF and _is_flow_run(process):
                    found.setdefault(_RUN_OF[kind], process)
        return found

    def flow_runs(self) -> list[dict[str, Any]]:
        """Return name, state and number of attempts of every flow run, oldest first."""
        found = rest.call("POST", f"{self.api}/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", "limit": 200})
        return [
            {
                "name": run["name"],
                "flow": "actor" if "robot" in run["tags"] or any(tag.startswith("robot:") for tag in run["tags"]) else "train",
                "state": run["state"]["name"],
                "message": (run["state"].get("message") or "")[:300],
                "attempts": run["run_count"],
            }
            for run in found
        ]

    def stop(self, timeout_s: float = 150.0) -> int:
        """Ctrl-C; kills it after the time limit. Returns its exit code."""
        if self.process.poll() is None:
            self.find()
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            for process in self.left_over():
                process.kill()
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"`hilserl up` did not end within {timeout_s:.0f} s after Ctrl-C") from None

    def left_over(self) -> list[psutil.Process]:
        """Return the processes that were below it and still run."""
        with self._lock:
            return [process for process in self.seen.values() if _is_alive(process)]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if _is_alive(child)]
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kind(process: psutil.Process) -> str | None:
    """Tell which service a process is, or the guard of."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return None
    if any("prefect.server.api.server:create_app" in part for part in command):
        return "prefect-server"
    if "mlflow" in command:
        return "mlflow"
    if "worker" in command and "--pool" in command:
        return {"learner": "learner-worker", "robot": "robot-worker"}.get(command[command.index("--pool") + 1])
    return None


def _is_flow_run(process: psutil.Process) -> bool:
    """Whether it is a flow run's own process, and none that the flow started, nor a hook's."""
    try:
        parent = process.parent()
        is_engine = _FLOW_RUN_ID in process.environ() and "prefect.engine" in process.cmdline()
        return is_engine and (parent is None or _FLOW_RUN_ID not in parent.environ())
    except psutil.Error:
        return False
