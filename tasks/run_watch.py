"""Know that this flow run was cancelled, even when Prefect's own worker is gone."""

from __future__ import annotations

import logging
import threading
import time
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound

from hilserl.errors import HilserlError
from hilserl.threads import background_thread
from tasks.orphaned import outlive_the_reader
from tasks.server import has_server, quick_client

logger = logging.getLogger(__name__)

_OVER = (StateType.CANCELLED, StateType.CRASHED, StateType.FAILED)


class RunStopped(HilserlError):
    """The flow run was cancelled, or given up by somebody, while its process worked on."""


class RunWatch:
    """Polls the state of the current flow run from a thread.

    A run whose worker died, or whose server was away for more than 70 s, is never told of its cancellation by
    Prefect. That the server is away is no reason to stop: who needs it waits for it at the end.

    Args:
        poll_s: Period [s].
        soft_s: Time for Prefect's own cancellation, which comes as a signal, before this one [s].
    """

    def __init__(self, *, poll_s: float = 2.0, soft_s: float = 0.0) -> None:
        self.reason: str | None = None
        self._poll_s, self._soft_s = poll_s, soft_s
        self._stop = threading.Event()
        self._attempt: int | None = None
        self._cancelling_since: float | None = None
        self._id = runtime.flow_run.id
        # The copied context has the settings that say which server.
        self._thread = background_thread(self._watch, "run-watch")

    def __enter__(self) -> RunWatch:
        outlive_the_reader()
        if has_server() and self._id:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()

    def raise_if_stopped(self) -> None:
        """Raise the reason to stop, if there is one.

        Raises:
            RunStopped: The flow run was cancelled.
        """
        if self.reason:
            raise RunStopped(self.reason)

    def is_cancelled(self, within_s: float = 0.0) -> bool:
        """Ask the server whether somebody cancels the run, now or within a while; False while it does not answer."""
        if not (has_server() and self._id):
            return False
        deadline = time.monotonic() + within_s
        with quick_client() as client:
            while True:
                try:
                    state = client.read_flow_run(UUID(self._id)).state
                except (httpx.HTTPError, ObjectNotFound):
                    return False
                if state is not None and (state.is_cancelling() or state.is_cancelled()):
                    return True
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.25)

    def _watch(self) -> None:
        is_away = False
        with quick_client() as client:
            while not self._stop.wait(self._poll_s):
                try:
                    self.reason = self._judge(client.read_flow_run(UUID(self._id)))
                    is_away = False
                except ObjectNotFound:
                    self.reason = "the flow run was deleted"
                except Exception as error:  # whatever the server answers, the robot's loop goes on
                    if not is_away:
                        logger.warning("The Prefect server does not answer (%r); this run goes on without it.", error)
                    is_away = True
                if self.reason:
                    logger.info("Stopping: %s", self.reason)
                    return

    def _judge(self, flow_run: FlowRun) -> str | None:
        state = flow_run.state
        if state is None:
            return None
        if state.is_running() and self._attempt is None:
            self._attempt = flow_run.run_count
        if self._attempt is not None and flow_run.run_count > self._attempt:
            return "the flow run was started again in another process"
        if state.type == StateType.CANCELLING:
            self._cancelling_since = self._cancelling_since or time.monotonic()
            return "the flow run is cancelling" if time.monotonic() - self._cancelling_since >= self._soft_s else None
        return f"the flow run is {state.type.value.lower()}" if state.type in _OVER else None
