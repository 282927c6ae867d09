"""`up` as a person runs it: a real server, real workers, real flow runs, real signals.

Flows are stubs of a few lines; everything else is what ships. About a minute for each `up`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from hilserl.errors import ServiceError
from hilserl.services import rest
from hilserl.services.deployments import cancel_runs, read_plan
from hilserl.services.prefect_server import PrefectServer, find_running
from hilserl.services.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PROGRAM = """
import sys
from pathlib import Path
from hilserl.errors import HilserlError
from hilserl.services.up import run_up
try:
    run_up(int(sys.argv[2]), int(sys.argv[3]) or None, "bench", prefect_file=Path(sys.argv[1]), show=lambda line: print(line, flush=True))
except HilserlError as error:
    sys.exit(f"error: {error}")
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


@dataclass
class Up:
    """One `up` in a process of its own."""

    home: Path
    project: Path
    port: int = field(default_factory=free_port)
    mlflow_port: int = 0

    def __post_init__(self) -> None:
        self.output = self.home.parent / f"up-{self.port}.txt"
        arguments = [sys.executable, "-c", PROGRAM, str(self.project / "prefect.yaml"), str(self.port), str(self.mlflow_port)]
        with self.output.open("w") as output:
            environment = os.environ | {"HILSERL_HOME": str(self.home)}
            self.process = subprocess.Popen(arguments, env=environment, cwd=self.project, stdout=output, stderr=subprocess.STDOUT)
        self.family: list[psutil.Process] = []

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def ready(self) -> Up:
        eventually(lambda: "Ready." in self.output.read_text() or self.process.poll() is not None, 180)
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

    def start(self, deployment: str, **parameters: Any) -> str:
        deployment_id = rest.call("GET", f"{self.api}/deployments/name/{deployment}")["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(rest.call("POST", f"{self.api}/deployments/{deployment_id}/create_flow_run", body)["id"])

    def state(self, run: str) -> str:
        return str(rest.call("GET", f"{self.api}/flow_runs/{run}")["state"]["type"])


def eventually(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, stub_project: Path) -> Iterator[Up]:
    started = Up(tmp_path_factory.mktemp("up") / "home", stub_project)
    try:
        yield started.ready()
    finally:
        if started.process.poll() is None:
            started.signal_and_wait(signal.SIGINT)


@pytest.fixture
def other(tmp_path: Path, stub_project: Path) -> Iterator[Callable[..., Up]]:
    """Start more of them; kill what a failed test leaves."""
    started: list[Up] = []

    def start(**options: Any) -> Up:
        started.append(Up(**({"home": tmp_path / "home", "project": stub_project} | options)))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_a_run_completes_in_the_project_folder_of_its_worker(up: Up, tmp_path: Path) -> None:
    run = up.start("hilserl/train", mark=str(tmp_path / "train"))
    eventually(lambda: up.state(run) in ("COMPLETED", "FAILED", "CRASHED"), 60)
    assert up.state(run) == "COMPLETED"
    assert (tmp_path / "train.finally").exists()


@pytest.mark.failure("R20")
def test_a_second_actor_is_refused_and_a_cancelled_one_cleans_up(up: Up, tmp_path: Path) -> None:
    first = up.start("actor/bench", mark=str(tmp_path / "first"), seconds=300)
    eventually((tmp_path / "first.started").exists, 60)
    second = up.start("actor/bench", mark=str(tmp_path / "second"))
    eventually(lambda: up.state(second) == "CANCELLED", 60)
    assert cancel_runs(up.api, read_plan(up.project / "prefect.yaml", "bench"), "test", 60)
    assert up.state(first) == "CANCELLED"
    assert (tmp_path / "first.finally").exists()
    assert not (tmp_path / "second.started").exists()


def test_the_command_line_finds_the_deployment(up: Up, tmp_path: Path) -> None:
    prefect = Path(sys.executable).with_name("prefect")
    command = [str(prefect), "deployment", "run", "hilserl/train", "-p", f"mark={tmp_path / 'cli'}"]
    done = subprocess.run(
        command, env=os.environ | {"PREFECT_API_URL": up.api}, cwd=up.project, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    eventually((tmp_path / "cli.finally").exists, 60)


def test_a_demo_reuses_the_server_of_up(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILSERL_HOME", str(up.home))
    found = find_running()
    assert found is not None and found.api_url == up.api and found.owner == "hilserl up"
    with pytest.raises(ServiceError, match="already run by `hilserl up`"):
        PrefectServer().launch()


def test_a_second_up_is_refused_with_one_message(up: Up, other: Callable[..., Up]) -> None:
    second = other(home=up.home)
    assert second.process.wait(60) == 1
    assert re.fullmatch(r"error: .*already run by `hilserl up` \(process \d+\) at \S+\. .*HILSERL_HOME.*\n", second.output.read_text())
    third = other(port=up.port)
    assert third.process.wait(60) == 1
    assert re.fullmatch(rf"error: Port {up.port} for the Prefect server is in use.*--prefect-port 4300`\.\n", third.output.read_text())


def test_ctrl_c_ends_everything_and_is_a_success(up: Up, tmp_path: Path) -> None:
    """Last of the module: it ends the shared `up`, with both hosts busy and a run waiting."""
    runs = [up.start(name, mark=str(tmp_path / name.replace("/", "-")), seconds=300) for name in ("hilserl/train", "actor/bench")]
    eventually(lambda: len(list(tmp_path.glob("*.started"))) == 2, 60)
    up.start("hilserl/train", mark=str(tmp_path / "waiting"))
    begin = time.monotonic()
    assert up.signal_and_wait(signal.SIGINT) == 0, up.output.read_text()
    assert time.monotonic() - begin < 45
    assert len(list(tmp_path.glob("*.finally"))) == len(runs)
    assert not (tmp_path / "waiting.started").exists()
    assert up.left_over() == []
    assert port_is_free(up.port)


def test_a_dead_service_ends_up_with_a_message(other: Callable[..., Up], tmp_path: Path) -> None:
    up = other(mlflow_port=free_port()).ready()
    eventually(lambda: "MLflow UI is ready" in up.output.read_text(), 120)
    up.remember()
    assert rest.answers(f"http://127.0.0.1:{up.mlflow_port}/health")
    up.start("actor/bench", mark=str(tmp_path / "actor"), seconds=300)
    eventually((tmp_path / "actor.started").exists, 60)
    up.remember()
    server = next(
        process
        for process in up.family
        if "prefect.server.api.server:create_app" in process.cmdline() and "guard.py" not in str(process.cmdline())
    )
    server.kill()
    assert up.process.wait(90) == 1
    assert "error: Prefect server ended unexpectedly with code 137" in up.output.read_text()
    assert (tmp_path / "actor.finally").exists(), "the arm must be made safe although the server is gone"
    assert up.left_over() == []
    assert port_is_free(up.mlflow_port)


@pytest.mark.failure("R20")
def test_nothing_survives_a_killed_up_and_nothing_moves_at_the_next_start(other: Callable[..., Up], tmp_path: Path) -> None:
    up = other().ready()
    running = up.start("actor/bench", mark=str(tmp_path / "running"), seconds=300)
    train = up.start("hilserl/train", mark=str(tmp_path / "train"), seconds=300)
    eventually(lambda: len(list(tmp_path.glob("*.started"))) == 2, 60)
    waiting = up.start("hilserl/train", mark=str(tmp_path / "waiting"))
    up.signal_and_wait(signal.SIGKILL)
    eventually((tmp_path / "running.finally").exists, 10)
    eventually(lambda: up.left_over() == [], 60)

    again = other(port=up.port).ready()
    assert "Closed 3 unfinished run(s)" in again.output.read_text()
    assert [again.state(run) for run in (running, train, waiting)] == ["CRASHED", "CRASHED", "CANCELLED"]
    time.sleep(5)
    assert not (tmp_path / "waiting.started").exists()
    assert again.signal_and_wait(signal.SIGTERM) == 0


def test_an_interrupt_while_starting_leaves_nothing(other: Callable[..., Up]) -> None:
    up = other()
    eventually(lambda: "Starting the Prefect server" in up.output.read_text(), 30)
    time.sleep(1)
    assert up.signal_and_wait(signal.SIGINT, 30) != 0
    assert up.left_over() == []
    assert port_is_free(up.port)


def test_a_flow_that_cannot_be_imported_is_quoted(other: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nonsense_that_is_not_installed\n")
    (tmp_path / "prefect.yaml").write_text("deployments: [{name: train, entrypoint: 'broken.py:hilserl', work_pool: {name: learner}}]\n")
    up = other(project=tmp_path)
    assert up.process.wait(120) == 1
    text = up.output.read_text()
    assert "error: `prefect deploy --all` failed" in text and "nonsense_that_is_not_installed" in text
