"""Ctrl-C while learning: one message, code 130, nothing left, and the same command continues."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pipeline_testing import TINY

from hilserl.config.loader import find_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ARGUMENTS = {
    **TINY,
    "policy.online_steps": 600,
    "actor.evaluate_every_steps": 0,
    "evaluation.episodes": 3,
    "evaluation.video_episodes": 0,
    "actor.intervention.probability": 0.0,
}


@pytest.fixture
def demos() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Demos that a failing test leaves running are ended; their guards end the rest."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(log: Path) -> subprocess.Popen[bytes]:
    settings = [f"--set={key}={'null' if value is None else value}" for key, value in ARGUMENTS.items()]
    command = [sys.executable, "-m", "commands.main", "demo", "reach_state", "--plain", *settings]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=find_config("reach_state").parents[1]
        )


def left_behind(home: Path) -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("HILSERL_HOME") == str(home):
                found.append(process.cmdline())
        except psutil.Error:
            continue  # it ended, or is not ours
    return found


def learned_steps(home: Path) -> int:
    states = [json.loads(path.read_text())["state"] for path in home.glob("runs/tiny/*/checkpoints/0*/state.json")]
    return max((state["environment_steps"] for state in states), default=0)


@pytest.mark.failure("R19")
def test_ctrl_c_while_learning_loses_nothing(own_home: Path, tmp_path: Path, demos: list[subprocess.Popen[bytes]]) -> None:
    first = start(tmp_path / "first.log")
    demos.append(first)
    deadline = time.monotonic() + 240
    while learned_steps(own_home) == 0:
        assert first.poll() is None and time.monotonic() < deadline, (tmp_path / "first.log").read_text()
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGINT)  # what a terminal does
    assert first.wait(90) == 130
    text = (tmp_path / "first.log").read_text()
    assert "the same command continues" in text and "Traceback" not in text and "Error logging to API" not in text
    assert left_behind(own_home) == []
    saved = learned_steps(own_home)

    second = start(tmp_path / "second.log")
    demos.append(second)
    assert second.wait(300) == 0, (tmp_path / "second.log").read_text()
    text = (tmp_path / "second.log").read_text()
    for phase in ("Record demonstrations", "Validate the dataset", "Build the offline buffer"):
        assert f"{phase}: cached" in text
    runs = [json.loads(path.read_text()) for path in own_home.glob("runs/tiny/*/summary.json")]
    assert len(runs) == 1 and runs[0]["environment_steps"] >= 600 > saved > 0
    assert "Error logging to API" not in text
    assert left_behind(own_home) == []
