"""`hilserl up --robot-only`: the worker of the host that owns the robot, until Ctrl-C; everything else is on the learner's host."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hilserl.errors import ServiceAwayError, ServiceError, ServiceRefusedError
from hilserl.files import file_lock, home
from hilserl.services import rest
from hilserl.services.access import AUTH_VARIABLE, ca_file
from hilserl.services.deployments import ROBOT_POOL, close_lost_runs
from hilserl.services.environment import prefect_environment, project_root
from hilserl.services.processes import ManagedProcess
from hilserl.services.revival import Revived
from hilserl.services.stopping import Stop, stop_signals

_CANCEL_S = 40.0  # Prefect's worker sends SIGKILL to a cancelled flow after 30 s
_GRACE_S = 30.0  # an arm is made safe within this after SIGTERM
_WATCH_S = 0.3
_RETRY_S = 2.0
_TELL_EVERY_S = 30.0
_UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]


def run_robot_worker(robot_host: str, show: Callable[[str], None] = print) -> None:
    """Run the worker that starts this host's actors; return after Ctrl-C or SIGTERM.

    Waits for a server that is away, and starts a worker that died again. Must be called in the main thread.

    Args:
        robot_host: Name of this machine as `robot.host` of the configuration has it.
        show: Prints one line for a person.

    Raises:
        ServiceError: No server is named, it refuses us, or it has no actor for this host; or the worker dies again and again.
        KeyboardInterrupt: Interrupted before the worker was started.
    """
    api = server_url()
    with stop_signals() as stop, _only_one(robot_host):
        _wait_for_server(api, robot_host, stop, show)
        _close_lost(api, robot_host, "`hilserl up` started on the robot's host and found no process of this run")
        worker = _worker(api, robot_host)
        revived = Revived(worker.name, worker, worker.start, show, may_start=lambda: _may_work(api, robot_host))
        before, is_ready = _last_heartbeat(api, robot_host), False
        worker.start()
        try:
            while not stop:
                revived.tend()
                if not is_ready and _last_heartbeat(api, robot_host) not in (None, before):
                    is_ready = True
                    show(f"Ready: the worker of robot host `{robot_host}` asks {api} for work. Ctrl-C stops it.")
                stop.wait(_WATCH_S)
            show("Stopping: cancelling what runs here (up to 30 s) ...")
            _cancel_runs(api, robot_host, show)
        finally:
            worker.stop()
        show("Stopped; nothing is left running here.")


def server_url() -> str:
    """Return the API's address, as the learner's host printed it.

    Raises:
        ServiceError: The environment names none.
    """
    api = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not api:
        raise ServiceError(
            "PREFECT_API_URL is not set: it names the Prefect server of the learner's host, such as https://192.168.1.20:4200/api. "
            "`hilserl up --learner-only` there prints it."
        )
    return api


def require_actor(api: str, robot_host: str) -> None:
    """Ask the server whether it lets us in and has an actor for this host.

    Raises:
        ServiceAwayError: It is away, or just starting.
        ServiceError: It refuses us, or has none for this host; names those it has.
    """
    filter_ = {"work_pools": {"name": {"any_": [ROBOT_POOL]}}}
    found: list[dict[str, Any]] = rest.call("POST", f"{api}/deployments/filter", filter_)
    names = sorted(str(deployment["name"]) for deployment in found)
    if not names:
        raise ServiceAwayError(f"{api} has no actors yet: `hilserl up --learner-only` on the learner's host makes them when it starts.")
    if robot_host not in names:
        raise ServiceError(
            f"{api} has no actor for robot host `{robot_host}`; it has {', '.join(names)}. "
            "Start `hilserl up --learner-only --robot-host NAME` on the learner's host and `--robot-host NAME` here with the same name, "
            "which is `robot.host` of the configuration."
        )


def _wait_for_server(api: str, robot_host: str, stop: Stop, show: Callable[[str], None]) -> None:
    """Wait until the server answers; what waiting cannot cure is raised."""
    next_word = time.monotonic()
    while True:
        try:
            require_actor(api, robot_host)
            return
        except ServiceAwayError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ServiceError(
                    f"{api}: its certificate is not one that this host trusts ({error}). Authority used here: {ca_file() or 'the system'}. "
                    "Copy the folder that `hilserl certificates create` made for this host into HILSERL_HOME/certificates."
                ) from None
            if time.monotonic() >= next_word:
                show(f"Waiting for the Prefect server: {error}")
                next_word = time.monotonic() + _TELL_EVERY_S
        except ServiceRefusedError as error:
            if error.code == 401:
                raise ServiceError(
                    f"{api} refused the secret of this host: set {AUTH_VARIABLE} to the one of the learner's host."
                ) from None
            raise
        stop.wait(_RETRY_S)
        stop.raise_if_asked()


def _name(robot_host: str) -> str:
    return f"{ROBOT_POOL}@{robot_host}"


def _last_heartbeat(api: str, robot_host: str) -> str | None:
    """Return when the server last heard this host's worker, by its own clock; None: never, or it does not answer."""
    try:
        workers = rest.call("POST", f"{api}/work_pools/{ROBOT_POOL}/workers/filter", {})
    except ServiceError:
        return None
    return next((worker["last_heartbeat_time"] for worker in workers if worker["name"] == _name(robot_host)), None)


