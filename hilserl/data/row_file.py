"""An append-only file of rows of one size, with a checksum for every chunk of them.

What was written up to a position can be pinned, made durable and read back; what a killed process
wrote behind it is cut off. The rows lie in segments, so that the oldest can be dropped. The checksums
of whole chunks lie beside them, that of the chunk in progress is part of the position.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from hilserl.errors import CheckpointError
from hilserl.files import disk_error, fsync_directory, is_disk_full

_CHUNK_BYTES = 1 << 20
_SEGMENT_BYTES = 64 << 20
_MAX_PENDING_BYTES = 256 << 20  # waits in memory while the disk is full
_CRC = np.dtype("<u4")

OnDamage = Callable[[int, int], None]


@dataclass(frozen=True)
class RowPosition:
    """How far a file was written.

    Attributes:
        rows: Rows before the position.
        checksum: CRC-32 of the rows of the unfinished chunk before it.
    """

    rows: int
    checksum: int


class RowFile:
    """Rows of `dtype` and `shape`, appended to the segments of `path`; starts empty, or at a position by `rewind`.

    `append` belongs to one thread; `sync` and `drop_before` may come from another.

    Args:
        path: `<stem>.<number><suffix>` are the segments; `<path>.crc` lies beside them.
        dtype: Of one element, or of the whole row when structured.
        shape: Of one row.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...] = ()) -> None:
        self.path = path
        self._dtype, self._shape = dtype, shape
        self._row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._chunk_rows = max(1, _CHUNK_BYTES // self._row_bytes)
        self._segment_rows = self._chunk_rows * max(1, _SEGMENT_BYTES // (self._chunk_rows * self._row_bytes))
        self._segment_bytes = self._segment_rows * self._row_bytes
        self._crc_path = path.with_name(path.name + ".crc")
        self._position = RowPosition(0, 0)
        self._lock = threading.Lock()
        self._written = 0  # bytes of rows, those of dropped segments included
        self._pending, self._pending_crc = bytearray(), bytearray()
        self._flush_at = _CHUNK_BYTES
        self._active: tuple[int, int] | None = None  # segment, descriptor
        self._full: list[int] = []  # descriptors of segments that are not synced yet
        self._crc_descriptor = -1

    @property
    def position(self) -> RowPosition:
        """Where the next row goes."""
        return self._position

    @property
    def first_row(self) -> int:
        """Number of the oldest row that is kept."""
        return min(self._segments(), default=0) * self._segment_rows

    def append(self, row: np.ndarray) -> None:
        """Write one row behind the others; while the disk is full, it waits in memory.

        Raises:
            CacheError: The disk has been full for so long that memory runs out.
        """
        data = np.ascontiguousarray(row, self._dtype).reshape(-1).view(np.uint8).data
        assert data.nbytes == self._row_bytes, "a row has one size"
        checksum, rows = zlib.crc32(data, self._position.checksum), self._position.rows + 1
        with self._lock:
            self._pending += data
            if rows % self._chunk_rows == 0:
                self._pending_crc += np.array(checksum, _CRC).tobytes()
                checksum = 0
            self._position = RowPosition(rows, checksum)
            if len(self._pending) < self._flush_at:
                return
            try:
                self._flush()
            except OSError as error:
                self._flush_at = len(self._pending) + _CHUNK_BYTES
                if not is_disk_full(error) or len(self._pending) > _MAX_PENDING_BYTES:
                    raise disk_error(error, self.path.parent) from error

    def _flush(self) -> None:
        """Write what is pending; what a full disk does not take stays pending."""
        sent = 0
        try:
            while sent < len(self._pending):
                segment, at = divmod(self._written, self._segment_bytes)
                end = sent + min(len(self._pending) - sent, self._segment_bytes - at)
                with memoryview(self._pending)[sent:end] as part:
                    count = os.write(self._descriptor(segment), part)
                sent, self._written = sent + count, self._written + count
        finally:
            del self._pending[:sent]
        if self._pending_crc and self._crc_descriptor < 0:
            self._crc_descriptor = _open(self._crc_path)
        while self._pending_crc:
            del self._pending_crc[: os.write(self._crc_descriptor, self._pending_crc)]
        self._flush_at = _CHUNK_BYTES

    def _descriptor(self, segment: int) -> int:
        if self._active is None or self._active[0] != segment:
            descriptor = _open(self._segment_path(segment))
            if self._active is not None:
                self._full.append(self._active[1])
            self._active = segment, descriptor
        return self._active[1]

    def sync(self) -> None:
        """Make everything appended so far durable.

        Raises:
            CacheError: The disk is full.
        """
        try:
            with self._lock:
                self._flush()
                full, self._full = self._full, []
                held = [self._crc_descriptor] if self._active is None else [self._crc_descriptor, self._active[1]]
                descriptors = full + [os.dup(descriptor) for descriptor in held if descriptor >= 0]
            try:
                for descriptor in descriptors:
                    os.fsync(descriptor)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if descriptors:
                fsync_directory(self.path.parent)
        except OSError as error:
            raise disk_error(error, self.path.parent) from error

    def rewind(self, position: RowPosition) -> None:
        """Cut off what lies behind `position` and go on from there.

        Raises:
            CheckpointError: The file ends before it.
        """
        self._forget()
        segment, rows = divmod(position.rows, self._segment_rows)
        for number, path in self._segments().items():
            if number > segment or (number == segment and not rows):
                path.unlink()
        sizes = {self._crc_path: position.rows // self._chunk_rows * _CRC.itemsize}
        if rows:
            sizes[self._segment_path(segment)] = rows * self._row_bytes
        for path, size in sizes.items():
            held = path.stat().st_size if path.exists() else 0
            if held < size:
                raise CheckpointError(f"{path} has {held} bytes, the checkpoint needs {size}: the end of it is lost.")
            if held > size:
                os.truncate(path, size)
        self._position, self._written = position, position.rows * self._row_bytes

    def pin(self, position: RowPosition) -> None:
        """Read as if the file were whole up to `position`, and change nothing: what is missing shows as damage."""
        self._position, self._written = position, position.rows * self._row_bytes

    def drop_before(self, row: int) -> None:
        """Delete the segments that hold nothing but rows before number `row`."""
        for number, path in self._segments().items():
            if (number + 1) * self._segment_rows <= min(row, self._written // self._row_bytes):
                path.unlink(missing_ok=True)

    def read(self, rows: np.ndarray, on_damage: OnDamage | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Read rows, checking the checksum of every chunk that is touched.

        Args:
            rows: Numbers of rows, ascending, all before the position.
            on_damage: Called with the first and last row of a chunk that is damaged or gone, which is then left out.

        Yields:
            Which of `rows`, and their content, (n, *shape); valid until the next one.

        Raises:
            CheckpointError: A chunk is damaged, and there is no `on_damage`.
        """
        if not len(rows):
            return
        with self._lock:
            self._flush()
        checksums = np.fromfile(self._crc_path, _CRC) if self._crc_path.exists() else np.empty(0, _CRC)
        chunks = rows // self._chunk_rows
        starts = np.flatnonzero(np.diff(chunks, prepend=-1))
        buffer = np.empty(self._chunk_rows * self._row_bytes, np.uint8)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            chunk = int(chunks[start])
            first = chunk * self._chunk_rows
            held = min(self._chunk_rows, self._position.rows - first)
            data = buffer[: held * self._row_bytes]
            whole = held == self._chunk_rows
            expected = (int(checksums[chunk]) if chunk < len(checksums) else None) if whole else self._position.checksum
            if not self._read_chunk(first, data) or zlib.crc32(data) != expected:
                if on_damage is None:
                    raise CheckpointError(
                        f"{self.path}: rows {first} to {first + held - 1} do not match their checksum; the file is damaged."
                    )
                on_damage(first, first + held - 1)
                continue
            content = data.view(self._dtype).reshape(held, *self._shape)
            wanted = rows[start:stop] - first
            is_run = int(wanted[-1] - wanted[0]) == len(wanted) - 1
            yield slice(start, stop), content[wanted[0] : wanted[-1] + 1] if is_run else content[wanted]

    def _read_chunk(self, first: int, data: np.ndarray) -> bool:
        segment, at = divmod(first, self._segment_rows)
        try:
            with self._segment_path(segment).open("rb", buffering=0) as file:
                file.seek(at * self._row_bytes)
                return _read_into(file, data)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Write what is pending, and close the files.

        Raises:
            CacheError: The disk is full; what was pending is lost.
        """
        try:
            with self._lock:
                self._flush()
        except OSError as error:
            raise disk_error(error, self.path.parent) from error
        finally:
            self._forget()

    def _forget(self) -> None:
        with self._lock:
            for descriptor in (*self._full, *([self._active[1]] if self._active else []), self._crc_descriptor):
                if descriptor >= 0:
                    os.close(descriptor)
            self._full, self._active, self._crc_descriptor = [], None, -1
            self._pending.clear()
            self._pending_crc.clear()

    def _segment_path(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{number:06d}{self.path.suffix}")

    def _segments(self) -> dict[int, Path]:
        found = self.path.parent.glob(f"{self.path.stem}.{'[0-9]' * 6}{self.path.suffix}")
        return {int(path.name.removesuffix(self.path.suffix)[-6:]): path for path in sorted(found)}


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _read_into(file: FileIO, data: np.ndarray) -> bool:
    filled = 0
    while filled < len(data):
        count = file.readinto(data[filled:].data)
        if not count:
            return False
        filled += count
    return True
