"""Watches a run from outside while it trains: whether it goes on, how much memory and disk it takes."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from _journal_audit import journal_bytes

_PROGRESS_S, _MEMORY_S, _DISK_S = 0.1, 2.0, 10.0
_TAIL_BYTES = 16_384


@dataclass
class Seen:
    """A number that grows, and when it was last seen growing.

    Attributes:
        value: The largest so far.
        at: When it grew last [s, monotonic].
    """

    value: float = 0.0
    at: float = field(default_factory=time.monotonic)

    def note(self, value: float) -> None:
        if value > self.value:
            self.value, self.at = value, time.monotonic()


class Watch:
    """A thread that looks at the run's files and processes.

    Args:
        home: HILSERL_HOME.
        run: Folder of the run.
        find: Returns the living processes by kind.

    Attributes:
        acting: Bytes in the actors' journals: the robot moves.
        learning_from: Bytes in the learner's journal: new environment steps arrive.
        updates: Critic updates done, as the learner's metrics say once a second.
        memory: By kind: (time [s], process id, resident bytes).
        disk: (time [s], bytes by part).
        failure: What ended the thread; None while it runs.
    """

    def __init__(self, home: Path, run: Path, find: Callable[[], dict[str, psutil.Process]]) -> None:
        self._home, self._run, self._find = home, run, find
        self._started = time.monotonic()
        self.acting, self.learning_from, self.updates = Seen(), Seen(), Seen()
        self.memory: dict[str, list[tuple[float, int, int]]] = {}
        self.disk: list[tuple[float, dict[str, int]]] = []
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _guarded(self) -> None:
        try:
            self._look()
        except BaseException as error:
            self.failure = error

    def _look(self) -> None:
        next_memory = next_disk = 0.0
        while not self._stop.wait(_PROGRESS_S):
            now = time.monotonic()
            self.acting.note(journal_bytes(self._home / "actors"))
            self.learning_from.note(journal_bytes(self._run / "journal" / "learner"))
            self.updates.note(_updates_done(self._run / "history.jsonl"))
            if now >= next_memory:
                next_memory = now + _MEMORY_S
                for kind, process in self._find().items():
                    if resident := _resident(process, alone=kind.endswith("-worker")):
                        self.memory.setdefault(kind, []).append((now - self._started, process.pid, resident))
            if now >= next_disk:
                next_disk = now + _DISK_S
                self.disk.append((now - self._started, self._parts()))

    def _parts(self) -> dict[str, int]:
        parts = {
            "actor's journal": self._home / "actors",
            "learner's journal": self._run / "journal",
            "replay rows": self._run / "experience",
            "checkpoints": self._run / "checkpoints",
            "mlflow": self._home / "mlflow",
            "prefect": self._home / "prefect",
            "logs": self._home / "logs",
        }
        return {name: _size(folder) for name, folder in parts.items()}


def memory_summary(memory: dict[str, list[tuple[float, int, int]]]) -> dict[str, dict[str, float]]:
    """Per kind: largest resident memory [MB], and growth of its longest-lived process in its second half [MB/h].

    The first half is warming up: caches, allocator, buffers that fill.
    """
    summary = {}
    for kind, samples in memory.items():
        lives: dict[int, list[tuple[float, int]]] = {}
        for at, pid, resident in samples:
            lives.setdefault(pid, []).append((at, resident))
        longest = max(lives.values(), key=lambda life: life[-1][0] - life[0][0])
        half = longest[len(longest) // 2 :]
        summary[kind] = {
            "processes": float(len(lives)),
            "largest_mb": max(resident for _, _, resident in samples) / 1e6,
            "longest_life_s": longest[-1][0] - longest[0][0],
            "growth_mb_per_h": slope(half) / 1e6 * 3600,
        }
    return summary


def disk_summary(disk: list[tuple[float, dict[str, int]]]) -> dict[str, dict[str, float]]:
    """Per part: bytes at the end [MB], and growth over the second half [MB/h]."""
    half = disk[len(disk) // 2 :]
    return {
        part: {"mb": disk[-1][1][part] / 1e6, "growth_mb_per_h": slope([(at, sizes[part]) for at, sizes in half]) / 1e6 * 3600}
        for part in disk[-1][1]
    }


def slope(points: list[tuple[float, Any]]) -> float:
    """Least-squares slope; 0 for fewer than two points."""
    if len({at for at, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([at for at, _ in points], [float(value) for _, value in points]).slope


def _updates_done(file: Path) -> float:
    """Read the last whole line of the learner's metrics."""
    try:
        with file.open("rb") as lines:
            lines.seek(max(0, file.stat().st_size - _TAIL_BYTES))
            tail = lines.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
        return float(json.loads(tail)["utd/done"])
    except (OSError, ValueError, KeyError):
        return 0.0  # none yet, or it is being rewritten by a learner that resumes: the next look sees it


def _resident(process: psutil.Process, *, alone: bool) -> int:
    """Of a process and all below it; a worker's flow runs are counted by themselves."""
    try:
        return sum(member.memory_info().rss for member in (process, *([] if alone else process.children(recursive=True))))
    except psutil.NoSuchProcess:
        return 0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except FileNotFoundError:
            continue  # removed in between, as checkpoints and journals are
    return total