def _may_work(api: str, robot_host: str) -> bool:
    """Whether a worker that died may start again: what it had begun is closed, which needs the server."""
    try:
        _close_lost(api, robot_host, "the worker that had started this run died, and the run with it")
    except ServiceError:
        return False
    return True


def _close_lost(api: str, robot_host: str, message: str) -> None:
    close_lost_runs(api, ROBOT_POOL, robot_host, _name(robot_host), message)


@contextmanager
def _only_one(robot_host: str) -> Iterator[None]:
    """Be the only one on this host that starts this queue's actors: what is found unfinished is then known to be dead."""
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(home() / "robots" / f"worker-{robot_host}.lock", timeout_s=0))
        except TimeoutError:
            raise ServiceError(f"`hilserl up` runs already on this host for `{robot_host}`. Use that one, or end it (Ctrl-C).") from None
        yield


def _worker(api: str, robot_host: str) -> ManagedProcess:
    environment = os.environ | prefect_environment(api) | {"HILSERL_ROOT": str(project_root()), "PREFECT_WORKER_QUERY_SECONDS": "2"}
    environment.pop("PREFECT_DEFAULT_WORK_POOL_NAME", None)
    arguments = ["worker", "start", "--pool", ROBOT_POOL, "--work-queue", robot_host, "--type", "process", "--name", _name(robot_host)]
    command = [sys.executable, "-m", "prefect", *arguments, "--install-policy", "never"]
    return ManagedProcess(f"Worker {ROBOT_POOL}", command, env=environment, cwd=project_root(), grace_s=_GRACE_S)


def _cancel_runs(api: str, robot_host: str, show: Callable[[str], None]) -> None:
    """Cancel this host's actors through the server, so that it knows why they ended; the processes are ended afterwards in any case."""
    runs_here = {
        "flow_runs": {"state": {"type": {"any_": _UNFINISHED}}},
        "work_pools": {"name": {"any_": [ROBOT_POOL]}},
        "work_pool_queues": {"name": {"any_": [robot_host]}},
    }
    deadline = time.monotonic() + _CANCEL_S
    try:
        while (runs := rest.call("POST", f"{api}/flow_runs/filter", runs_here)) and time.monotonic() < deadline:
            for run in runs:
                if run["state"]["type"] != "CANCELLING":
                    state = {"type": "CANCELLING", "name": "Cancelling", "message": f"`hilserl up` was stopped on {robot_host}"}
                    rest.call("POST", f"{api}/flow_runs/{run['id']}/set_state", {"state": state})
            time.sleep(_WATCH_S)
    except ServiceError as error:
        show(f"The runs could not be cancelled through the server: {error} Ending their processes.")
