"""An append-only file of numbered records that survives whoever writes it.

A journal is a folder of segments named `<label>.<stream id>.<base>.journal`, where `base` is
the last number before the segment's first record; `journal_format` has their bytes. Both sides
of the link keep one: the actor before it sends, the learner before it acknowledges.

What survives: a killed process loses nothing that `append` returned for (the bytes are with the
operating system); a power cut loses at most a second (`fsync` runs beside, never in the
caller's thread). A torn tail is cut off at opening, a damaged middle is skipped and counted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hilserl.errors import TransportError
from hilserl.files import disk_error, fsync_directory
from hilserl.link.journal_format import pack_header, scan
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

_SYNC_INTERVAL_S = 0.5
_SEGMENT_NAME = re.compile(r"(?P<label>[A-Za-z0-9_.-]+)\.(?P<stream>[0-9a-f]{32})\.(?P<base>\d{20})\.journal")


@dataclass
class _Segment:
    path: Path
    base: int
    size: int


class Journal:
    """The journal in `folder`, opened for appending; one process at a time.

    Args:
        folder: Where the segments are; created if missing.
        label: Whose journal it is, such as the run's id; another label in `folder` is refused.
        reopen_gap: Numbers left out when an existing journal is opened again, so that a number
            that a power cut took back from the disk is never given to a second record.
        segment_bytes: A new segment starts above this size.

    Raises:
        TransportError: Another process has it open, or it belongs to another label.
        CacheError: The disk is full.
    """

    def __init__(self, folder: Path, *, label: str, reopen_gap: int = 0, segment_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self.damaged_records = 0
        self._label = label
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._unsynced: list[int] = []
        self._has_new_file = False  # since the last sync
        self._failure: OSError | None = None
        self._closed = False
        self._lock_descriptor = _lock_folder(folder)
        try:
            self.stream_id, self._segments = self._find_segments()
            self._salt = zlib.crc32(self.stream_id)
            self._last_seq = self._recover()
            self._next_seq = self._last_seq + 1 + (reopen_gap if self._last_seq else 0)
            self._descriptor = self._open_active()
        except BaseException:
            os.close(self._lock_descriptor)
            raise
        self._dirty, self._stop = threading.Event(), threading.Event()
        self._syncer = background_thread(self._sync_loop, "journal-sync")
        self._syncer.start()

    # ------------------------------------------------------------------------------- writing

    @property
    def last_seq(self) -> int:
        """Number of the newest record; 0 before the first."""
        return self._last_seq

    @property
    def next_seq(self) -> int:
        """Number that the next record gets."""
        return self._next_seq

    @property
    def first_base(self) -> int:
        """Number behind which the oldest record kept stands; those up to it were dropped."""
        with self._lock:
            return self._segments[0].base

    @property
    def size_bytes(self) -> int:
        """Size of all segments on disk [bytes]."""
        return sum(segment.size for segment in tuple(self._segments))

    def number_above(self, seq: int) -> None:
        """Give numbers up to `seq` to no record any more: somebody has them from before the disk lost them."""
        with self._lock:
            self._next_seq = max(self._next_seq, seq + 1)

    def append(self, payload: bytes) -> int:
        """Add one record and return its number; see `append_many`."""
        return self.append_many((payload,))[0]

    def append_many(self, payloads: Sequence[bytes]) -> list[int]:
        """Add records in one write; all of them are with the operating system on return.

        Raises:
            CacheError: The disk is full; none of them was added.
            OSError: The disk failed.
        """
        with self._lock:
            self._raise_if_unusable()
            if not payloads:
                return []
            seqs = list(range(self._next_seq, self._next_seq + len(payloads)))
            parts: list[bytes] = []
            for seq, payload in zip(seqs, payloads, strict=True):
                parts += (pack_header(seq, payload, self._salt), payload)
            try:
                if self._segments[-1].size >= self._segment_bytes:
                    self._rotate()
                active = self._segments[-1]
                active.size += self._write(parts, active.size)
            except OSError as error:
                raise disk_error(error, self.folder) from error
            self._last_seq, self._next_seq = seqs[-1], seqs[-1] + 1
            self._dirty.set()
            return seqs

    def _write(self, parts: list[bytes], size: int) -> int:
        total = sum(map(len, parts))
        try:
            # writev spares joining; the kernel takes at most 1024 parts.
            data = parts if len(parts) <= 1000 else [b"".join(parts)]
            written = os.writev(self._descriptor, data)
            while written < total:
                written += os.write(self._descriptor, b"".join(data)[written:])
        except OSError:
            self._take_back(size)
            raise
        return total

    def _take_back(self, size: int) -> None:
        """Remove a half-written record; if that fails too, nothing may be appended behind it."""
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._failure = error
            raise

    def sync(self) -> None:
        """Make everything appended so far survive a power cut."""
        with self._sync_lock:
            with self._lock:
                closed_segments, self._unsynced = self._unsynced, []
                has_new_file, self._has_new_file = self._has_new_file, False
                active = os.dup(self._descriptor)
            try:
                for descriptor in (*closed_segments, active):
                    os.fsync(descriptor)
                if has_new_file:
                    fsync_directory(self.folder)
            finally:
                for descriptor in (*closed_segments, active):
                    os.close(descriptor)

    def _sync_loop(self) -> None:
        while not self._stop.is_set():
            self._dirty.wait()
            self._dirty.clear()
            try:
                self.sync()
            except OSError as error:
                self._failure = error
                return
            self._stop.wait(_SYNC_INTERVAL_S)

    # ------------------------------------------------------------------------------- reading

    def reader(self, after: int = 0) -> JournalReader:
        """Return a cursor that stands behind record number `after`."""
        return JournalReader(self, after)

    def records(self, after: int = 0, through: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (number, payload) of the records after `after`, to the one present at the end or `through`."""
        reader = self.reader(after)
        try:
            while batch := reader.read():
                for seq, payload in batch:
                    if through is not None and seq > through:
                        return
                    yield seq, payload
        finally:
            reader.close()

    # ------------------------------------------------------------------------------ dropping

    def can_drop_through(self, seq: int) -> bool:
        """Whether `drop_through` would delete anything."""
        with self._lock:
            return len(self._segments) > 1 and self._segments[1].base <= seq

    def drop_through(self, seq: int) -> None:
        """Delete the segments that hold nothing after record number `seq`."""
        with self._lock:
            while len(self._segments) > 1 and self._segments[1].base <= seq:
                self._segments.pop(0).path.unlink()

    def clear(self) -> None:
        """Delete every record; numbering goes on where it was."""
        with self._lock:
            self._raise_if_unusable()
            if self._segments[-1].size:
                self._rotate()
            self.drop_through(self._last_seq)
            fsync_directory(self.folder)

    def close(self) -> None:
        """Sync, stop and let another process open the folder; again is nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        self._dirty.set()
        self._syncer.join()
        try:
            self.sync()
        finally:
            os.close(self._descriptor)
            os.close(self._lock_descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------- opening

    def _find_segments(self) -> tuple[bytes, list[_Segment]]:
        stream_id, segments = b"", []
        for path in sorted(self.folder.glob("*.journal")):
            match = _SEGMENT_NAME.fullmatch(path.name)
            if not match or match["label"] != self._label:
                raise TransportError(
                    f"{path} is not a journal of {self._label!r}, for which {self.folder} is opened. "
                    "Choose another folder, or move that file away."
                )
            other = bytes.fromhex(match["stream"])
            if stream_id and other != stream_id:
                raise TransportError(f"{self.folder} holds the journals of two streams. Move the files of one of them away.")
            stream_id = other
            segments.append(_Segment(path, int(match["base"]), path.stat().st_size))
        segments.sort(key=lambda segment: segment.base)
        return stream_id or uuid.uuid4().bytes, segments

    def _recover(self) -> int:
        """Cut off a torn tail; return the newest number."""
        if not self._segments:
            return 0
        segment = self._segments[-1]
        last_seq, end = segment.base, 0
        descriptor = os.open(segment.path, os.O_RDWR)
        try:
            for last_seq, _, end in scan(descriptor, 0, segment.size, self._salt, lambda _: None):  # noqa: B007
                pass
            if end < segment.size:
                logger.warning(
                    "%s: the last %d bytes are a torn record (its writer died while writing); cut off after record %d.",
                    segment.path, segment.size - end, last_seq,
                )  # fmt: skip
                os.ftruncate(descriptor, end)
                os.fsync(descriptor)
                segment.size = end
        finally:
            os.close(descriptor)
        return last_seq

    def _open_active(self) -> int:
        if not self._segments:
            return self._create_segment(0)
        return os.open(self._segments[-1].path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _create_segment(self, base: int) -> int:
        path = self.folder / f"{self._label}.{self.stream_id.hex()}.{base:020d}.journal"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self._has_new_file = True  # its name is synced beside, not in the control loop, which may be the caller
        self._segments.append(_Segment(path, base, 0))
        return descriptor

    def _rotate(self) -> None:
        descriptor = self._create_segment(self._last_seq)
        self._unsynced.append(self._descriptor)
        self._descriptor = descriptor

    def _raise_if_unusable(self) -> None:
        if self._closed:
            raise ValueError(f"{self.folder}: the journal is closed")
        if self._failure is not None:
            raise disk_error(self._failure, self.folder) from self._failure

    def _extent(self, base: int) -> tuple[Path, int, int | None] | None:
        """Return path, committed size and the following base of the first segment at or after `base`."""
        with self._lock:
            for index, segment in enumerate(self._segments):
                if segment.base >= base:
                    following = self._segments[index + 1].base if index + 1 < len(self._segments) else None
                    return segment.path, segment.size, following
        return None

    def _base_before(self, after: int) -> int:
        """Return the base of the segment that holds the first record behind number `after`."""
        with self._lock:
            return max((segment.base for segment in self._segments if segment.base <= after), default=self._segments[0].base)


class JournalReader:
    """A cursor over a journal that others go on appending to; holds one chunk in memory."""

    def __init__(self, journal: Journal, after: int) -> None:
        self._journal = journal
        self._after = after
        self._base = journal._base_before(after)
        self._offset = 0
        self._path: Path | None = None
        self._descriptor = -1

    @property
    def after(self) -> int:
        """Number of the last record read, or stepped over."""
        return self._after

    def skip_through(self, seq: int) -> None:
        """Step over the records up to number `seq`."""
        self._after = max(self._after, seq)

    def read(self, *, max_records: int = 256, max_bytes: int = 1 << 20) -> list[tuple[int, bytes]]:
        """Return the next records as (number, payload); empty when there is none at present.

        At least one record is returned if there is one, whatever its size; more only within
        both limits.
        """
        records: list[tuple[int, bytes]] = []
        size = 0
        while extent := self._journal._extent(self._base):
            path, committed, following = extent
            self._open(path)
            for seq, payload, offset in scan(
                self._descriptor, self._offset, committed, self._journal._salt, self._report_damage, after=self._after
            ):
                if records and (len(records) >= max_records or size + len(payload) > max_bytes):
                    return records
                records.append((seq, payload))
                self._after, self._offset = seq, offset
                size += len(payload)
            if following is None:
                return records
            self._base = following
        return records

    def _open(self, path: Path) -> None:
        if path != self._path:
            self.close()
            self._descriptor, self._path, self._offset = os.open(path, os.O_RDONLY | os.O_CLOEXEC), path, 0

    def _report_damage(self, offset: int) -> None:
        self._journal.damaged_records += 1
        logger.error(
            "%s: the record at byte %d, behind record %d, is damaged (checksum) and is skipped; the others are kept. Check this disk.",
            self._path, offset, self._after,
        )  # fmt: skip

    def close(self) -> None:
        """Close the segment in hand."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._path = -1, None


def _lock_folder(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise disk_error(error, folder) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise TransportError(
            f"{folder}: the journal is in use by another process, which is still running for the same actor or learner. "
            "Stop that one first."
        ) from None
    return descriptor
