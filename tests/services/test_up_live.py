"""`up` as a person runs it: a real server, real workers, real flow runs, real signals.

Flows are stubs of a few lines; everything else is what ships. About a minute for each `up`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from up_testing import Up, eventually, port_is_free

from hilserl.errors import ServiceError
from hilserl.services.deployments import cancel_runs, read_plan
from hilserl.services.prefect_server import PrefectServer, find_running
from hilserl.services.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


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
def test_a_second_actor_is_refused_also_by_a_restarted_server_and_a_cancelled_one_cleans_up(up: Up, tmp_path: Path) -> None:
    first = up.start("actor/bench", mark=str(tmp_path / "first"), seconds=300)
    eventually((tmp_path / "first.started").exists, 60)
    second = up.start("actor/bench", mark=str(tmp_path / "second"))
    eventually(lambda: up.state(second) == "FAILED", 60)
    assert "robot `stub` is already driven by process" in up.message(second)
    up.kill("prefect.server.api.server:create_app")
    eventually(lambda: up.says("Prefect server is back."), 90)
    third = up.start("actor/bench", mark=str(tmp_path / "second"))
    eventually(lambda: up.state(third) == "FAILED", 90)
    assert "robot `stub` is already driven by process" in up.message(third)
    assert up.state(first) == "RUNNING"
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


def test_what_dies_is_started_again_and_the_runs_of_a_dead_worker_are_told_truly(other: Callable[..., Up], tmp_path: Path) -> None:
    up = other(mlflow_port=free_port()).ready()
    eventually(lambda: up.says("MLflow UI is ready"), 120)
    actor = up.start("actor/bench", mark=str(tmp_path / "actor"), seconds=600)
    train = up.start("hilserl/train", mark=str(tmp_path / "train"), seconds=600)
    eventually(lambda: len(list(tmp_path.glob("*.started"))) == 2, 60)

    up.kill("mlflow", "ui")
    up.kill("prefect.server.api.server:create_app")
    eventually(lambda: up.says("Prefect server is back.") and up.says("MLflow UI is back."), 120)
    assert up.says("Prefect server ended unexpectedly with code 137. Starting it again in 1 s.")
    assert (up.state(actor), up.state(train)) == ("RUNNING", "RUNNING"), "both went on without the server"
    assert not list(tmp_path.glob("*.finally"))

    for mark in tmp_path.glob("*.started"):
        mark.unlink()
    up.kill("worker", "learner")
    eventually((tmp_path / "train.finally").exists, 60)
    eventually((tmp_path / "train.started").exists, 90)
    eventually(lambda: up.state(train) == "RUNNING", 30)
    assert up.run(train)["run_count"] == 2 and up.says("It is started again.")
    up.kill("worker", "robot")
    eventually(lambda: up.state(actor) == "CRASHED", 60)
    assert (tmp_path / "actor.finally").exists()
    time.sleep(5)
    assert not (tmp_path / "actor.started").exists(), "an actor is never started again by itself"
    assert up.signal_and_wait(signal.SIGINT) == 0
    assert up.left_over() == []


def test_a_killed_training_is_started_again_a_cancelled_or_failed_one_is_not(other: Callable[..., Up], tmp_path: Path) -> None:
    up = other().ready()
    train = up.start("hilserl/train", mark=str(tmp_path / "train"), seconds=600)
    eventually((tmp_path / "train.started").exists, 60)
    (tmp_path / "train.started").unlink()
    up.flow_process(train).kill()
    eventually((tmp_path / "train.started").exists, 90)
    assert up.run(train)["run_count"] == 2
    up.cancel(train)
    eventually(lambda: up.state(train) == "CANCELLED", 60)
    failed = up.start("hilserl/train", mark=str(tmp_path / "no-such-folder" / "train"))
    eventually(lambda: up.state(failed) == "FAILED", 60)
    time.sleep(8)
    assert (up.state(train), up.state(failed)) == ("CANCELLED", "FAILED")
    assert up.signal_and_wait(signal.SIGINT) == 0


def test_a_service_that_dies_again_and_again_ends_up_with_its_log(other: Callable[..., Up], tmp_path: Path) -> None:
    up = other().ready()
    actor_mark = tmp_path / "actor"
    up.start("actor/bench", mark=str(actor_mark), seconds=300)
    eventually((tmp_path / "actor.started").exists, 60)
    up.remember()

    def kill_what_there_is() -> bool:
        for process in up.processes("prefect.server.api.server:create_app"):
            up.remember()
            process.kill()
        return up.process.poll() is not None

    eventually(kill_what_there_is, 120)
    assert up.process.wait(90) == 1
    assert up.says("Prefect server ended unexpectedly with code 137") and up.says("It died 5 times within 120 s and is not started again.")
    assert (tmp_path / "actor.finally").exists(), "the arm must be made safe although the server is gone"
    assert up.left_over() == []


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
    assert again.says("was interrupted. Continue it") and again.says(f"prefect flow-run retry {train}")
    again.signal_and_wait(signal.SIGKILL)

    third = other(port=up.port, options=("--continue",))
    third.ready()
    assert third.state(train) == "CRASHED", "it was not running when the last `up` was killed"
    retried = subprocess.run(
        [str(Path(sys.executable).with_name("prefect")), "flow-run", "retry", train],
        env=os.environ | {"PREFECT_API_URL": third.api}, cwd=third.project, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert retried.returncode == 0, retried.stdout + retried.stderr
    eventually(lambda: third.run(train)["run_count"] == 2 and third.state(train) == "RUNNING", 60)
    third.signal_and_wait(signal.SIGKILL)
    fourth = other(port=up.port, options=("--continue",)).ready()
    eventually(lambda: fourth.run(train)["run_count"] == 3 and fourth.state(train) == "RUNNING", 60)
    assert fourth.state(running) == "CRASHED", "an actor is never started again by itself"
    assert fourth.signal_and_wait(signal.SIGTERM) == 0


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
