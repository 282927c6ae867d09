"""Somebody's own Prefect server and workers, without `hilserl up`: outages, dead workers, a robot host that is gone.

The workers have no guard here, so a flow outlives its worker, as under any service manager that does not end both.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from up_testing import Api, Training, eventually, flow_process

from hilserl.services.deployments import create_pools, read_plan
from hilserl.services.prefect_server import PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]

ROOT = Path(__file__).resolve().parents[2]


class OwnServer(Api):
    """A server that a test takes away and brings back, and workers that it kills."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.server = PrefectServer()
        self.server.launch()
        self.server.wait_ready()
        self.api = self.server.api_url
        self.environment = os.environ | self.server.environment()
        create_pools(self.api, read_plan(ROOT / "prefect.yaml", "robot-host"))
        unset = {name: value for name, value in self.environment.items() if name != "HILSERL_ROOT"}
        subprocess.run(self.prefect("--no-prompt", "deploy", "--all"), env=unset, cwd=ROOT, check=True, capture_output=True, timeout=180)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.flows: set[psutil.Process] = set()
        self.start_worker("learner")
        self.start_worker("robot", "--work-queue", "robot-host")

    def prefect(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "prefect", *arguments]

    def start_worker(self, pool: str, *options: str) -> None:
        command = self.prefect("worker", "start", "--pool", pool, *options)
        environment = self.environment | {"HILSERL_ROOT": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "2"}
        with (self.home / f"worker-{pool}.txt").open("ab") as log:
            self.workers[pool] = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def flow_process(self, run: str) -> psutil.Process:
        for worker in self.workers.values():
            if worker.poll() is None:
                self.flows |= set(psutil.Process(worker.pid).children(recursive=True))
        return flow_process(list(self.flows), run)

    def kill_worker(self, pool: str) -> None:
        self.flows |= set(psutil.Process(self.workers[pool].pid).children(recursive=True))
        self.workers[pool].kill()
        self.workers[pool].wait()

    def end(self) -> None:
        for pool, worker in self.workers.items():
            if worker.poll() is None:
                self.kill_worker(pool)
        for process in self.flows:
            if process.is_running():
                process.send_signal(signal.SIGKILL)
        self.server.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    home = tmp_path_factory.mktemp("own") / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILSERL_HOME", str(home))
        site = OwnServer(home)
        try:
            yield site
        finally:
            site.end()


@pytest.fixture
def begun(site: OwnServer) -> Iterator[Callable[..., Training]]:
    """Start trainings; what a failed test leaves running is ended before the next."""
    trainings: list[Training] = []

    def begin(**overrides: Any) -> Training:
        trainings.append(Training(site, site.home, **overrides))
        return trainings[-1]

    yield begin
    if not site.server.is_alive():
        site.server.launch()
        site.server.wait_ready()
    for training in trainings:
        if not training.over():
            site.cancel(training.id)
            eventually(training.over, 200)


def test_a_server_away_for_80_s_stops_nobody_and_cancel_works_afterwards(site: OwnServer, begun: Callable[..., Training]) -> None:
    """Prefect itself is deaf to the cancellation of a run that was in flight for such an outage."""
    training = begun()
    training.goes_on(400)
    actor = training.actor()
    site.server.stop()
    time.sleep(80)
    training.goes_on()
    site.server.launch()
    site.server.wait_ready()
    assert site.state(training.id) == "RUNNING" and site.state(actor["id"]) == "RUNNING"
    training.goes_on()
    site.cancel(training.id)
    site.reach({training.id: "CANCELLED", actor["id"]: "CANCELLED"}, 400)


def test_a_robot_host_that_is_gone_is_told_within_30_s_and_used_again_when_it_is_back(
    site: OwnServer, begun: Callable[..., Training]
) -> None:
    training = begun(seed=1)
    training.goes_on(400)
    actor = training.actor()
    process = site.flow_process(actor["id"])
    site.kill_worker("robot")
    process.kill()
    eventually(lambda: site.state(actor["id"]) == "CRASHED", 40)
    assert "The learner has not heard this actor for" in site.message(actor["id"])
    assert site.state(training.id) == "RUNNING"
    time.sleep(5)
    site.start_worker("robot", "--work-queue", "robot-host")
    training.goes_on(400)
    new = training.actor()
    assert new["id"] != actor["id"]

    site.kill_worker("learner")  # the flow goes on, and nobody is left to tell it of its cancellation
    training.goes_on()
    site.cancel(training.id)
    site.reach({training.id: "CANCELLED", new["id"]: "CANCELLED"}, 120)
