"""`hilserl up`: server, pools, deployments, workers and MLflow UI on this machine, until Ctrl-C."""

from __future__ import annotations

import datetime as dt
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hilserl.errors import ServiceError
from hilserl.files import write_atomically
from hilserl.services import rest
from hilserl.services.access import AUTH_VARIABLE, CA_VARIABLE, ca_file
from hilserl.services.deployments import (
    ROBOT_POOL,
    DeploymentPlan,
    cancel_runs,
    close_lost_runs,
    close_runs,
    create_pools,
    read_plan,
    retry_run,
    workers_online,
)
from hilserl.services.environment import project_root
from hilserl.services.mlflow_ui import MlflowUi, require_mlflow_port
from hilserl.services.prefect_server import LOOPBACK, PrefectServer
from hilserl.services.processes import ManagedProcess
from hilserl.services.rest import answers, wait_until
from hilserl.services.retries import CrashedTrainings
from hilserl.services.revival import Revived, Service
from hilserl.services.stopping import Stop, stop_signals

DEFAULT_PREFECT_PORT = 4200
_READY_S = 180.0
_CANCEL_S = 40.0  # Prefect's worker sends SIGKILL to a cancelled flow after 30 s
_DRAIN_S = 15.0  # cancellation hooks run on the worker after the flow has ended
_WORKER_GRACE_S = 30.0  # an arm is made safe within this after SIGTERM
_WATCH_S = 0.3
_FEW_CORES = 4

Show = Callable[[str], None]


def run_up(
    prefect_port: int = DEFAULT_PREFECT_PORT,
    mlflow_port: int | None = 5000,
    robot_host: str = "robot-host",
    *,
    bind: str = LOOPBACK,
    learner_only: bool = False,
    continue_trainings: bool = False,
    prefect_file: Path | None = None,
    show: Show = print,
) -> None:
    """Run everything in the foreground; return after Ctrl-C or SIGTERM, with nothing left behind.

    Must be called in the main thread.

    Args:
        prefect_port: Port of the Prefect server and UI.
        mlflow_port: Port of the MLflow UI; None starts none.
        robot_host: Name of the robot's host as `robot.host` of the configuration has it.
        bind: Address of this machine under which the Prefect server is reached.
        learner_only: No worker for the robot here: its host runs one (`run_robot_worker`).
        continue_trainings: Start trainings again that an earlier `up` was running when it was killed, or the power failed.
        prefect_file: Deployments; None is the project's `prefect.yaml`.
        show: Prints one line for a person.

    Raises:
        ServiceError: Something did not start, or died five times within two minutes.
        KeyboardInterrupt: Interrupted before everything was up.
    """
    root = prefect_file.resolve().parent if prefect_file else project_root()
    plan = read_plan(prefect_file or root / "prefect.yaml", robot_host)
    if mlflow_port is not None:
        require_mlflow_port(mlflow_port)
    server = PrefectServer(prefect_port, owner="hilserl up", host=bind)
    here = plan.without_robots() if learner_only else plan
    stack = _Stack(server, plan, here, root, MlflowUi(mlflow_port) if mlflow_port is not None else None, show)
    with stop_signals() as stop:
        try:
            server.launch()
            show(f"Starting the Prefect server on {server.ui_url} (10-20 s) ...")
            stack.bring_up(stop, continue_trainings)
            stack.watch(stop)
        finally:
            stack.take_down(stop)


