"""`hilserl up --robot-only` beside `up --learner-only`, each with its own home, on loopback; `flows/test_two_hosts.py` has two hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from up_testing import Up, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class RobotUp:
    """The command on the robot's host."""

    def __init__(self, api: str, folder: Path, project: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.output = folder / "output.txt"
        command = [sys.executable, "-m", "commands.main", "up", "--robot-only", "--robot-host", "bench"]
        environment = os.environ | {"HILSERL_HOME": str(folder / "home"), "PREFECT_API_URL": api}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(command, env=environment, cwd=project, stdout=output, stderr=subprocess.STDOUT)

    def says(self, text: str) -> bool:
        return text in self.output.read_text()

    def ready(self) -> RobotUp:
        eventually(lambda: self.says("Ready") or self.process.poll() is not None, 180)
        assert self.process.poll() is None, self.output.read_text()
        return self

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def learner(tmp_path: Path, stub_project: Path) -> Iterator[Up]:
    up = Up(tmp_path / "learner", stub_project, options=("--learner-only",))
    try:
        yield up.ready()
    finally:
        if up.process.poll() is None:
            up.signal_and_wait(signal.SIGINT)


@pytest.fixture
def robot(learner: Up, tmp_path: Path) -> Iterator[Callable[[], RobotUp]]:
    started: list[RobotUp] = []

    def start() -> RobotUp:
        started.append(RobotUp(learner.api, tmp_path / "robot", learner.project))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
            one.process.wait(120)


@pytest.mark.failure("R20")
def test_the_robots_host_runs_its_actors_stops_them_and_owns_up_to_what_it_lost(
    learner: Up, robot: Callable[[], RobotUp], tmp_path: Path
) -> None:
    assert "--robot-only" in learner.output.read_text()  # says what to do there
    first = robot().ready()
    lost = learner.start("actor/bench", mark=str(tmp_path / "lost"), seconds=300)
    eventually((tmp_path / "lost.started").exists, 120)
    second = robot()
    assert second.process.wait(60) == 1 and second.says("runs already on this host for `bench`")

    family = first.family()
    first.process.kill()  # the arm is made safe by the guard, and nobody can tell Prefect
    eventually((tmp_path / "lost.finally").exists, 30)
    eventually(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family), 60)

    again = robot().ready()
    assert learner.state(lost) == "CRASHED"
    running = learner.start("actor/bench", mark=str(tmp_path / "running"), seconds=300)
    eventually((tmp_path / "running.started").exists, 120)
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(120) == 0, again.output.read_text()
    assert (tmp_path / "running.finally").exists()
    assert learner.state(running) == "CANCELLED"
