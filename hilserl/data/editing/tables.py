"""Read the tables of a dataset row by row, with every column that it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hilserl.data.dataset import Dataset
from hilserl.data.editing.stats import FeatureStats
from hilserl.data.editing.video import Span
from hilserl.errors import DatasetError

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
TASKS_PATH = "meta/tasks.parquet"


@dataclass
class Tables:
    """The tables of one dataset.

    Attributes:
        dataset: The dataset.
        rows: Episode table by episode index, all columns.
        tasks: Task table: text by index.
        tasks_schema: Schema of the task table, with pandas' metadata.
    """

    dataset: Dataset
    rows: dict[int, dict[str, Any]]
    tasks: dict[int, str]
    tasks_schema: pa.Schema
    _file: tuple[Path, pa.Table] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, root: Path) -> Tables:
        """Open the dataset at `root`.

        Raises:
            DatasetError: It is no LeRobotDataset v3.0, or a table is missing or damaged.
        """
        dataset = Dataset.open(root)
        dataset.episodes  # noqa: B018 reads and checks the episode table
        paths = sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        rows = [row for path in paths for row in _read(path).to_pylist()]
        tasks = _read(root / TASKS_PATH)
        text = next((name for name in tasks.column_names if name != "task_index"), None)
        if text is None or "task_index" not in tasks.column_names:
            raise DatasetError(f"{root / TASKS_PATH}: has columns {tasks.column_names}, expected `task_index` and the text of the task.")
        by_index = dict(zip(tasks["task_index"].to_pylist(), tasks[text].to_pylist(), strict=True))
        return cls(dataset, {row["episode_index"]: row for row in rows}, by_index, tasks.schema)

    @property
    def name(self) -> str:
        """The dataset's folder, for messages."""
        return str(self.dataset.root)

    def frames(self, episode: int) -> pa.Table:
        """Return the rows of one episode, in order.

        Raises:
            DatasetError: The file is missing or damaged, or disagrees with the episode table.
        """
        row = self.rows[episode]
        pattern = self.dataset.info.get("data_path") or DATA_PATH
        path = self.dataset.root / pattern.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        if self._file is None or self._file[0] != path:
            self._file = (path, _read(path))
        table = self._file[1]
        numbers = table["episode_index"].to_numpy()
        places = np.flatnonzero(numbers == episode)
        if len(places) != row["length"] or (len(places) and places[-1] - places[0] + 1 != len(places)):
            raise DatasetError(
                f"{path}: episode {episode} has {len(places)} rows here and length {row['length']} in the episode table. "
                "Run `hilserl validate` on the dataset; `hilserl dataset drop` cannot repair what the tables disagree about elsewhere, "
                f"but it leaves episode {episode} out."
            )
        return table.slice(int(places[0]), len(places))

    def span(self, episode: int, key: str, start: int, stop: int) -> Span:
        """Say where the frames [start, stop) of an episode lie in a camera's video."""
        dataset, row = self.dataset, self.rows[episode]
        pattern = dataset.info.get("video_path") or VIDEO_PATH
        file = pattern.format(video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"])
        start_s = float(row[f"videos/{key}/from_timestamp"]) + start / dataset.fps
        return Span(dataset.root / file, start_s, stop - start, dataset.fps, f"episode {episode}")

    def stats(self, episode: int) -> dict[str, FeatureStats]:
        """Return what the episode table says about the values of an episode, by feature."""
        found: dict[str, FeatureStats] = {}
        for name, value in self.rows[episode].items():
            if name.startswith("stats/") and value is not None:
                key, _, statistic = name.removeprefix("stats/").rpartition("/")
                found.setdefault(key, {})[statistic] = np.array(value, np.int64 if statistic == "count" else np.float64)
        return found


def _read(path: Path) -> pa.Table:
    try:
        # Not memory-mapped: a source on a network share may vanish while it is read.
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: not a readable parquet file ({error}). It is missing, truncated or damaged: restore it.") from error
