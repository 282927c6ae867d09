"""Who may talk to a server on this machine: the checks of every page, over the raw protocol."""

import asyncio
from typing import Any

import pytest

from hilserl.web.guard import HEADERS, Guard


def ask(kind: str = "http", **headers: str) -> list[dict[str, Any]]:
    """Send one request through the guard to an application that always answers; return what went out."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=9")]})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(Guard(app, ("127.0.0.1", "localhost", "[::1]", "robot.lab"))(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", ["127.0.0.1:8400", "localhost", "LOCALHOST:1", "[::1]:8400", "robot.lab:8400"])
def test_its_own_names_are_let_in(host: str) -> None:
    assert ask(host=host)[0]["status"] == 200
    assert ask(host=host, origin=f"http://{host}")[0]["status"] == 200


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example:8400", "localhost.evil:80", "::1", "127.0.0.1:8400:1"])
def test_a_name_that_was_pointed_here_is_not(host: str) -> None:
    assert ask(host=host)[0]["status"] == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1", "http://evil@127.0.0.1:8400", ""]
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_from_elsewhere_are_turned_away(kind: str, origin: str) -> None:
    first = ask(kind, host="127.0.0.1:8400", origin=origin)[0]
    assert first.get("status") == 403 or (first["type"] == "websocket.close" and first["code"] == 4403)


def test_the_page_is_kept_to_itself() -> None:
    headers = dict(ask(host="localhost")[0]["headers"])
    assert headers[b"cache-control"] == b"max-age=9"  # what the application says wins
    assert b"unsafe" not in headers[b"content-security-policy"] and b"frame-ancestors 'none'" in headers[b"content-security-policy"]
    assert {name.encode() for name in HEADERS} <= set(headers)
