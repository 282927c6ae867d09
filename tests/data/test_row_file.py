"""Rows on disk against a list of rows: random appending, going back, and reading."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilserl.data.row_file import RowFile
from hilserl.errors import CacheError, CheckpointError


@pytest.fixture(autouse=True)
def chunks_of_five_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """And segments of two chunks."""
    monkeypatch.setattr("hilserl.data.row_file._CHUNK_BYTES", 5 * 8)
    monkeypatch.setattr("hilserl.data.row_file._SEGMENT_BYTES", 2 * 5 * 8)


def make(folder: Path) -> RowFile:
    return RowFile(folder / "rows", np.dtype("<f4"), (2,))


def row(number: int) -> np.ndarray:
    return np.array([number, -number], np.float32)


@pytest.mark.failure("L15")
@given(
    lives=st.lists(st.tuples(st.integers(0, 13), st.floats(0, 1)), min_size=1, max_size=6),
    wanted=st.sets(st.integers(0, 80)),
)
@settings(max_examples=80, deadline=None)
def test_what_is_read_back_is_what_was_appended(lives: list[tuple[int, float]], wanted: set[int]) -> None:
    """Each life appends some rows, pins a position at some moment, writes on, and is killed; the next goes on at the position."""
    with tempfile.TemporaryDirectory() as folder:
        path, dtype = Path(folder) / "rows", np.dtype("<f4")
        rows: list[np.ndarray] = []
        position = None
        for number, (count, pinned_at) in enumerate(lives):
            file = RowFile(path, dtype, (2,))
            if position is not None:
                file.rewind(position)
            position = file.position
            for index in range(count):
                row = np.array([number, index], np.float32)
                file.append(row)
                if index < pinned_at * count:
                    rows.append(row)
                    position = file.position
            file.sync()
            file.close()
        file = RowFile(path, dtype, (2,))
        file.rewind(position)
        assert sum(segment.stat().st_size for segment in path.parent.glob("rows.0*")) == 8 * len(rows) == 8 * file.position.rows
        numbers = np.array(sorted(number for number in wanted if number < len(rows)), np.int64)
        read = np.full((len(numbers), 2), np.nan)
        for where, values in file.read(numbers):
            read[where] = values
        np.testing.assert_array_equal(read, np.array(rows)[numbers].reshape(-1, 2) if rows else read)
        file.close()


def test_what_is_no_longer_needed_is_dropped_and_the_rest_is_read(tmp_path: Path) -> None:
    file = make(tmp_path)
    sizes = []
    for number in range(500):
        file.append(row(number))
        if number % 7 == 6:
            file.drop_before(number - 20)
            file.sync()
            sizes.append(sum(path.stat().st_size for path in tmp_path.glob("rows.0*")))
    assert max(sizes) <= 8 * (20 + 7 + 2 * 10)
    assert file.first_row == 470
    kept = np.arange(470, 500)
    read = np.concatenate([values.copy() for _, values in file.read(kept)])
    np.testing.assert_array_equal(read[:, 0], kept)
    with pytest.raises(CheckpointError, match="rows 465 to 469 do not match"):
        list(file.read(np.arange(466, 500)))
    position = file.position
    file.close()
    again = make(tmp_path)
    again.rewind(position)
    again.append(row(500))
    assert [float(values[0, 0]) for _, values in again.read(np.array([499, 500]))] == [499.0, 500.0]
    again.close()


@given(flips=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=4), cut=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_of_a_damaged_file_the_whole_chunks_are_read(flips: list[tuple[int, int]], cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = make(folder)
        for number in range(53):
            file.append(row(number))
        position = file.position
        file.sync()
        file.close()
        segments = sorted(folder.glob("rows.0*"))
        data = bytearray(b"".join(path.read_bytes() for path in segments))
        for place, bits in flips:
            data[place % len(data)] ^= bits
        del data[len(data) - cut :]
        for path in segments:
            path.write_bytes(data[: 10 * 8])
            del data[: 10 * 8]
        file = make(folder)
        file.pin(position)
        lost: list[tuple[int, int]] = []
        found = {}
        numbers = np.arange(53)
        for where, values in file.read(numbers, lambda first, last: lost.append((first, last))):
            found |= dict(zip(numbers[where].tolist(), values[:, 0].tolist(), strict=True))
        assert all(number == value for number, value in found.items())
        assert set(found) | {number for first, last in lost for number in range(first, last + 1)} == set(range(53))
        assert len(lost) <= len(flips) + cut // (5 * 8) + 2
        file.close()


@pytest.mark.failure("L15")
@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_lets_rows_wait_and_takes_them_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    write, refused = os.write, [0]

    def full(descriptor: int, data: bytes) -> int:
        refused[0] += 1
        if short and refused[0] % 2:  # a part of it fits
            return write(descriptor, bytes(data)[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    file = make(tmp_path)
    for number in range(60):
        with monkeypatch.context() as patch:
            if 13 <= number < 40:
                patch.setattr(os, "write", full)
            file.append(row(number))
            if number == 30:
                with pytest.raises(CacheError, match="disk is full"):
                    file.sync()
    assert refused[0]
    file.sync()
    position = file.position
    file.close()
    again = make(tmp_path)
    again.rewind(position)
    np.testing.assert_array_equal(np.concatenate([values[:, 0].copy() for _, values in again.read(np.arange(60))]), np.arange(60))
    again.close()


def test_a_disk_that_stays_full_is_an_error_before_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilserl.data.row_file._MAX_PENDING_BYTES", 800)
    file = make(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(CacheError, match="disk is full"):
            for number in range(200):
                file.append(row(number))
    assert number >= 100
    file.close()
