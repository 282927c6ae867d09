"""Plain HTTP to a Prefect server.

Prefect's own client takes seconds to import and blocks for about 68 s per call while its server is
down, so what supervises the services does not use it.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from hilserl.errors import ServiceError

_POLL_S = 0.1
# The server answers 503 while another connection holds SQLite's write lock: at its start, or when a
# run reports. It rolled back, so the request can be repeated.
_BUSY = 503
_BUSY_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never a proxy to 127.0.0.1


def call(method: str, url: str, body: Any = None, *, timeout_s: float = 5.0, accept: tuple[int, ...] = ()) -> Any:
    """Send one request and return the JSON answer, or None where there is none.

    Args:
        method: HTTP method.
        url: Full URL.
        body: Sent as JSON.
        timeout_s: Limit for the answer [s].
        accept: Error codes that are as good as success (409 when creating what may exist).

    Raises:
        ServiceError: The server is not there, refused (quotes its answer), or was busy for 8 s.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
    for delay_s in (*_BUSY_DELAYS_S, None):
        try:
            with _OPENER.open(request, timeout=timeout_s) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:500]
            if error.code in accept:
                return None
            if error.code != _BUSY or delay_s is None:
                raise ServiceError(f"{method} {url} was refused with {error.code}: {detail}") from None
            time.sleep(delay_s)
        except OSError as error:
            raise ServiceError(f"{method} {url}: no answer ({getattr(error, 'reason', error)}). Is the server running?") from None
    raise AssertionError("the last attempt returns or raises")


def answers(url: str, *, timeout_s: float = 2.0) -> bool:
    """Tell whether `url` answers with success."""
    try:
        with _OPENER.open(url, timeout=timeout_s):
            return True
    except OSError:
        return False


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
