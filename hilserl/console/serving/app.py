"""The HTTP and WebSocket paths of the console, and who gets in."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from hilserl.console.serving.hub import Hub
from hilserl.console.serving.viewer import HangUp, Viewer
from hilserl.web.guard import THEME, Guard

STATIC = Path(__file__).parents[1] / "static"
MOST_PAGES = 32
NO_TOKEN, TOO_MANY = 4401, 4503
_LONGEST_FORM = 4096
_REFUSED_S = 0.5
_COOKIE_LIFE_S = 30 * 24 * 3600


class Door:
    """Lets in who has the token; everybody, where there is none."""

    def __init__(self, token: str | None, port: int, *, secure: bool) -> None:
        self._token, self._secure = token, secure
        self._cookie = f"hilserl_console_{port}"  # cookies know no ports

    def opens_for(self, connection: Request | WebSocket) -> bool:
        """Tell whether a request may pass."""
        if self._token is None:
            return True
        given = connection.headers.get("authorization", "").removeprefix("Bearer ")
        return self.is_token(given) or _same(connection.cookies.get(self._cookie, ""), self._secret())

    def is_token(self, given: str) -> bool:
        """Tell whether this is the token."""
        return self._token is not None and _same(given, self._token)

    def give_key(self, response: Response) -> Response:
        """Put what opens the door into a cookie that scripts cannot read, and that no other site's page sends along."""
        response.set_cookie(
            self._cookie, self._secret(), max_age=_COOKIE_LIFE_S, httponly=True, samesite="lax", secure=self._secure, path="/"
        )
        return response

    def _secret(self) -> str:
        assert self._token is not None
        return hmac.new(self._token.encode(), b"hilserl console", hashlib.sha256).hexdigest()


def make_app(hub: Hub, door: Door, names: tuple[str, ...]) -> Any:
    """Make the console's ASGI application.

    Args:
        hub: The middle.
        door: Who gets in.
        names: Names under which this server is known, without port.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/theme.css")
    async def theme() -> FileResponse:
        return FileResponse(THEME)

    @app.get("/")
    async def page(request: Request) -> Response:
        if (given := request.query_params.get("token")) is not None:
            if not door.is_token(given):
                await asyncio.sleep(_REFUSED_S)
                return RedirectResponse("/", 303)
            return door.give_key(RedirectResponse("/", 303))  # out of the address, and of the browser's history
        if not door.opens_for(request):
            return FileResponse(STATIC / "login.html", 401)
        return FileResponse(STATIC / "index.html")

    @app.post("/login")
    async def login(request: Request) -> Response:
        if int(request.headers.get("content-length") or _LONGEST_FORM + 1) > _LONGEST_FORM:
            return Response(status_code=413)
        fields = parse_qs((await request.body()).decode(errors="replace"))
        if door.is_token(fields.get("token", [""])[0].strip()):
            return door.give_key(RedirectResponse("/", 303))
        await asyncio.sleep(_REFUSED_S)
        return FileResponse(STATIC / "login.html", 401)

    @app.get("/api/state")
    async def state(request: Request) -> Response:
        return JSONResponse(hub._whole_state()) if door.opens_for(request) else _closed()

    @app.get("/api/episodes")
    async def episodes(request: Request) -> Response:
        return JSONResponse(hub.replays.message()) if door.opens_for(request) else _closed()

    @app.get("/replays/{episode}/{camera}/{index}.jpg")
    async def replay(request: Request, episode: str, camera: str, index: int) -> Response:
        if not door.opens_for(request):
            return _closed()
        jpeg = await asyncio.to_thread(hub.replays.picture, episode, camera, index)
        headers = {"cache-control": "private, max-age=3600"}
        return Response(status_code=404) if jpeg is None else Response(jpeg, media_type="image/jpeg", headers=headers)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        if not door.opens_for(socket):
            await asyncio.sleep(_REFUSED_S)
            await socket.close(NO_TOKEN, "open the address with the token that the console printed")
        elif len(hub.viewers) >= MOST_PAGES:
            await socket.close(TOO_MANY, f"{MOST_PAGES} pages look already")
        else:
            await _serve(hub, Viewer(hub.new_name(), socket, hub.encoder), socket)

    return Guard(app, names)


async def _serve(hub: Hub, viewer: Viewer, socket: WebSocket) -> None:
    """Talk to one page until one of the two hangs up."""
    hub.join(viewer)
    tasks = [asyncio.create_task(viewer.send_on()), asyncio.create_task(_listen(hub, viewer, socket))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        error = next(iter(done)).exception()
        if isinstance(error, HangUp):
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it has gone already
                await socket.close(error.code, error.reason)
        elif error is not None and not isinstance(error, WebSocketDisconnect | RuntimeError):
            raise error
    finally:
        hub.leave(viewer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(hub: Hub, viewer: Viewer, socket: WebSocket) -> None:
    while True:
        message: Mapping[str, Any] = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if (text := message.get("text")) is None:
            viewer.senseless()
        elif (said := viewer.read(text)) is not None:
            hub.hear(viewer, said)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _closed() -> Response:
    return Response("the token is missing: open the address that the console printed", 401)
