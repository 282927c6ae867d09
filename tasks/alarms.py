"""Show what raised an alarm in training, on the run's page, while it trains."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hilserl.learner.alarms import Alarm
from hilserl.threads import background_thread
from tasks.artifacts import has_page, publish_markdown

KEY = "alarms"


@contextmanager
def alarms_artifact() -> Iterator[Callable[[Sequence[Alarm]], None]]:
    """Yield what takes all alarms so far and returns at once; a thread puts them on the page."""
    if not has_page():
        yield lambda alarms: None
        return
    waiting: queue.SimpleQueue[Sequence[Alarm] | None] = queue.SimpleQueue()

    def post() -> None:
        while (alarms := waiting.get()) is not None:
            publish_markdown(KEY, alarms_markdown(alarms), "What raised an alarm in training")

    thread = background_thread(post, "alarms")
    thread.start()
    try:
        yield waiting.put
    finally:
        waiting.put(None)
        thread.join(timeout=5)


def alarms_markdown(alarms: Sequence[Alarm]) -> str:
    """Write the alarms as a table, the newest first."""
    rows = [
        f"| `{alarm.name}` | {alarm.step:,} | {'stands' if alarm.cleared_step is None else f'until {alarm.cleared_step:,}'} "
        f"| {alarm.value:.3g} | {alarm.message} |"
        for alarm in reversed(alarms)
    ]
    return "\n".join(["| alarm | step | | value | what to do |", "|---|---|---|---|---|", *rows]) + "\n"
