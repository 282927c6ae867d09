"""A flow run outlives the worker that started it, which reads its output through a pipe.

Rich, which prints Prefect's log lines, ends the process at the first line that nobody reads: a training would die
of telling something, hours after its worker did.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console


def outlive_the_reader() -> None:
    """From now on, a log line that nobody reads ends the printing, not this process. Lines still go to Prefect's page."""
    Console.on_broken_pipe = _fall_silent  # type: ignore[assignment,method-assign]


def _fall_silent(console: Console) -> None:
    console.quiet = True
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(devnull, stream.fileno())
    os.close(devnull)
