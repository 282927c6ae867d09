"""What a person sees while a run is going on."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hilserl.progress import Progress, subscribed

STAGES = {
    "start-prefect": "Start Prefect",
    "record-demonstrations": "Record demonstrations",
    "validate-dataset": "Validate the dataset",
    "pretrain-encoder": "Pretrain the vision encoder",
    "build-offline-buffer": "Build the offline buffer",
    "train-learner": "Learn",
    "evaluate-policy": "Evaluate",
    "publish-report": "Report",
}
_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_PERIOD_S = 5.0
_CURVE_WIDTH = 36
_BAR_WIDTH = 16  # so that a row fits into a terminal of 80 columns


@dataclass
class _Stage:
    started: float | None = None
    ended: float | None = None
    cached: bool = False
    skipped: str = ""
    failed: bool = False
    progress: Progress | None = None


@dataclass
class Display:
    """A live table of the phases on a terminal, lines of text elsewhere.

    Everything arrives through `hilserl.progress`, from the threads of this process.
    """

    title: str
    console: Console
    plain: bool = False
    _stages: dict[str, _Stage] = field(default_factory=lambda: {name: _Stage() for name in STAGES})
    _success: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last_line: float = 0.0
    _notes: list[str] = field(default_factory=list)
    _stopping: bool = False
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))  # one, since it counts its frames from its start

    def __enter__(self) -> Self:
        """Show, and listen."""
        self._subscription = subscribed(self._take)
        self._subscription.__enter__()
        self.plain = self.plain or not self.console.is_terminal
        self._live = None if self.plain else Live(get_renderable=self._render, console=self.console, refresh_per_second=8, transient=False)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the last picture on the terminal."""
        for name, stage in self._stages.items():
            if stage.started is not None and stage.ended is None:
                if error is None:
                    self.end(name)
                stage.failed = error is not None
        if self._live:
            self._live.stop()
        self._subscription.__exit__(kind, error, trace)

    def begin(self, name: str) -> None:
        """A phase starts; the phases follow each other, so the ones before it are done."""
        with self._lock:
            if self._stages[name].started is not None:
                return
            earlier = [other for other, stage in self._stages.items() if stage.started is not None and stage.ended is None]
            self._stages[name].started = time.monotonic()
        for other in earlier:
            self.end(other)

    def end(self, name: str, *, cached: bool = False) -> None:
        """A phase is done; `cached` when an earlier result was used."""
        with self._lock:
            stage = self._stages[name]
            if stage.ended is not None:
                return
            stage.ended, stage.cached = time.monotonic(), cached
            seconds = stage.ended - (stage.started or stage.ended)
        if self.plain:
            self.console.print(f"{STAGES[name]}: {'cached' if cached else f'done in {seconds:.1f} s'}")

    def skip(self, name: str, why: str) -> None:
        """A phase is left out."""
        with self._lock:
            self._stages[name].skipped = why
        if self.plain:
            self.console.print(f"{STAGES[name]}: skipped, {why}")

    def note(self, text: str) -> None:
        """Show a remark that the person may want to act on; a repeated one is shown once."""
        if text in self._notes:
            return
        self._notes.append(text)
        if self.plain:
            self.console.print(f"note: {text}", soft_wrap=True)

    def stopping(self) -> None:
        """Say that the request to stop was heard; safe in a signal handler, so it takes no lock and prints nothing itself."""
        self._stopping = True
        if self.plain:
            os.write(sys.stderr.fileno(), b"\nStopping: saving what was learned, ending what was started ...\n")

    def _take(self, progress: Progress) -> None:
        if progress.stage not in self._stages:
            return
        if progress.skipped:
            self.skip(progress.stage, progress.message)
            return
        self.begin(progress.stage)
        if progress.cached:
            self.end(progress.stage, cached=True)
        with self._lock:
            self._stages[progress.stage].progress = progress
            if "eval/success" in progress.values or "episode/success" in progress.values:
                self._success.append(progress.values.get("episode/success", 0.0))
            due = self.plain and time.monotonic() - self._last_line >= _PLAIN_PERIOD_S
            if due:
                self._last_line = time.monotonic()
        if due:
            self.console.print(f"  {STAGES.get(progress.stage, progress.stage)}: {_numbers(progress)}")

    def _render(self) -> RenderableType:
        with self._lock:
            table = Table.grid(padding=(0, 1))
            table.add_column(width=1)
            table.add_column(width=27)
            table.add_column(width=_BAR_WIDTH)
            table.add_column(no_wrap=True)
            for name, label in STAGES.items():
                stage = self._stages[name]
                table.add_row(*self._row(label, stage))
            learning = self._stages["train-learner"].progress
            parts: list[RenderableType] = [table]
            if learning is not None:
                parts.append(self._learning(learning))
            parts += [Text(f"\n{note}", style="yellow") for note in self._notes]
            if self._stopping:
                parts.append(Text("\nStopping: saving what was learned, ending what was started ...", style="bold yellow"))
        return Panel(Group(*parts), title=f"[bold]{self.title}", border_style="cyan", padding=(1, 2))

    def _row(self, label: str, stage: _Stage) -> tuple[RenderableType, ...]:
        if stage.skipped:
            return Text("–", style="dim"), Text(label, style="dim"), "", Text("skipped", style="dim")
        if stage.started is None:
            return Text("·", style="dim"), Text(label, style="dim"), "", ""
        if stage.ended is not None:
            note = "cached" if stage.cached else f"{stage.ended - stage.started:.1f} s"
            return Text("✓", style="green"), Text(label), "", Text(note, style="cyan" if stage.cached else "dim")
        bar: RenderableType = ""
        numbers = f"{time.monotonic() - stage.started:.0f} s"
        if stage.progress and stage.progress.total:
            bar = ProgressBar(total=stage.progress.total, completed=stage.progress.done, width=_BAR_WIDTH)
            numbers = f"{stage.progress.done:g}/{stage.progress.total:g} {stage.progress.unit}  {numbers}"
        mark = Text("✗", style="bold red") if stage.failed else self._spinner
        return mark, Text(label, style="bold"), bar, Text(numbers)

    def _learning(self, progress: Progress) -> RenderableType:
        values = progress.values
        if not progress.done:
            return Text("\nWaiting for the actor's first steps ...", style="dim")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=24)
        grid.add_column()
        if "episode/return" in values and "episode/success" not in values:
            grid.add_row("return while training", f"{values['episode/return']:.4g}")
            if "eval/return" in values:
                grid.add_row("return, policy alone", f"[bold]{values['eval/return']:.4g}")
            grid.add_row("speed", _speed(values))
            return Group(Text(""), grid)
        curve = Text("".join(_BARS[round(value * (len(_BARS) - 1))] for value in _thinned(self._success, _CURVE_WIDTH)), style="green")
        grid.add_row("success while training", Text.assemble(f"{values.get('episode/success', 0.0):4.0%}  ", curve))
        if "eval/success" in values:
            grid.add_row("success, policy alone", f"[bold]{values['eval/success']:4.0%}")
        grid.add_row("human intervention", f"{values.get('intervention/rate', 0.0):4.0%} of steps")
        grid.add_row("speed", _speed(values))
        return Group(Text(""), grid)


def _speed(values: Mapping[str, float]) -> str:
    owed = f", {values['owed_updates']:.0f} owed" if values.get("owed_updates") else ""
    return f"{values.get('steps_per_s', 0.0):4.0f} steps/s, {values.get('updates_per_s', 0.0):.0f} updates/s{owed}"


def _thinned(values: list[float], count: int) -> list[float]:
    """Return at most `count` values, evenly spread from the first to the last."""
    if len(values) <= count:
        return values
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]


def _numbers(progress: Progress) -> str:
    total = f"/{progress.total:g}" if progress.total else ""
    judged = "success" if "episode/success" in progress.values else "return"
    shown = ("success", "return", f"episode/{judged}", f"eval/{judged}", "intervention/rate", "loss")
    values = ", ".join(f"{key} {progress.values[key]:.2f}" for key in shown if key in progress.values)
    count = f"{progress.done:g}{total} {progress.unit}" if progress.done or total or progress.unit else ""
    return " ".join(part for part in (count, values, progress.message) if part) or "begun"
