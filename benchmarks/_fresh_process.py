"""Run one step of a benchmark in a fresh process, and watch how long it takes and how much memory it holds."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_SAMPLE_EVERY_S = 0.05


@dataclass(frozen=True)
class Measured:
    """One run of one step.

    Attributes:
        result: What the step returned.
        wall_s: From start to end of the process, imports included [s].
        cpu_s: Processor time of the process and those it waited for, imports included [s]: what a busy machine changes less.
        peak_mb: Largest resident memory of the process and all below it together [10^6 bytes], seen every 50 ms;
            pages that two of them share, and mapped files, count in full.
    """

    result: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_mb: float


def run_fresh(script: Path, step: str, arguments: dict[str, Any], environment: dict[str, str] | None = None) -> Measured:
    """Run `script step NAME ARGUMENTS RESULT_FILE` in a new interpreter.

    Raises:
        RuntimeError: It failed; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log.txt"
        command = [sys.executable, str(script), "step", step, json.dumps(arguments), str(answer)]
        with log.open("w") as output:
            started, cpu_before, peak = time.perf_counter(), _children_cpu_s(), 0
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | (environment or {}))
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                peak = max(peak, _resident(watched))
                time.sleep(_SAMPLE_EVERY_S)
            wall = time.perf_counter() - started
        if process.returncode or not answer.exists():
            raise RuntimeError(f"{step} failed with code {process.returncode}:\n{log.read_text()[-3000:]}")
        return Measured(json.loads(answer.read_text()), wall, _children_cpu_s() - cpu_before, peak / 1e6)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        return total  # One ended between two questions: this sample counts the others, and the next one follows.
    return total
