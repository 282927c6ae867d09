"""A line that shows how far a command is, once it has taken longer than a person waits without asking."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hilserl import progress

_PATIENCE_S = 2.0
_LINE_PERIOD_S = 5.0


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[None]:
    """Show what the library publishes while the block runs, on standard error by default."""
    console = console or Console(stderr=True)
    started, lock = time.monotonic(), threading.Lock()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[numbers]}"), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    row: list[Any] = []
    last_line = [started]

    def show(report: progress.Progress) -> None:
        now = time.monotonic()
        if now - started < _PATIENCE_S:
            return
        numbers = f"{report.done:g}/{report.total:g} {report.unit}" if report.total else ""
        description = report.message or report.stage.replace("-", " ")
        with lock:
            if not console.is_terminal:
                if now - last_line[0] >= _LINE_PERIOD_S:
                    last_line[0] = now
                    console.print(f"{description} {numbers}", markup=False)
                return
            if not row:
                bar.start()
                row.append(bar.add_task("", total=None, numbers=""))
            bar.update(row[0], description=description, completed=report.done, total=report.total, numbers=numbers)

    try:
        with progress.subscribed(show):
            yield
    finally:
        bar.stop()
        sys.stderr.flush()
