"""Know that this flow run was cancelled, even when Prefect's own worker is gone."""

from __future__ import annotations

import threading
import time

import httpx
from prefect import runtime
from prefect.settings import PREFECT_API_URL

_STOPPING = ("CANCELLING", "CANCELLED", "CRASHED", "FAILED")


class RunWatch:
    """Polls the state of the current flow run from a thread with a plain HTTP client.

    Prefect's client blocks for a minute while the server is away, and a run whose worker died is never
    told of its cancellation; a robot must not wait for either.
    """

    def __init__(self, *, poll_s: float = 2.0, lost_s: float = 60.0) -> None:
        self.reason: str | None = None
        self._poll_s, self._lost_s = poll_s, lost_s
        self._stop = threading.Event()
        self._url = f"{PREFECT_API_URL.value()}/flow_runs/{runtime.flow_run.id}"
        self._thread = threading.Thread(target=self._watch, name="run-watch", daemon=True)

    def __enter__(self) -> RunWatch:
        if PREFECT_API_URL.value() and runtime.flow_run.id:  # neither, when a test or a notebook calls the task's function
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        answered = time.monotonic()
        while not self._stop.wait(self._poll_s):
            try:
                state = httpx.get(self._url, timeout=2).raise_for_status().json()["state"]["type"]
                answered = time.monotonic()
            except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
                if time.monotonic() - answered > self._lost_s:
                    self.reason = f"the Prefect server was not reachable for {self._lost_s:.0f} s ({error!r})"
                    return
                continue
            if state in _STOPPING:
                self.reason = f"the flow run is {state.lower()}"
                return
