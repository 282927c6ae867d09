"""A handful of kills by benchmarks/chaos.py: real `hilserl up`, real training, real SIGKILL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.failure("R16")
@pytest.mark.failure("L14")
def test_a_training_survives_the_death_of_any_of_its_processes(tmp_path) -> None:
    report = tmp_path / "chaos.json"
    arguments = ["--kills", "1", "--interval", "1", "4", "--recover-within", "200", "--folder", str(tmp_path), "--json", str(report)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = json.loads(report.read_text())
    assert sorted(kill["kind"] for kill in found["kills"]) == [
        "actor",
        "learner",
        "learner-worker",
        "mlflow",
        "prefect-server",
        "robot-worker",
    ]
    assert (found["lost"], found["different"], found["twice"], found["damaged_files"], found["left_over"]) == (0, 0, 0, [], [])
    assert found["environment_steps"] > 0 and found["updates"] > 0 and found["evaluations"]
