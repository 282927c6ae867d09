"""Prefect's client, made harmless: it answers or fails within seconds, also while the server is away.

As it comes it blocks for about 68 s per call then. What watches a robot or a training cannot wait for that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

logger = logging.getLogger(__name__)

_ANSWER_S = 4.0
_END_S = 600.0


@contextmanager
def quick_client() -> Iterator[SyncPrefectClient]:
    """Provide a client for this thread that tries once, for at most a few seconds."""
    settings = {"timeout": _ANSWER_S}
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(httpx_settings=settings, sync_client=True) as client:
        yield client


def is_away(error: BaseException) -> bool:
    """Tell whether a call of `quick_client` failed because the server is away, busy or just starting, and not of what was asked."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.HTTPError)


def has_server() -> bool:
    """Whether there is a server to ask at all; not where a test or a notebook calls a task's function."""
    return bool(PREFECT_API_URL.value())


def wait_for_server(what: str, timeout_s: float = _END_S) -> None:
    """Wait until the server answers, because `what` needs it; returns after `timeout_s` in any case."""
    if not has_server():
        return
    deadline, told = time.monotonic() + timeout_s, False
    with quick_client() as client:
        while (error := client.api_healthcheck()) is not None and time.monotonic() < deadline:
            if not told:
                logger.warning("The Prefect server does not answer (%r). %s waits for it, up to %.0f min.", error, what, timeout_s / 60)
                told = True
            time.sleep(1.0)
