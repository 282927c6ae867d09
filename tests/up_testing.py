"""`hilserl up` as a process of its own, for tests: a real server, real workers, real flow runs, real signals."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pipeline_testing import TINY

from hilserl.config.loader import expand_dotted
from hilserl.errors import ServiceError
from hilserl.services import rest
from hilserl.services.processes import free_port

PROGRAM = """
import sys
from pathlib import Path
from hilserl.errors import HilserlError
from hilserl.services.up import run_up
try:
    run_up(
        int(sys.argv[2]), int(sys.argv[3]) or None, sys.argv[4],
        prefect_file=Path(sys.argv[1]), continue_trainings="--continue" in sys.argv,
        learner_only="--learner-only" in sys.argv, show=lambda line: print(line, flush=True),
    )
except HilserlError as error:
    sys.exit(f"error: {error}")
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


class Api:
    """What a person does in the Prefect UI."""

    api: str

    def start(self, deployment: str, *, scheduled: str | None = None, **parameters: Any) -> str:
        deployment_id = rest.call("GET", f"{self.api}/deployments/name/{deployment}")["id"]
        details = {"state_details": {"scheduled_time": scheduled}} if scheduled else {}
        body = {"parameters": parameters, "state": {"type": "SCHEDULED", **details}}
        return str(rest.call("POST", f"{self.api}/deployments/{deployment_id}/create_flow_run", body)["id"])

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = rest.call("GET", f"{self.api}/flow_runs/{run}")
        return found

    def state(self, run: str) -> str:
        return str(self.run(run)["state"]["type"])

    def reach(self, states: Mapping[str, str], within_s: float) -> None:
        """Wait until flow runs are in these states; where one is not, say in which it is, and why."""
        deadline = time.monotonic() + within_s
        while wrong := [run for run, state in states.items() if self.state(run) != state]:
            assert time.monotonic() < deadline, [(states[run], self.run(run)["state"]) for run in wrong]
            time.sleep(0.1)

    def message(self, run: str) -> str:
        return str(self.run(run)["state"]["message"])

    def cancel(self, run: str) -> None:
        """Do what the button in the UI does."""
        rest.call("POST", f"{self.api}/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def runs(self, *states: str, tag: str) -> list[dict[str, Any]]:
        """Return the flow runs with a tag, the newest first; all states where none is named."""
        filters: dict[str, Any] = {"tags": {"all_": [tag]}}
        if states:
            filters["state"] = {"type": {"any_": list(states)}}
        found = rest.call("POST", f"{self.api}/flow_runs/filter", {"flow_runs": filters, "limit": 200})
        return sorted(found, key=lambda run: str(run["created"]), reverse=True)


@dataclass
class Up(Api):
    """One `up` in a process of its own."""

    home: Path
    project: Path
    port: int = field(default_factory=free_port)
    mlflow_port: int = 0
    robot_host: str = "bench"
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.output = self.home.parent / f"up-{self.port}.txt"
        arguments = [sys.executable, "-c", PROGRAM, str(self.project / "prefect.yaml"), str(self.port), str(self.mlflow_port)]
        arguments += [self.robot_host, *self.options]
        with self.output.open("w") as output:
            environment = os.environ | {"HILSERL_HOME": str(self.home)}
            self.process = subprocess.Popen(arguments, env=environment, cwd=self.project, stdout=output, stderr=subprocess.STDOUT)
        self.family: list[psutil.Process] = []

    def ready(self) -> Up:
        eventually(lambda: "Ready." in self.output.read_text() or self.process.poll() is not None, 300)
        assert self.process.poll() is None, self.output.read_text()
        self.remember()
        return self

    def remember(self) -> None:
        """Note every process below it, so that none can be missed after its death."""
        self.family = [*self.family, *psutil.Process(self.process.pid).children(recursive=True)]

    def signal_and_wait(self, number: int, timeout_s: float = 90) -> int:
        self.remember()
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def left_over(self) -> list[psutil.Process]:
        return [process for process in self.family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    def says(self, text: str) -> bool:
        return text in self.output.read_text()

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the living processes below it whose command line has all the words; without the guards."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = " ".join(process.cmdline())
                if all(word in line for word in words) and "guard.py" not in line and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self, *words: str) -> None:
        """SIGKILL the one process below it whose command line has all the words."""
        (process,) = self.processes(*words)
        process.kill()

    def flow_process(self, run: str) -> psutil.Process:
        return flow_process(psutil.Process(self.process.pid).children(recursive=True), run)


def eventually(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def flow_process(among: list[psutil.Process], run: str) -> psutil.Process:
    """Return the process that a flow run runs in."""
    for process in among:
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == run and "prefect" in " ".join(process.cmdline()):
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    raise AssertionError(f"no process runs flow run {run}")


class Training:
    """A real training of the tiny task, as long as a test needs it, on the deployments of a server.

    Args:
        site: Whose deployments.
        home: HILSERL_HOME of everything.
        overrides: Dotted settings besides the tiny ones.
    """

    def __init__(self, site: Api, home: Path, **overrides: Any) -> None:
        endless = {"policy.online_steps": 500_000, "policy.utd_ratio": 1, "actor.evaluate_every_steps": 0, "actor.pace": "unthrottled"}
        endless |= {"learner.execution": "eager", "tracking.enable": False}
        values = {**TINY, **endless, "learner.save_freq": 300, **{key.replace("__", "."): value for key, value in overrides.items()}}
        self.site, self.home = site, home
        self.id = site.start("hilserl/train", config="configs/reach_state.yaml", overrides=expand_dotted(values), fresh=True)

    @property
    def facts(self) -> dict[str, Any]:
        """What `run.json` says; empty while there is none."""
        for file in self.home.glob("runs/tiny/*/run.json"):
            facts: dict[str, Any] = json.loads(file.read_text())
            if facts.get("flow_run_id") == self.id:
                return facts
        return {}

    @property
    def updates(self) -> int:
        return int(self.facts.get("updates_seen", 0))

    def actors(self, *states: str) -> list[dict[str, Any]]:
        """Return this training's actor flow runs, the newest first."""
        return self.site.runs(*states, tag=f"run:{self.facts.get('run_id')}")

    def actor(self, within_s: float = 400) -> dict[str, Any]:
        """Wait until exactly one actor of this training runs, and return its flow run."""
        eventually(lambda: len(self.actors("RUNNING")) == 1, within_s)
        return self.actors("RUNNING")[0]

    def goes_on(self, within_s: float = 400) -> None:
        """Wait until there are new critic updates from new steps."""
        before = self.updates
        eventually(lambda: self.updates > before + 50 or self.over(), within_s)
        assert not self.over(), self.site.run(self.id)["state"]

    def over(self) -> bool:
        try:
            return self.site.state(self.id) in ("FAILED", "COMPLETED", "CANCELLED")
        except ServiceError:
            return False  # the server is away
