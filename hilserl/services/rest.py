"""Plain HTTP to a Prefect server.

Prefect's own client takes seconds to import and blocks for about 68 s per call while its server is
down, so what supervises the services does not use it.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import functools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hilserl.errors import ServiceAwayError, ServiceError, ServiceRefusedError
from hilserl.services.access import auth_headers, ca_file, ssl_context

_POLL_S = 0.1
# The server answers 503 while another connection holds SQLite's write lock: at its start, or when a
# run reports. It rolled back, so the request can be repeated.
_BUSY = 503
_BUSY_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)


def call(method: str, url: str, body: Any = None, *, timeout_s: float = 5.0, accept: tuple[int, ...] = (), is_prefect: bool = True) -> Any:
    """Send one request and return the JSON answer, or None where there is none.

    Args:
        method: HTTP method.
        url: Full URL.
        body: Sent as JSON.
        timeout_s: Limit for the answer [s].
        accept: Error codes that are as good as success (409 when creating what may exist).
        is_prefect: Show the secret of Prefect's API, where the environment has one.

    Raises:
        ServiceAwayError: The server is not there.
        ServiceRefusedError: It refused (quotes its answer), or was busy for 8 s.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"} | (auth_headers() if is_prefect else {})
    )
    for delay_s in (*_BUSY_DELAYS_S, None):
        try:
            with _opener().open(request, timeout=timeout_s) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:500]
            if error.code in accept:
                return None
            if error.code != _BUSY or delay_s is None:
                raise ServiceRefusedError(f"{method} {url} was refused with {error.code}: {detail}", error.code) from None
            time.sleep(delay_s)
        except OSError as error:
            raise ServiceAwayError(f"{method} {url}: no answer ({getattr(error, 'reason', error)}). Is the server running?") from None
    raise AssertionError("the last attempt returns or raises")


def answers(url: str, *, timeout_s: float = 2.0) -> bool:
    """Tell whether `url` answers with success."""
    try:
        with _opener().open(url, timeout=timeout_s):
            return True
    except OSError:
        return False


def server_time(url: str, *, timeout_s: float = 2.0) -> dt.datetime:
    """Return what time it is where `url` is served, to the second.

    Raises:
        ServiceAwayError: No answer.
    """
    try:
        with _opener().open(url, timeout=timeout_s) as answer:
            return email.utils.parsedate_to_datetime(answer.headers["Date"])
    except OSError as error:
        raise ServiceAwayError(f"{url}: no answer ({getattr(error, 'reason', error)}).") from None


def _opener() -> urllib.request.OpenerDirector:
    return _opener_for(ca_file())


@functools.cache
def _opener_for(_authority: Path | None) -> urllib.request.OpenerDirector:
    """Return what opens URLs: never through a proxy, and with the certificates that are there now."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl_context()))


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str, check: Callable[[], None] = lambda: None) -> None:
    """Poll `condition`; call `check`, which may raise, in between.

    Raises:
        ServiceError: It did not hold within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise ServiceError(f"{what} within {timeout_s:.0f} s.")
        time.sleep(_POLL_S)
