"""Any process of `hilserl up` may be killed at any moment, and the training goes on without a person.

The real flows on the real server and workers; one training for all tests of the file. About five minutes.
"""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from up_testing import Training, Up, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    started = Up(tmp_path_factory.mktemp("unattended") / "home", ROOT, robot_host="robot-host")
    try:
        yield started.ready()
    finally:
        if started.process.poll() is None:
            started.signal_and_wait(signal.SIGINT)
        assert started.left_over() == []


@pytest.fixture(scope="module")
def training(up: Up) -> Training:
    training = Training(up, up.home, tracking__enable=True)
    training.goes_on(400)
    return training


def test_a_killed_learner_is_started_again_and_takes_its_actor_back(up: Up, training: Training) -> None:
    actor = training.actor()
    port = training.facts["link_port"]
    up.flow_process(training.id).kill()
    eventually(lambda: up.run(training.id)["run_count"] == 2 and up.state(training.id) == "RUNNING", 400)
    training.goes_on()
    assert [run["id"] for run in training.actors("RUNNING")] == [actor["id"]] and len(training.actors()) == 1
    assert training.facts["link_port"] == port


@pytest.mark.failure("R20")
def test_a_killed_actor_is_crashed_within_seconds_and_a_new_one_is_started(up: Up, training: Training) -> None:
    actor = training.actor()
    up.flow_process(actor["id"]).kill()
    eventually(lambda: up.state(actor["id"]) == "CRASHED", 30)
    assert "-9" in up.message(actor["id"]) or "137" in up.message(actor["id"])
    training.goes_on()
    new = training.actor()
    assert new["id"] != actor["id"] and up.run(actor["id"])["run_count"] == 1, "the old one is never started again"


def test_a_killed_worker_of_either_host_costs_no_training(up: Up, training: Training) -> None:
    actor = training.actor()
    up.kill("worker", "robot")
    eventually(lambda: up.state(actor["id"]) == "CRASHED", 400)
    training.goes_on(400)
    count = up.run(training.id)["run_count"]
    up.kill("worker", "learner")
    eventually(lambda: up.run(training.id)["run_count"] == count + 1 and up.state(training.id) == "RUNNING", 400)
    training.goes_on(400)


def test_a_killed_server_is_started_again_and_nobody_minds(up: Up, training: Training) -> None:
    actor = training.actor()
    count = up.run(training.id)["run_count"]
    up.kill("prefect.server.api.server:create_app")
    training.goes_on()
    eventually(lambda: up.says("Prefect server is back."), 400)
    training.goes_on()
    assert up.state(actor["id"]) == "RUNNING" and up.run(training.id)["run_count"] == count


@pytest.mark.failure("R18")
def test_the_token_is_in_no_log_no_database_and_not_in_mlflow(up: Up, training: Training) -> None:
    token = (up.home / "tokens" / str(training.facts["run_id"])).read_text().strip()
    assert len(token) > 30
    searched = [file for file in up.home.rglob("*") if file.is_file() and "tokens" not in file.parts]
    searched.append(up.output)
    assert {"prefect.db", "mlflow.db", "worker-robot.log"} <= {file.name for file in searched}
    assert [file for file in searched if token.encode() in file.read_bytes()] == []
    with sqlite3.connect(f"file:{up.home / 'prefect' / 'prefect.db'}?mode=ro", uri=True) as database:
        logs = [message for (message,) in database.execute("select message from log")]
    assert any("Connected to the learner" in message for message in logs), "the actor's log is on its page"
    assert not any(token in message for message in logs)


def test_cancel_in_the_ui_stops_both_softly_and_for_good(up: Up, training: Training) -> None:
    actor = training.actor()
    up.cancel(training.id)
    eventually(lambda: up.state(training.id) == "CANCELLED" and up.state(actor["id"]) in ("CANCELLED", "COMPLETED", "FAILED"), 400)
    assert up.state(actor["id"]) != "CRASHED"
    time.sleep(6)
    assert up.state(training.id) == "CANCELLED" and training.actors("RUNNING", "PENDING", "SCHEDULED") == []
    assert training.facts["attempt"] == "closed"


@pytest.mark.failure("R20")
def test_a_late_actor_does_not_move(up: Up, training: Training) -> None:
    parameters = {"config": {}, "address": "127.0.0.1:9", "run_id": "tiny-1"}
    late = up.start("actor/robot-host", scheduled="2020-01-01T00:00:00+00:00", **parameters)
    eventually(lambda: up.state(late) == "CANCELLED", 400)
    assert "more than 60 s late" in up.message(late)
