"""Show the library's progress as a Prefect progress artifact, without slowing the work down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from hilserl.progress import Progress, subscribed
from hilserl.threads import background_thread
from tasks.artifacts import has_page

logger = logging.getLogger(__name__)

_PERIOD_S = 2.0


@contextmanager
def progress_artifact(key: str) -> Iterator[None]:
    """Keep the artifact `key` up to date from a thread while the block runs; an unreachable server only costs the display."""
    if not has_page():
        yield
        return
    latest: list[Progress] = []
    succeeded = False
    stop = threading.Event()

    def post() -> None:
        artifact = None
        shown = None
        while True:
            last_round = stop.wait(_PERIOD_S)
            current = latest[-1] if latest else None
            if current is not None and (current is not shown or succeeded):
                shown = current
                percent = 100.0 if succeeded else 100.0 * current.done / current.total if current.total else 0.0
                text = _describe(current)
                try:
                    if artifact is None:
                        artifact = create_progress_artifact(percent, key=key, description=text)
                    else:
                        update_progress_artifact(artifact, percent, description=text)  # type: ignore[arg-type]
                except Exception:
                    logger.warning("The progress artifact %s could not be updated", key, exc_info=True)
            if last_round:
                return

    def keep(progress: Progress) -> None:
        latest[:] = [progress]

    thread = background_thread(post, f"progress-{key}")
    with subscribed(keep):
        thread.start()
        try:
            yield
            succeeded = True
        finally:
            stop.set()
            thread.join(timeout=5)


def _describe(progress: Progress) -> str:
    values = ", ".join(f"{name} {value:.3g}" for name, value in progress.values.items())
    total = f"/{progress.total:g}" if progress.total else ""
    return " · ".join(part for part in (f"{progress.done:g}{total} {progress.unit}".strip(), progress.message, values) if part)
