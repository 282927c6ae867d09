"""`prefect.yaml`, the pools it needs, and the runs on them.

The file is the one source of truth: people with a Prefect of their own deploy it as it is, `up`
deploys it with the name of this machine's robot host filled in.
"""

from __future__ import annotations

import copy
import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hilserl.errors import ServiceError
from hilserl.services import rest

ROBOT_POOL = "robot"
_UNFINISHED = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
_POLL_S = 0.5


@dataclass(frozen=True)
class DeploymentPlan:
    """What to deploy, and where it may run.

    Attributes:
        content: The YAML document.
        queues: Queue (None: the pool's default one) of each pool, in the order of the file.
        entrypoints: `path/to/file.py:flow` of each deployment.
        robot_host: Name of the actor's deployment and queue, None where no deployment is on the robot pool.
    """

    content: dict[str, Any]
    queues: dict[str, str | None]
    entrypoints: tuple[str, ...]
    robot_host: str | None

    @property
    def modules(self) -> tuple[str, ...]:
        """The flows' files as importable module names."""
        return tuple(dict.fromkeys(entry.partition(":")[0].removesuffix(".py").replace("/", ".") for entry in self.entrypoints))

    def without_robots(self) -> DeploymentPlan:
        """Return what belongs on a learner's host whose robots are driven by other hosts."""
        return replace(self, queues={pool: queue for pool, queue in self.queues.items() if pool != ROBOT_POOL})


def read_plan(path: Path, robot_host: str) -> DeploymentPlan:
    """Read a `prefect.yaml` and keep what belongs on this machine.

    Of several deployments on the robot pool only that of `robot_host` is kept; a single one for
    another host is renamed.

    Raises:
        ServiceError: The file is missing, broken, or names no pool for a deployment.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        deployments = copy.deepcopy(content["deployments"])  # anchors become copies
        robots = [d for d in deployments if d["work_pool"]["name"] == ROBOT_POOL]
        others = [d for d in deployments if d["work_pool"]["name"] != ROBOT_POOL]
        names = [d["name"] for d in robots]
        if len(robots) > 1 and robot_host not in names:
            raise ServiceError(
                f"{path}: no actor deployment for the robot host `{robot_host}`; it has {', '.join(names)}. "
                "Choose one with `--robot-host`, or add yours."
            )
        robots = [d for d in robots if d["name"] == robot_host] or robots
        for deployment in robots:
            deployment["name"] = robot_host
            deployment["work_pool"]["work_queue_name"] = robot_host
        kept = others + robots
        return DeploymentPlan(
            content=content | {"deployments": kept},
            queues={d["work_pool"]["name"]: d["work_pool"].get("work_queue_name") for d in kept},
            entrypoints=tuple(d["entrypoint"] for d in kept),
            robot_host=robot_host if robots else None,
        )
    except OSError as error:
        raise ServiceError(
            f"{path}: cannot be read ({error.strerror}). `hilserl up` needs the project folder; set HILSERL_ROOT to it."
        ) from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ServiceError(
            f"{path}: is no list of deployments, each with `name`, `entrypoint` and `work_pool.name` ({type(error).__name__}: {error})."
        ) from None


def create_pools(api_url: str, plan: DeploymentPlan) -> None:
    """Create the process pools and queues of a plan where they are missing.

    No pool is made the default: `prefect deploy -n` obeys a default pool over the file, and would
    move the actor to the learner's host.

    One training at a time is the pool's limit and not the worker's: a worker with `--limit` (3.8.8) dies of a run
    that is retried before it has done with the attempt that crashed. The robot's pool has none: its own lock
    refuses a second actor, which a limit would queue.
    """
    for pool, queue in plan.queues.items():
        rest.call("POST", f"{api_url}/work_pools/", {"name": pool, "type": "process"}, accept=(409,))
        if pool != ROBOT_POOL and rest.call("GET", f"{api_url}/work_pools/{pool}")["concurrency_limit"] is None:
            rest.call("PATCH", f"{api_url}/work_pools/{pool}", {"concurrency_limit": 1})
        if queue is not None:
            rest.call("POST", f"{api_url}/work_pools/{pool}/queues", {"name": queue}, accept=(409,))


def workers_online(api_url: str, names: dict[str, str], since: dt.datetime) -> bool:
    """Tell whether each pool's worker (`names` by pool) has reported to the server after `since`."""
    for pool, name in names.items():
        workers = rest.call("POST", f"{api_url}/work_pools/{pool}/workers/filter", {}) or []
        seen = [dt.datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers if worker["name"] == name]
        if not seen or max(seen) < since:
            return False
    return True


def unfinished_runs(api_url: str, plan: DeploymentPlan) -> list[dict[str, Any]]:
    """Return the runs on the plan's pools that are not over; those made by a schedule are left out."""
    body = {"flow_runs": {"state": {"type": {"any_": _UNFINISHED}}}, "work_pools": {"name": {"any_": list(plan.queues)}}, "limit": 200}
    return [run for run in rest.call("POST", f"{api_url}/flow_runs/filter", body) if not run["auto_scheduled"]]