class _Stack:
    """The services of one `up`, in the order in which they depend on each other.

    `plan` is what is deployed, `here` the part of it that has its workers on this machine.
    """

    def __init__(
        self, server: PrefectServer, plan: DeploymentPlan, here: DeploymentPlan, root: Path, mlflow: MlflowUi | None, show: Show
    ) -> None:
        self._server, self._plan, self._here, self._mlflow, self._show = server, plan, here, mlflow, show
        self._gate = server.folder / f"up-{os.getpid()}.go"
        machine = socket.gethostname()
        self._worker_names = {pool: f"{pool}@{machine}" for pool in here.queues}
        environment = os.environ | server.environment() | {"HILSERL_ROOT": str(root), "PREFECT_WORKER_QUERY_SECONDS": "2"}
        environment.pop("PREFECT_DEFAULT_WORK_POOL_NAME", None)
        # Deployed with HILSERL_ROOT unset, the placeholder stays in the pull step, and each host fills in its own folder.
        deploying = {name: value for name, value in environment.items() if name != "HILSERL_ROOT"}
        self._yaml = server.folder / "up.yaml"
        deploy = ["--no-prompt", "deploy", "--all", "--prefect-file", str(self._yaml)]
        self._deploy = ManagedProcess("Prefect deploy", self._gated(deploy, ",".join(plan.modules)), env=deploying, cwd=root)
        self._workers = {
            pool: ManagedProcess(
                f"Worker {pool}",
                self._gated(self._worker(pool, queue), "prefect.cli.worker,prefect.workers.process"),
                env=environment,
                cwd=root,
                grace_s=_WORKER_GRACE_S,
            )
            for pool, queue in here.queues.items()
        }
        self._trainings: CrashedTrainings | None = None

    def _gated(self, arguments: list[str], modules: str) -> list[str]:
        return [sys.executable, "-m", "hilserl.services.prefect_cli", str(self._gate), modules, *arguments]

    def _worker(self, pool: str, queue: str | None) -> list[str]:
        name = self._worker_names[pool]
        arguments = ["worker", "start", "--pool", pool, "--type", "process", "--name", name, "--install-policy", "never"]
        if queue is not None:
            arguments += ["--work-queue", queue]
        return arguments

    def bring_up(self, stop: Stop, continue_trainings: bool) -> None:
        """Start everything, as parallel as the cores allow, and say how to use it."""
        started = dt.datetime.now(dt.UTC)
        self._gate.unlink(missing_ok=True)
        write_atomically(self._yaml, yaml.safe_dump(self._plan.content, sort_keys=False).encode())
        for process in (self._deploy, *self._workers.values()):
            process.start()  # they import Prefect and the flows while the server starts
        many_cores = (os.cpu_count() or 1) >= _FEW_CORES
        if self._mlflow and many_cores:
            self._mlflow.launch()

        services: list[Service] = [self._server, *self._workers.values()]

        def check() -> None:
            stop.raise_if_asked()
            for service in services:
                service.check()

        self._server.wait_ready(_READY_S, check)
        api = self._server.api_url
        create_pools(api, self._plan)
        if self._here is not self._plan:  # an actor elsewhere may be alive; one that only waits must not start unattended
            close_runs(api, self._plan, "`hilserl up` started; nobody waits for this actor", only_waiting=True)
        if closed := close_runs(api, self._here, "`hilserl up` started and found no process of this run"):
            self._show(f"Closed {len(closed)} unfinished run(s) that an earlier `hilserl up` left behind.")
        self._trainings = CrashedTrainings(api, self._here, self._show)
        self._gate.touch()
        wait_until(lambda: self._deploy.exit_code is not None, _READY_S, f"The deployments were not made (log: {self._deploy.log})", check)
        if self._deploy.exit_code != 0:
            raise ServiceError(
                f"`prefect deploy --all` failed with code {self._deploy.exit_code}.{self._deploy.log_tail()}\nFull log: {self._deploy.log}"
            )
        wait_until(lambda: workers_online(api, self._worker_names, started), _READY_S, "The workers did not report to the server", check)
        if self._mlflow and not many_cores:
            self._mlflow.launch()
        self._summary()
        for run in closed:
            if run["work_pool_name"] != ROBOT_POOL and run["state"]["type"] == "RUNNING":
                self._continue(run, continue_trainings)

    def _continue(self, run: dict[str, Any], by_itself: bool) -> None:
        """Start an interrupted training again, or say how: after a power cut, a person should have seen the robot."""
        if by_itself:
            run = rest.call("GET", f"{self._server.api_url}/flow_runs/{run['id']}")
            if retry_run(self._server.api_url, run):
                self._show(f"Training `{run['name']}` was interrupted. It is started again.")
            return
        self._show(f"Training `{run['name']}` was interrupted. Continue it, from another terminal in this folder:")
        self._show(f"    {self._address()}uv run prefect flow-run retry {run['id']}")

    def _address(self) -> str:
        """Return what a person sets in front of a `prefect` command."""
        address = f"PREFECT_API_URL={self._server.api_url} "
        if not self._server.is_reachable_from_elsewhere:
            return "" if self._server.port == DEFAULT_PREFECT_PORT else address
        authority = ca_file()
        return f"{address}{CA_VARIABLE}={authority} " if authority else address

    def _summary(self) -> None:
        robot_host = self._plan.robot_host
        robot = f", robot `{robot_host}`" if robot_host and ROBOT_POOL in self._here.queues else ""
        lines = [
            "",
            "Ready.",
            f"  Prefect UI   {self._server.ui_url}",
            *([f"  MLflow UI    {self._mlflow.url} (starting)"] if self._mlflow else []),
            f"  Workers      {', '.join(self._here.queues)}{robot}",
            *(self._for_the_robot_host() if self._here is not self._plan else []),
            "  Train, from another terminal in this folder:",
            f"    {self._address()}uv run prefect deployment run hilserl/train",
            "  Ctrl-C here stops everything.",
            "",
        ]
        for line in lines:
            self._show(line)

    def _for_the_robot_host(self) -> list[str]:
        host = self._plan.robot_host or "NAME"
        return [
            f"  On the robot's host, with the same {AUTH_VARIABLE} and the certificates of `{host}`:",
            f"    PREFECT_API_URL={self._server.api_url} uv run hilserl up --robot-only --robot-host {host}",
        ]

    def watch(self, stop: Stop) -> None:
        """Start again what dies, services and trainings; return when a person asks to stop.

        Raises:
            ServiceError: A service died five times within two minutes.
        """
        assert self._trainings is not None, "bring_up comes first"
        services = [Revived("Prefect server", self._server, self._server.launch, self._show, is_ready=self._is_healthy)]
        for pool, worker in self._workers.items():
            services.append(Revived(worker.name, worker, worker.start, self._show, may_start=lambda pool=pool: self._may_work(pool)))  # type: ignore[misc]
        starting = self._mlflow
        if self._mlflow:
            services.append(Revived("MLflow UI", self._mlflow, self._mlflow.launch, self._show, is_ready=self._mlflow.is_ready))
        while not stop:
            for service in services:
                service.tend()
            self._trainings.tend()
            if starting and starting.is_ready():
                self._show(f"MLflow UI is ready: {starting.runs_url()}")
                starting = None
            time.sleep(_WATCH_S)

    def _is_healthy(self) -> bool:
        return self._server.is_alive() and answers(f"{self._server.api_url}/health")

    def _may_work(self, pool: str) -> bool:
        """Whether a worker that died may start again: what it had begun is closed, which needs the server."""
        if not self._is_healthy():
            return False
        message = "the worker that had started this run died, and the run with it"
        try:
            close_lost_runs(self._server.api_url, pool, self._here.queues[pool], self._worker_names[pool], message)
        except ServiceError:
            return False
        assert self._trainings is not None, "bring_up comes first"
        self._trainings.note_new_worker(pool)
        return True

    def take_down(self, stop: Stop) -> None:
        """Cancel what runs, then end workers, UI and server. A second Ctrl-C skips the waiting."""
        patience, was_alive = stop.count, self._server.is_alive()

        def hurry() -> bool:
            return stop.count > max(patience, 1)

        ended = self._cancel_runs(hurry)
        if ended:  # only then: a worker that is told to stop may kill its flow runs without their `finally`
            for worker in self._workers.values():
                worker.request_stop()
        self._deploy.stop()
        deadline = time.monotonic() + (_DRAIN_S if ended else 0)
        while any(worker.is_alive for worker in self._workers.values()) and time.monotonic() < deadline and not hurry():
            time.sleep(_WATCH_S)
        for worker in self._workers.values():
            worker.request_stop(everything=True)
        for worker in self._workers.values():
            worker.stop()
        self._close_runs()
        self._gate.unlink(missing_ok=True)
        if self._mlflow:
            self._mlflow.request_stop()
        self._server.stop()
        if self._mlflow:
            self._mlflow.stop()
        if was_alive:
            self._show("Stopped; nothing is left running.")

    def _cancel_runs(self, hurry: Callable[[], bool]) -> bool:
        if not self._gate.exists() or not self._server.is_alive():
            return False
        self._show("Stopping: cancelling what runs (up to 30 s; Ctrl-C again to hurry) ...")
        try:
            return cancel_runs(self._server.api_url, self._plan, "`hilserl up` was stopped", _CANCEL_S, hurry)
        except ServiceError as error:
            self._show(f"The runs could not be cancelled through the server: {error} Ending their processes.")
            return False

    def _close_runs(self) -> None:
        if not self._gate.exists() or not self._server.is_alive():
            return
        try:
            close_runs(self._server.api_url, self._here, "`hilserl up` was stopped")
        except ServiceError as error:
            self._show(f"The runs stay unfinished in Prefect until the next `hilserl up`: {error}")
