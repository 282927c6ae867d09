"""When each record was taken in, counted in critic updates: what makes a resumed run the uninterrupted one.

The link's journal holds every record, and a sampled batch depends on which of them had been taken in. So
the learner notes, for every poll that brought something, how many updates were done before it; a resumed one
takes the journal's records in at the same counts. A lost tail of this file costs that exactness, nothing else.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hilserl.files import fsync_directory
from hilserl.link.ingest import ReceivedRecord
from hilserl.link.messages import EpisodeReport, Step

logger = logging.getLogger(__name__)

_ENTRY = struct.Struct("<QQI")
_CRC = struct.Struct("<I")
_BYTES = _ENTRY.size + _CRC.size
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Moment:
    """A point of the run: the records up to `log_seq` were in when `updates` updates were done.

    Attributes:
        log_seq: Place in the learner's journal.
        updates: Critic updates done.
    """

    log_seq: int
    updates: int


class Schedule:
    """The file of moments; entries of 24 bytes, each with its checksum, written without buffering.

    Attributes:
        file: Where it is.
        moments: What the file held when it was opened, in order.
        generation: Grows whenever a run may have been continued otherwise than it had gone on: weights of
            different content then never have one version.
        lost_tail: Why the end may be missing; None when it is complete.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.moments: list[Moment] = []
        self.generation = 0
        self.lost_tail: str | None = None
        self._lock = threading.Lock()  # the saver's thread trims, the loop appends
        file.parent.mkdir(parents=True, exist_ok=True)
        existed = file.exists()
        self._descriptor: int | None = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        data = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        good = self._read(data)
        if good < len(data):
            os.ftruncate(self._descriptor, good)
            self.lost_tail = f"its last {len(data) - good} bytes are torn"
        elif existed and self._rebooted():
            self.lost_tail = "this machine was restarted since"
        self._note_boot()

    def _read(self, data: bytes) -> int:
        """Take the entries up to the first bad one; returns where that is."""
        for start in range(0, len(data) - _BYTES + 1, _BYTES):
            (crc,) = _CRC.unpack_from(data, start + _ENTRY.size)
            if crc != zlib.crc32(data[start : start + _ENTRY.size]):
                return start
            log_seq, updates, generation = _ENTRY.unpack_from(data, start)
            self.moments.append(Moment(log_seq, updates))
            self.generation = generation
        return len(self.moments) * _BYTES

    def append(self, moment: Moment) -> None:
        """Note a moment; it survives this process once this returns."""
        body = _ENTRY.pack(moment.log_seq, moment.updates, self.generation)
        try:
            with self._lock:
                if self._descriptor is None:
                    return
                if os.write(self._descriptor, body + _CRC.pack(zlib.crc32(body))) != _BYTES:
                    raise OSError("a short write: the disk is full")
        except OSError as error:
            # A gap would be taken for the truth: without the file, a resume knows that it cannot be exact.
            self.close()
            self.file.unlink(missing_ok=True)
            logger.warning(
                "%s could not be written (%s). Nothing is lost, but a run resumed from the next checkpoint "
                "may take records in at other moments than this one.",
                self.file, error,
            )  # fmt: skip

    def begin_generation(self) -> None:
        """Number the weights anew from here on, durably."""
        self.generation += 1
        self.append(self.moments[-1] if self.moments else Moment(0, 0))
        self.sync()

    def cut_behind(self, log_seq: int) -> None:
        """Forget the moments of records behind `log_seq`, which the journal does not hold."""
        kept = [moment for moment in self.moments if moment.log_seq <= log_seq]
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, len(kept) * _BYTES)
        self.moments = kept

    def trim(self, log_seq: int) -> None:
        """Forget the moments up to that of record `log_seq`, which no checkpoint needs; may be called from another thread.

        Done only where it halves the file: the file stays below twice what is needed.

        Raises:
            OSError: It could not be written; everything is kept.
        """
        with self._lock:
            if self._descriptor is None:
                return
            size = os.fstat(self._descriptor).st_size // _BYTES * _BYTES
            data = os.pread(self._descriptor, size, 0)
        seqs = [_ENTRY.unpack_from(data, start)[0] for start in range(0, size, _BYTES)]
        first = max(bisect_right(seqs, log_seq) - 1, 0)  # one stays, so that an empty file means a lost one
        if 2 * first < len(seqs):
            return
        temporary = self.file.with_name(f".{self.file.name}.trimmed")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _write_all(descriptor, data[first * _BYTES :])
            os.fsync(descriptor)
            with self._lock:
                if self._descriptor is None:
                    raise OSError("the schedule was closed")
                _write_all(descriptor, os.pread(self._descriptor, os.fstat(self._descriptor).st_size - size, size))
                temporary.replace(self.file)
                os.close(self._descriptor)
                self._descriptor = descriptor
        except OSError:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(self.file.parent)

    def sync(self) -> None:
        """Make the moments so far survive a power cut; may be called from another thread."""
        with self._lock:
            descriptor = None if self._descriptor is None else os.dup(self._descriptor)
        if descriptor is not None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fsync_directory(self.file.parent)

    def close(self) -> None:
        """Close the file; later moments are not noted."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    @property
    def _boot_file(self) -> Path:
        return self.file.with_name(self.file.name + ".boot")

    def _rebooted(self) -> bool:
        return not self._boot_file.exists() or self._boot_file.read_text() != _boot()

    def _note_boot(self) -> None:
        self._boot_file.write_text(_boot())


class JournalReplay:
    """The journal's records behind a checkpoint, each due when it was the first time.

    Records that the schedule does not mention were never taken in; they are due as soon as nothing can have been
    published that was learned without them.

    Attributes:
        steps: Steps not yet taken in.
        evaluated_versions: Weights that the evaluations among the records were made with.
        surprise: What went otherwise than scheduled; None while nothing did.
        missing: Records behind the checkpoint that the journal does not hold any more: damaged, or dropped.
    """

    def __init__(self, records: Callable[[], Iterable[ReceivedRecord]], after: int, moments: Iterable[Moment]) -> None:
        self.steps = 0
        self.surprise: str | None = None
        self.evaluated_versions: set[int] = set()
        self.last_log_seq = after
        self.missing = 0
        for received in records():
            self.missing += received.log_seq - self.last_log_seq - 1
            self.last_log_seq = received.log_seq
            if isinstance(received.record, Step):
                self.steps += 1
            elif isinstance(received.record, EpisodeReport) and received.record.evaluation:
                self.evaluated_versions.add(received.record.weights_version)
        moments = list(moments)
        self._moments = deque(moment for moment in moments if moment.log_seq > after)
        self._known_updates = max((moment.updates for moment in moments), default=0)
        self.behind_journal = bool(self._moments) and self._moments[-1].log_seq > self.last_log_seq
        self._records = iter(records())
        self._next = next(self._records, None)

    def __bool__(self) -> bool:
        return self._next is not None

    def due(self, updates: int, *, owes: bool) -> Iterator[tuple[ReceivedRecord, bool]]:
        """Yield what is to be taken in now, each with whether the schedule knew it.

        Args:
            updates: Critic updates done.
            owes: Whether an update is owed, so that more of them come before the next records.
        """
        while self._next is not None:
            while self._moments and self._moments[0].log_seq < self._next.log_seq:
                self._moments.popleft()
            moment = self._moments[0] if self._moments else None
            wanted = self._known_updates if moment is None else moment.updates
            if owes and updates < wanted:
                return
            if moment is not None and updates != wanted:
                self.surprise = f"record {self._next.log_seq} was taken in after {wanted} updates, and is now after {updates}"
            through = None if moment is None else moment.log_seq
            while self._next is not None and (through is None or self._next.log_seq <= through):
                received, self._next = self._next, next(self._records, None)
                self.steps -= isinstance(received.record, Step)
                yield received, moment is not None
            if moment is not None:
                return  # its steps may owe updates that come before the next moment


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