def cancel_runs(api_url: str, plan: DeploymentPlan, message: str, timeout_s: float, hurry: Callable[[], bool] = lambda: False) -> bool:
    """Cancel every run on the plan's pools and wait for them; flows get SIGTERM and run their `finally`.

    Args:
        api_url: Address of the server's API.
        plan: Whose pools.
        message: Shown as the reason in the UI.
        timeout_s: Prefect's workers send SIGKILL after 30 s, so a little more [s].
        hurry: Polled; True stops waiting.

    Returns:
        Whether all of them are over.
    """
    asked: set[str] = set()
    deadline = time.monotonic() + timeout_s
    while runs := unfinished_runs(api_url, plan):
        for run in runs:
            if run["id"] not in asked and run["state"]["type"] != "CANCELLING":
                asked.add(run["id"])
                _set_state(api_url, run["id"], "CANCELLING", message, force=False)
        if time.monotonic() > deadline or hurry():
            return False
        time.sleep(_POLL_S)
    return True


def close_runs(api_url: str, plan: DeploymentPlan, message: str, *, only_waiting: bool = False) -> list[dict[str, Any]]:
    """Close the records of runs whose processes are gone; return the runs as they were.

    What was waiting is cancelled, so that no arm moves unattended at the next start, and so is what was being
    cancelled; what was running is called crashed.

    Args:
        api_url: Address of the server's API.
        plan: Whose pools.
        message: Shown as the reason in the UI.
        only_waiting: Leave alone what may run on another host.
    """
    runs = [run for run in unfinished_runs(api_url, plan) if not only_waiting or run["state"]["type"] == "SCHEDULED"]
    for run in runs:
        _close(api_url, run, message)
    return runs


def close_lost_runs(api_url: str, pool: str, queue: str | None, worker: str, message: str) -> int:
    """Close the records of the runs that a dead worker of this machine had started; return how many.

    Where other workers take runs from the same queue, theirs cannot be told apart, and nothing is closed; the
    training itself notices an actor that is gone.
    """
    workers = rest.call("POST", f"{api_url}/work_pools/{pool}/workers/filter", {}) or []
    if queue is None and any(other["status"] == "ONLINE" and other["name"] != worker for other in workers):
        return 0
    filters: dict[str, Any] = {
        "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        "work_pools": {"name": {"any_": [pool]}},
        "work_pool_queues": {"name": {"any_": [queue or "default"]}},
    }
    runs = rest.call("POST", f"{api_url}/flow_runs/filter", filters | {"limit": 200})
    for run in runs:
        _close(api_url, run, message, waiting=("SCHEDULED",))
    return len(runs)


def crashed_trainings(api_url: str, plan: DeploymentPlan, since: dt.datetime) -> list[dict[str, Any]]:
    """Return the runs on the plan's pools, but the robots', that crashed after `since`."""
    pools = [pool for pool in plan.queues if pool != ROBOT_POOL]
    crashed = {"state": {"type": {"any_": ["CRASHED"]}}, "end_time": {"after_": since.isoformat()}}
    body = {"flow_runs": crashed, "work_pools": {"name": {"any_": pools}}, "limit": 200}
    runs: list[dict[str, Any]] = rest.call("POST", f"{api_url}/flow_runs/filter", body)
    return runs


def has_worker_done(api_url: str, run: dict[str, Any]) -> bool:
    """Tell whether the worker has nothing more to say about the attempt of `run` that crashed.

    A worker (3.8.8) reports a crash twice: at once, and when its crash hooks have run, 10 s later and more. The second
    report would end an attempt that was started in between.
    """
    done = {
        "event": {"name": ["prefect.worker.executed-flow-run"]},
        "related": {"id": [f"prefect.flow-run.{run['id']}"]},
        "occurred": {"since": run["state"]["timestamp"]},
    }
    return bool(rest.call("POST", f"{api_url}/events/filter", {"filter": done, "limit": 1})["events"])


def retry_run(api_url: str, run: dict[str, Any]) -> bool:
    """Let a crashed run be started again, as the same flow run; one that was being cancelled is called cancelled instead.

    Returns:
        Whether it will be started.
    """
    states = rest.call("GET", f"{api_url}/flow_run_states/?flow_run_id={run['id']}")
    before = sorted((state for state in states if state["timestamp"] <= run["state"]["timestamp"]), key=lambda state: state["timestamp"])
    was_cancelling = len(before) > 1 and before[-2]["type"] == "CANCELLING"
    message = run["state"]["message"] or "no message"
    if was_cancelling:
        _set_state(api_url, run["id"], "CANCELLED", f"It was being cancelled when it crashed: {message}", force=True)
        return False
    for child in _unfinished_children(api_url, run["id"]):
        _set_state(api_url, child["id"], "CRASHED", "the run that it was a part of crashed", force=True)
    _set_state(api_url, run["id"], "SCHEDULED", f"Started again by `hilserl up`, after: {message}", force=True, name="AwaitingRetry")
    return True


def _unfinished_children(api_url: str, run_id: str) -> list[dict[str, Any]]:
    """Return the flows that ran in the process of this one."""
    body = {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}, "state": {"type": {"any_": _UNFINISHED}}}, "limit": 200}
    return [child for child in rest.call("POST", f"{api_url}/flow_runs/filter", body) if child["deployment_id"] is None]


def _close(api_url: str, run: dict[str, Any], message: str, *, waiting: tuple[str, ...] = ("SCHEDULED", "PENDING")) -> None:
    """Call a run whose process is gone cancelled where somebody wanted that or it had not begun, else crashed."""
    kind = run["state"]["type"]
    _set_state(api_url, run["id"], "CANCELLED" if kind in (*waiting, "CANCELLING") else "CRASHED", message, force=True)


def _set_state(api_url: str, run_id: str, kind: str, message: str, *, force: bool, name: str | None = None) -> None:
    state = {"type": kind, "name": name or kind.capitalize(), "message": message}
    rest.call("POST", f"{api_url}/flow_runs/{run_id}/set_state", {"state": state, "force": force})
