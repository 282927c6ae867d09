"""An append-only file of rows of one size, with a checksum for every chunk of them.

What was written up to a position can be pinned, made durable and read back; what a killed process
wrote behind it is cut off. The checksums of whole chunks lie beside the file, that of the chunk
in progress is part of the position.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from hilserl.errors import CheckpointError
from hilserl.files import disk_error

_CHUNK_BYTES = 1 << 20
_CRC = np.dtype("<u4")


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
    """Rows of `dtype` and `shape`, appended to `path`; starts empty, or at a position by `rewind`.

    `append` belongs to one thread; `sync` may come from another.

    Args:
        path: The file; `<path>.crc` lies beside it.
        dtype: Of one element, or of the whole row when structured.
        shape: Of one row.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...] = ()) -> None:
        self.path = path
        self._dtype, self._shape = dtype, shape
        self._row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._chunk_rows = max(1, _CHUNK_BYTES // self._row_bytes)
        self._crc_path = path.with_name(path.name + ".crc")
        self._position = RowPosition(0, 0)
        self._open()

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=_CHUNK_BYTES)
        self._crc_file = self._crc_path.open("ab")

    @property
    def position(self) -> RowPosition:
        """Where the next row goes."""
        return self._position

    def append(self, row: np.ndarray) -> None:
        """Write one row behind the others.

        Raises:
            CacheError: The disk is full.
        """
        data = np.ascontiguousarray(row, self._dtype).reshape(-1).view(np.uint8).data
        assert data.nbytes == self._row_bytes, "a row has one size"
        checksum, rows = zlib.crc32(data, self._position.checksum), self._position.rows + 1
        try:
            self._file.write(data)
            if rows % self._chunk_rows == 0:
                self._crc_file.write(np.array(checksum, _CRC).tobytes())
                checksum = 0
        except OSError as error:
            raise disk_error(error, self.path.parent) from error
        self._position = RowPosition(rows, checksum)

    def sync(self) -> None:
        """Make everything appended so far durable.

        Raises:
            CacheError: The disk is full.
        """
        try:
            for file in (self._file, self._crc_file):
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, self.path.parent) from error

    def rewind(self, position: RowPosition) -> None:
        """Cut off what lies behind `position` and go on from there.

        Raises:
            CheckpointError: The file ends before it.
        """
        self.close()
        for path, size in (
            (self.path, position.rows * self._row_bytes),
            (self._crc_path, position.rows // self._chunk_rows * _CRC.itemsize),
        ):
            if path.stat().st_size < size:
                raise CheckpointError(f"{path} has {path.stat().st_size} bytes, the checkpoint needs {size}: the end of it is lost.")
            os.truncate(path, size)
        self._open()
        self._position = position

    def read(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Read rows, checking the checksum of every chunk that is touched.

        Args:
            rows: Numbers of rows, ascending, all before the position.

        Yields:
            Which of `rows`, and their content, (n, *shape); valid until the next one.

        Raises:
            CheckpointError: A chunk is damaged.
        """
        if not len(rows):
            return
        self._file.flush()
        self._crc_file.flush()
        checksums = np.fromfile(self._crc_path, _CRC)
        chunks = rows // self._chunk_rows
        starts = np.flatnonzero(np.diff(chunks, prepend=-1))
        buffer = np.empty(self._chunk_rows * self._row_bytes, np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
                chunk = int(chunks[start])
                first = chunk * self._chunk_rows
                held = min(self._chunk_rows, self._position.rows - first)
                data = buffer[: held * self._row_bytes]
                file.seek(first * self._row_bytes)
                complete = _read_into(file, data)
                expected = int(checksums[chunk]) if held == self._chunk_rows else self._position.checksum
                if not complete or zlib.crc32(data) != expected:
                    raise CheckpointError(
                        f"{self.path}: rows {first} to {first + held - 1} do not match their checksum; the file is damaged."
                    )
                content = data.view(self._dtype).reshape(held, *self._shape)
                wanted = rows[start:stop] - first
                is_run = int(wanted[-1] - wanted[0]) == len(wanted) - 1
                yield slice(start, stop), content[wanted[0] : wanted[-1] + 1] if is_run else content[wanted]

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._crc_file.close()


def _read_into(file: FileIO, data: np.ndarray) -> bool:
    filled = 0
    while filled < len(data):
        count = file.readinto(data[filled:].data)
        if not count:
            return False
        filled += count
    return True
