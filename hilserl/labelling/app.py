"""What the labelling page asks for, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from hilserl.errors import DatasetError
from hilserl.web.guard import THEME, Guard

if TYPE_CHECKING:
    from hilserl.labelling.disagreements import DisagreementSession
    from hilserl.labelling.session import LabellingSession
    from hilserl.web.guard import App

STATIC = Path(__file__).parent / "static"


class Said(BaseModel):
    """What a person says of one frame; null: nobody can tell."""

    success: bool | None


def labelling_app(session: LabellingSession) -> App:
    """Build the server of one dataset's page."""
    from fastapi import Body
    from fastapi.responses import StreamingResponse

    app = _app("label.html")

    @app.get("/api/dataset")
    def dataset() -> dict[str, Any]:
        return session.describe()

    @app.get("/api/episodes/{index}/frames/{key}")
    def frames(index: int, key: str) -> StreamingResponse:
        if key not in session.cameras:
            raise DatasetError(f"{session.dataset.root}: no camera {key}; it has {', '.join(session.cameras)}.")
        parts = session.frames.stream(session.position(index), key)
        first = next(parts, b"")  # so that a damaged video is an answer, not a torn one

        def whole() -> Any:
            yield first
            yield from parts

        return StreamingResponse(whole(), media_type="application/octet-stream")

    @app.put("/api/episodes/{index}")
    def say(index: int, success: list[tuple[int, int]] = Body(embed=True, max_length=1000)) -> dict[str, Any]:  # noqa: B008
        return session.say(index, success) | {"next": session.next_unseen()}

    @app.delete("/api/episodes/{index}")
    def forget(index: int) -> dict[str, Any]:
        return session.forget(index) | {"next": session.next_unseen()}

    return Guard(app)


def disagreements_app(session: DisagreementSession) -> App:
    """Build the server of a page of single frames."""
    from fastapi.responses import FileResponse

    app = _app("disagreements.html")

    @app.get("/api/frames")
    def frames() -> dict[str, Any]:
        return session.describe()

    @app.get("/api/frames/{name}/{camera}.png")
    def picture(name: str, camera: str) -> FileResponse:
        return FileResponse(session.picture(name, camera))

    @app.put("/api/frames/{name}")
    def say(name: str, said: Said) -> dict[str, Any]:
        return session.say(name, said.success)

    @app.delete("/api/frames/{name}")
    def forget(name: str) -> dict[str, Any]:
        return session.forget(name)

    return Guard(app)


def _app(page: str) -> Any:
    """Make a server with the static files; errors of ours are answers with their text."""
    from fastapi import FastAPI, Request
    from fastapi.responses import FileResponse, JSONResponse
    from fastapi.staticfiles import StaticFiles

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.exception_handler(DatasetError)
    def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=409)

    @app.get("/")
    def index() -> FileResponse:
        return FileResponse(STATIC / page)

    @app.get("/theme.css")
    def theme() -> FileResponse:
        return FileResponse(THEME)

    app.mount("/static", StaticFiles(directory=STATIC))
    return app
