"""Rows on disk against a list of rows: random appending, going back, and reading."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilserl.data.row_file import RowFile


@pytest.fixture(autouse=True)
def chunks_of_five_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilserl.data.row_file._CHUNK_BYTES", 5 * 8)


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
        assert path.stat().st_size == 8 * len(rows) == 8 * file.position.rows
        numbers = np.array(sorted(number for number in wanted if number < len(rows)), np.int64)
        read = np.full((len(numbers), 2), np.nan)
        for where, values in file.read(numbers):
            read[where] = values
        np.testing.assert_array_equal(read, np.array(rows)[numbers].reshape(-1, 2) if rows else read)
        file.close()
