"""`hilserl label`: say on a web page which frames of a dataset show success."""

from __future__ import annotations

import contextlib
import webbrowser
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from hilserl.errors import ConfigError

if TYPE_CHECKING:
    from hilserl.web.guard import App


def run_label(dataset: Path | None, disagreements: Path | None, labels: Path | None, by: str | None, port: int, *, browser: bool) -> None:
    """Serve the page until Ctrl-C, and say at the end where the labels are and how far they are."""
    from hilserl.labelling.serve import serve_page

    if (dataset is None) == (disagreements is None):
        raise ConfigError("`hilserl label` takes the folder of a dataset, or --disagreements FOLDER: one of the two.")

    def opened(url: str) -> None:
        print(f"{url}  the labelling page, on this machine only; Ctrl-C ends it. Over ssh: ssh -L {port}:127.0.0.1:{port} HOST", flush=True)
        if browser:
            webbrowser.open(url)

    app, alone, file, summary = _prepare(dataset, disagreements, labels, by)
    print(f"{file}  what you say, written at once", flush=True)
    with alone, contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has closed
        serve_page(app, port, opened)
    print(summary())


def _prepare(
    dataset: Path | None, disagreements: Path | None, labels: Path | None, by: str | None
) -> tuple[App, AbstractContextManager[None], Path, Callable[[], str]]:
    from hilserl.labelling.app import disagreements_app, labelling_app
    from hilserl.labelling.disagreements import DisagreementSession
    from hilserl.labelling.session import LabellingSession

    if disagreements is not None:
        frames = DisagreementSession(disagreements, labels, by)
        return disagreements_app(frames), frames.alone(), frames.file, frames.summary
    assert dataset is not None
    session = LabellingSession(dataset, labels, by)
    for reason in session.labels.changed.values():
        print(f"note: {reason}", flush=True)
    return labelling_app(session), session.alone(), session.labels.path, session.summary
