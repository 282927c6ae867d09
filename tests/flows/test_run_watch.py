"""A flow run's process learns by itself that it was cancelled, and does not mind that the server is away."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("prefect_server")


def watched(change: Callable[[Any, Any], None], *, soft_s: float = 0.0, for_s: float = 15.0) -> str | None:
    """Run a flow that watches itself while `change(client, flow_run_id)` is done to it; return the reason that it found."""
    from prefect import flow, runtime
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from tasks.run_watch import RunWatch

    found: list[str | None] = []

    @flow(name="watched", persist_result=False)
    def watched_flow() -> None:
        with RunWatch(poll_s=0.1, soft_s=soft_s) as watch:
            time.sleep(0.5)
            with get_client(sync_client=True) as client:
                change(client, runtime.flow_run.id)
            deadline = time.monotonic() + for_s
            while watch.reason is None and time.monotonic() < deadline:
                time.sleep(0.05)
            found.append(watch.reason)

    with contextlib.suppress(ObjectNotFound):  # a deleted run cannot be told how it ended
        watched_flow(return_state=True)
    return found[0]


def set_state(**state: Any) -> Callable[[Any, Any], None]:
    return lambda client, run: client._client.post(f"/flow_runs/{run}/set_state", json={"state": state, "force": True})


@pytest.mark.parametrize("kind", ["CANCELLING", "CANCELLED", "CRASHED"])
def test_the_reason_is_found(kind: str) -> None:
    assert watched(set_state(type=kind)) == f"the flow run is {kind.lower()}"


def test_prefects_own_signal_has_the_first_word() -> None:
    assert watched(set_state(type="CANCELLING"), soft_s=60, for_s=1.5) is None


def test_a_deleted_run_and_one_started_elsewhere_stop() -> None:
    assert watched(lambda client, run: client._client.delete(f"/flow_runs/{run}")) == "the flow run was deleted"

    def start_again(client: Any, run: Any) -> None:
        for kind in ("SCHEDULED", "PENDING", "RUNNING"):
            set_state(type=kind)(client, run)

    assert watched(start_again) == "the flow run was started again in another process"


@pytest.mark.slow  # two starts of a real server
def test_a_server_that_is_away_is_no_reason_and_its_answer_counts_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is `away`: its place is taken by a socket that never answers, then by nothing, then it is there again."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks import run_watch
    from tasks.server import quick_client, wait_for_server

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        away = f"http://127.0.0.1:{deaf.getsockname()[1]}/api"

        def lose(client: Any, run: Any) -> None:
            set_state(type="CANCELLING")(client, run)

        real = run_watch.quick_client

        def elsewhere() -> Any:
            return AwayFirst(real, away)

        monkeypatch.setattr(run_watch, "quick_client", elsewhere)
        assert watched(lose, for_s=60) == "the flow run is cancelling"
        with temporary_settings({PREFECT_API_URL: away}), quick_client() as client:
            began = time.monotonic()
            assert client.api_healthcheck() is not None
            assert time.monotonic() - began < 20, "the client tries once"
            wait_for_server("The test", timeout_s=0.1)


class AwayFirst:
    """A client whose first calls go to nobody."""

    def __init__(self, real: Any, away: str) -> None:
        self._context, self._calls, self._away = real(), 0, away

    def __enter__(self) -> Any:
        self._client = self._context.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._context.__exit__(*exception)

    def read_flow_run(self, run: Any) -> Any:
        import httpx

        self._calls += 1
        if self._calls <= 2:
            httpx.get(self._away, timeout=0.3)
        return self._client.read_flow_run(run)


def test_a_cancelled_flow_ends_as_cancelled_and_not_as_failed() -> None:
    from prefect import flow
    from prefect.states import Cancelled

    from tasks.run_watch import RunStopped

    @flow(name="stopped", persist_result=False)
    def stopped() -> Any:
        try:
            raise RunStopped("the flow run is cancelling")
        except RunStopped as reason:
            return Cancelled(message=str(reason))

    state = stopped(return_state=True)
    assert state.is_cancelled() and state.message == "the flow run is cancelling"
