"""Many training runs, one process each, whose results are lines of one JSON file; a finished run is not made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Key = tuple[Any, ...]


def read_results(file: Path) -> list[dict[str, Any]]:
    """Read the lines; a last line that was cut short by a kill is left out."""
    if not file.exists():
        return []
    found = []
    for line in file.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            print(f"{file}: a damaged line is ignored: {line[:60]}...", file=sys.stderr)
    return found


def commit() -> str:
    """Hash of the commit; `+` behind it: the library or the benchmarks were changed since."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=all", "hilserl", "benchmarks", "configs")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")


def run_all(script: Path, jobs: Sequence[tuple[Key, list[str]]], results: Path, workers: int, key_names: Sequence[str]) -> int:
    """Run `script --one ...` for every job that has no line yet, `workers` at a time, each with one thread.

    Args:
        script: The benchmark itself.
        jobs: What identifies a run (`key_names` of its line), and its arguments.
        results: JSON lines; the child prints its line as the last of its output.
        workers: Processes at a time.
        key_names: Fields of a line that make up its key.

    Returns:
        Number of runs that failed.
    """
    done = {tuple(line[name] for name in key_names) for line in read_results(results)}
    todo = [(key, arguments) for key, arguments in jobs if key not in done]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are done; {workers} at a time", flush=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    lock, failed = threading.Lock(), []
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

    def work(job: tuple[Key, list[str]]) -> None:
        key, arguments = job
        started = time.monotonic()
        child = subprocess.run(
            [sys.executable, str(script), "--one", *arguments], cwd=ROOT, env=os.environ | threads, capture_output=True, text=True
        )
        with lock:
            if child.returncode:
                failed.append(key)
                print(f"{key} FAILED after {time.monotonic() - started:.0f} s:\n{child.stderr[-2000:]}", file=sys.stderr, flush=True)
                return
            with results.open("a") as file:
                file.write(child.stdout.splitlines()[-1] + "\n")
            print(f"{key} took {time.monotonic() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, todo))
    return len(failed)
