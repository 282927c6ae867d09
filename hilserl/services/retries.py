"""A crashed training is started again by itself, from `hilserl up`'s own loop.

An automation of the server would do the same, unless the server is what died: events of that moment are lost.
This loop looks at the states, which are on disk.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from hilserl.errors import ServiceError
from hilserl.services.deployments import DeploymentPlan, crashed_trainings, has_worker_done, retry_run

_PERIOD_S = 2.0
_MAX_RETRIES = 12  # a run that gets as far as its own folder counts its crashes there, and fails after three
_WITHIN_S = 600.0
_WORKER_DONE_S = 120.0  # for a worker that says nothing, because the server was away when it did


class CrashedTrainings:
    """Looks for crashed trainings every two seconds, and lets each be started again.

    Args:
        api_url: Address of the server's API.
        plan: Whose pools.
        show: Prints one line for a person.
    """

    def __init__(self, api_url: str, plan: DeploymentPlan, show: Callable[[str], None]) -> None:
        self._api_url, self._plan, self._show = api_url, plan, show
        self._since = dt.datetime.now(dt.UTC)
        self._next = 0.0
        self._retries: defaultdict[str, deque[float]] = defaultdict(deque)
        self._given_up: set[str] = set()
        self._new_workers: dict[str, dt.datetime] = {}

    def note_new_worker(self, pool: str) -> None:
        """Remember that the worker of `pool` is a new one, which has nothing to say about earlier runs."""
        self._new_workers[pool] = dt.datetime.now(dt.UTC)

    def tend(self) -> None:
        """Retry what crashed; never raises, and waits for the server a few seconds at most."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PERIOD_S
        try:
            for run in crashed_trainings(self._api_url, self._plan, self._since):
                if run["id"] in self._given_up or not self._is_settled(run) or not self._may_retry(run["id"], run["name"], now):
                    continue
                if retry_run(self._api_url, run):
                    self._show(f"Training `{run['name']}` crashed ({_short(run['state']['message'])}). It is started again.")
        except ServiceError:
            return  # the server is away; its own death is somebody else's to report, and the states wait

    def _is_settled(self, run: dict[str, Any]) -> bool:
        """Whether nobody has a word to add to this crash, which would end the next attempt."""
        crashed = dt.datetime.fromisoformat(run["state"]["timestamp"])
        new_worker = self._new_workers.get(run["work_pool_name"])
        is_orphan = new_worker is not None and crashed < new_worker
        is_old = (dt.datetime.now(dt.UTC) - crashed).total_seconds() > _WORKER_DONE_S
        return is_orphan or is_old or has_worker_done(self._api_url, run)

    def _may_retry(self, run_id: str, name: str, now: float) -> bool:
        retries = self._retries[run_id]
        retries.append(now)
        while now - retries[0] > _WITHIN_S:
            retries.popleft()
        if len(retries) <= _MAX_RETRIES:
            return True
        self._given_up.add(run_id)
        self._show(
            f"Training `{name}` crashed {len(retries)} times within {_WITHIN_S / 60:.0f} min and is not started again by itself. "
            f"Its log is in the Prefect UI; `prefect flow-run retry {run_id}` tries once more."
        )
        return False


def _short(message: str | None) -> str:
    return (message or "no message").splitlines()[0][:120]
