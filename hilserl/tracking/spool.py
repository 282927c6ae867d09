"""What a run has to say to MLflow, on disk until MLflow has it.

A folder with a journal of records (JSON), the figures and texts that they name, and `state.json`: how far
MLflow has them. What a process could not deliver, or was killed before, the next one of the run delivers.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hilserl.errors import HilserlError
from hilserl.files import write_atomically
from hilserl.link.journal import Journal

log = logging.getLogger(__name__)

Record = dict[str, Any]

MAX_MEMORY_RECORDS = 10_000  # while the disk is full; about three hours of metrics
_REOPEN_GAP = 1 << 20  # a number that a power cut took back is never given to a second record
_SEGMENT_BYTES = 1 << 20
_STATE = "state.json"


@dataclass
class SpoolState:
    """How far MLflow has the records.

    Attributes:
        through: Number of the last record that is delivered.
        run_id: MLflow's id of the run; None before it exists.
        experiment_id: Of its experiment.
        is_open: Whether MLflow shows it as running.
        recorded: Largest step delivered, by metric.
        floor: Largest step that earlier processes delivered: a resumed run repeats some, and they are not stored twice.
        last_ms: Largest timestamp delivered [ms].
    """

    through: int = 0
    run_id: str | None = None
    experiment_id: str | None = None
    is_open: bool = False
    recorded: dict[str, int] = field(default_factory=dict)
    floor: dict[str, int] = field(default_factory=dict)
    last_ms: int = 0


class Spool:
    """The records of one run that MLflow does not have yet; one process at a time.

    Attributes:
        state: How far MLflow has them; saved by `commit` and `save`.
        lost: Metric values that neither the disk nor the memory had room for, or that are damaged on disk.
        failing: Why nothing can be written at present; None when it can. Records wait in memory then.

    Raises:
        TransportError: Another process has the folder open.
        CacheError: The disk is full.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = _SEGMENT_BYTES, max_memory_records: int = MAX_MEMORY_RECORDS) -> None:
        self.folder = folder
        self.lost = 0
        self.failing: Exception | None = None
        self._journal = Journal(folder, label="tracking", reopen_gap=_REOPEN_GAP, segment_bytes=segment_bytes)
        self.state = _read_state(folder / _STATE)
        self._reader = self._journal.reader(self.state.through)
        self._read: deque[tuple[int, Record]] = deque()
        self._lock = threading.Lock()
        self._memory: deque[tuple[int, bytes]] = deque()  # (values, record)
        self._max_memory_records = max_memory_records
        self._is_closed = False
        self._waiting, self._records, self._last_ms = 0, 0, self.state.last_ms
        for _, payload in self._journal.records(self.state.through):
            record = json.loads(payload)
            self._waiting += _values(record)
            self._records += 1
            self._last_ms = max(self._last_ms, record.get("ms", 0))
        self._anchor = (time.time_ns() // 1_000_000, time.monotonic())

    @property
    def waiting(self) -> int:
        """Metric values that MLflow does not have yet."""
        with self._lock:
            return self._waiting

    def describe_waiting(self) -> str | None:
        """Say what MLflow does not have yet, and where it is; None if it has everything."""
        with self._lock:
            if not self._records:
                return None
            return f"{self._waiting:,} metric values (and {self._records:,} records in all) wait in {self.folder}"

    def now_ms(self) -> int:
        """Return the time since the epoch [ms], larger than all before: a wall clock that is set does not reorder a plot."""
        wall_ms, began = self._anchor
        with self._lock:
            self._last_ms = max(wall_ms + int(1e3 * (time.monotonic() - began)), self._last_ms + 1)
            return self._last_ms

    def append(self, record: Record) -> None:
        """Add a record; once this returns, it survives the process, or waits in memory because the disk is full."""
        values = _values(record)
        with self._lock:
            if self._is_closed:
                self.lost += values
                return
            self._memory.append((values, json.dumps(record, separators=(",", ":")).encode()))
            self._waiting += values
            self._records += 1
            self._write()
            if len(self._memory) > self._max_memory_records:
                dropped, _ = self._memory.popleft()
                self.lost += dropped
                self._waiting -= dropped
                self._records -= 1

    def retry(self) -> None:
        """Write what waits in memory, if there is room on the disk now."""
        with self._lock:
            if not self._is_closed:
                self._write()

    def _write(self) -> None:
        while self._memory:
            try:
                self._journal.append(self._memory[0][1])
            except (HilserlError, OSError) as error:
                if self.failing is None:
                    log.warning(
                        "%s cannot be written, so metrics wait in memory (at most %d records): %s",
                        self.folder, self._max_memory_records, error,
                    )  # fmt: skip
                self.failing = error
                return
            self._memory.popleft()
        if self.failing is not None:
            log.warning("%s can be written again", self.folder)
            self.failing = None

    def stage(self, data: bytes, name: str) -> Path:
        """Keep the bytes of a figure or text until MLflow has them, and return where.

        Raises:
            CacheError: The disk is full.
        """
        file = self.folder / "files" / f"{self.now_ms()}" / Path(name).name
        write_atomically(file, data)
        return file

    def unstage(self, file: Path) -> None:
        """Remove what `stage` kept; other files are left alone."""
        if file.parent.parent == self.folder / "files":
            file.unlink(missing_ok=True)
            file.parent.rmdir()

    def next(self) -> tuple[int, Record] | None:
        """Return the oldest record that is not committed, with its number; None when there is none."""
        if not self._read:
            self._read.extend((seq, json.loads(payload)) for seq, payload in self._reader.read())
        return self._read[0] if self._read else None

    def peek(self, place: int) -> tuple[int, Record] | None:
        """Return the record `place` behind `next`, if it has been read already."""
        return self._read[place] if place < len(self._read) else None

    def commit(self, count: int) -> None:
        """Note, durably, that MLflow has the next `count` records, and forget them.

        Raises:
            CacheError: The disk is full: they count as not delivered after a restart, and are then sent once more.
        """
        done = [self._read.popleft() for _ in range(count)]
        self.state.through = done[-1][0]
        with self._lock:
            self._waiting -= sum(_values(record) for _, record in done)
            self._records -= count
        self.save()
        self._journal.drop_through(self.state.through)

    def save(self) -> None:
        """Write the state, durably."""
        write_atomically(self.folder / _STATE, json.dumps(asdict(self.state)).encode())

    def close(self) -> None:
        """Close the journal, which is emptied when MLflow has everything; later records are lost, and counted."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self.lost += sum(values for values, _ in self._memory)
            self._waiting -= sum(values for values, _ in self._memory)
            self._records -= len(self._memory)
            self._memory.clear()
        try:
            if self.next() is None:
                self._journal.clear()
        finally:
            self._reader.close()
            self._journal.close()


def _values(record: Mapping[str, Any]) -> int:
    return len(record.get("metrics", ()))


def _read_state(file: Path) -> SpoolState:
    try:
        return SpoolState(**json.loads(file.read_text()))
    except FileNotFoundError:
        return SpoolState()
    except (OSError, ValueError, TypeError) as error:
        log.warning(
            "%s is damaged (%s); what is still in the folder is sent to MLflow once more, which keeps equal values once", file, error
        )
        return SpoolState()
