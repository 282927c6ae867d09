"""Read a LeRobotDataset v3.0 folder with polars alone: no torch, no LeRobot, no hub.

Layout: `meta/info.json`, `meta/episodes/chunk-*/file-*.parquet` (one row an episode, with where its
frames lie), `data/chunk-*/file-*.parquet` (one row a frame), `videos/<key>/chunk-*/file-*.mp4` (many
episodes a file).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from hilserl.errors import DatasetError
from hilserl.hash_memo import HashMemo
from hilserl.schema import IMAGE_PREFIX

CODEBASE_VERSION = "v3.0"
REWARD_KEY = "next.reward"
DONE_KEY = "next.done"
# What LeRobot adds to every frame.
INDEX_KEYS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_EPISODE_COLUMNS = ("episode_index", "length", "dataset_from_index", "dataset_to_index")
_EXPECTED = "Expected a LeRobotDataset v3.0: meta/info.json, meta/episodes/, data/, videos/."


@dataclass(frozen=True)
class VideoSpan:
    """Where one episode of one camera lies.

    Attributes:
        path: Video file, relative to the dataset's root.
        start_s: Time of the episode's first frame in that file [s].
    """

    path: Path
    start_s: float


@dataclass(frozen=True)
class DataSpan:
    """Where the rows of one episode lie.

    Attributes:
        path: Parquet file, relative to the dataset's root.
        first_row: Row of `Dataset.frames` that the file begins with.
    """

    path: Path
    first_row: int


@dataclass(frozen=True)
class Episode:
    """One row of the episode table; `start` and `stop` are rows of `Dataset.frames`."""

    index: int
    length: int
    start: int
    stop: int
    videos: Mapping[str, VideoSpan]
    data: DataSpan | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk, opened for reading; the tables are read when first used.

    Attributes:
        root: Folder of the dataset.
        info: Content of `meta/info.json`.
    """

    root: Path
    info: Mapping[str, Any]

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open the dataset at `root`.

        Raises:
            DatasetError: There is no dataset of version 3.0.
        """
        path = root / "meta" / "info.json"
        if not root.is_dir():
            raise DatasetError(f"{root}: no such folder. Set `dataset.root` to an existing dataset, or `dataset.record` to make one.")
        if not path.is_file():
            raise DatasetError(f"{root}: meta/info.json is missing. {_EXPECTED}")
        try:
            info = json.loads(path.read_text())
            version, features, fps = info["codebase_version"], info["features"], float(info["fps"])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path}: not readable ({type(error).__name__}: {error}). {_EXPECTED}") from error
        if version != CODEBASE_VERSION:
            raise DatasetError(
                f"{path}: codebase_version is {version!r}, this reads {CODEBASE_VERSION!r}. "
                f"`hilserl dataset upgrade {root} --into NEW_FOLDER` writes a copy in that version and leaves this one as it is."
            )
        if not isinstance(features, dict) or fps <= 0:
            raise DatasetError(f"{path}: `features` must be a table and `fps` positive (got {fps:g}). {_EXPECTED}")
        return cls(root, info)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.info["fps"])

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Declared features by key: dtype, shape, names."""
        return self.info["features"]

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """Keys of the images, with prefix."""
        return tuple(key for key in self.features if key.startswith(IMAGE_PREFIX))

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the declared shape of a feature; images as (height, width, channels) in whatever order they are stored."""
        feature = self.features[key]
        shape = tuple(int(size) for size in feature["shape"])
        names = feature.get("names")
        if key.startswith(IMAGE_PREFIX) and isinstance(names, list) and names and names[0] in ("channel", "channels"):
            return shape[1:] + shape[:1]
        return shape

    def names(self, key: str) -> tuple[str, ...] | None:
        """Return the names of a feature's scalars, or None where the dataset has none.

        LeRobot writes a list, a table `{name: position}`, or a list inside a table `{"motors": [...]}`.
        """
        names = self.features[key].get("names")
        if isinstance(names, dict):
            if all(isinstance(position, int) for position in names.values()):
                names = sorted(names, key=names.__getitem__)
            else:
                names = [name for part in names.values() for name in part]
        return tuple(map(str, names)) if names else None

    def select(self, positions: Sequence[int]) -> Self:
        """View some episodes as a dataset of their own; reads only their rows.

        Args:
            positions: Places in the episode table; the view's rows and episodes are in this order.
        """
        chosen = [self.episodes[position] for position in positions]
        starts = np.cumsum([0, *(episode.length for episode in chosen)])
        view = type(self)(self.root, self.info)
        # The two tables are computed on first use; a view has them from the start.
        view.__dict__["frames"] = pl.concat([self._rows_of(run) for run in _runs(chosen)])
        view.__dict__["episodes"] = tuple(
            replace(episode, start=int(start), stop=int(start) + episode.length) for episode, start in zip(chosen, starts[:-1], strict=True)
        )
        return view

    @cached_property
    def frames(self) -> pl.DataFrame:
        """Return one row a frame, in the order of the files; vectors as fixed-size arrays, shape-(1,) features as scalars.

        Raises:
            DatasetError: A file is missing or damaged, or rows of one vector differ in length.
        """
        return self._fixed(self._read(sorted((self.root / "data").glob("chunk-*/file-*.parquet")), "data/chunk-*/file-*.parquet"))

    def _rows_of(self, episodes: Sequence[Episode]) -> pl.DataFrame:
        """Read the rows of episodes that follow one another in one file."""
        first, last = episodes[0], episodes[-1]
        if "frames" in self.__dict__ or first.data is None:
            return self.frames[first.start : last.stop]
        path, offset, length = self.root / first.data.path, first.start - first.data.first_row, last.stop - first.start
        remedy = f"leave them out: dataset: {{exclude_episodes: {[episode.index for episode in episodes]}}}"
        try:
            table = pl.scan_parquet(path).slice(offset, length).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DatasetError(
                f"{path}: cannot read the rows of episodes {first.index} to {last.index} ({error}). "
                f"The file is truncated or damaged: restore it, or {remedy}"
            ) from error
        expected = np.repeat([episode.index for episode in episodes], [episode.length for episode in episodes])
        if "episode_index" not in table.columns or not np.array_equal(table["episode_index"].to_numpy(), expected):
            raise DatasetError(
                f"{path}: rows {offset} to {offset + length} are not those of episodes {first.index} to {last.index}. {_EXPECTED}"
            )
        return self._fixed(table)

    def _fixed(self, table: pl.DataFrame) -> pl.DataFrame:
        """Turn lists into fixed-size arrays, and those of one element into scalars."""
        fixed = []
        for key, dtype in table.schema.items():
            if not isinstance(dtype, pl.List | pl.Array):
                continue
            width = int(np.prod(self.shape(key))) if key in self.features else None
            try:
                column = pl.col(key)
                if isinstance(dtype, pl.List):
                    width = width or int(table[key].list.len()[0])
                    table = table.with_columns(column.list.to_array(width))
                if width == 1:
                    fixed.append(column.arr.first().alias(key))
            except pl.exceptions.PolarsError as error:
                raise DatasetError(f"{self.root}: rows of `{key}` differ in length, declared {width}: {error}") from error
        return table.with_columns(fixed)

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        """Return the episode table.

        Raises:
            DatasetError: A file is missing or damaged, or lacks a column.
        """
        table = self._read(sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet")), "meta/episodes/chunk-*/file-*.parquet")
        videos = [key for key in self.camera_keys if self.features[key]["dtype"] == "video"]
        wanted = list(_EPISODE_COLUMNS)
        wanted += ["data/chunk_index", "data/file_index"]
        wanted += [f"videos/{key}/{name}" for key in videos for name in ("chunk_index", "file_index", "from_timestamp")]
        missing = [name for name in wanted if name not in table.columns]
        if missing:
            raise DatasetError(f"{self.root}: the episode table lacks {missing}. {_EXPECTED}")
        rows = table.select(wanted).to_dicts()
        # Many episodes share a file, and building a path takes longer than everything else here.
        data_file, video_file = cache(self._data_file), cache(self._video_file)
        first_rows: dict[Path, int] = {}
        for row in rows:
            first_rows.setdefault(data_file(row["data/chunk_index"], row["data/file_index"]), row["dataset_from_index"])
        found = []
        for row in rows:
            data = data_file(row["data/chunk_index"], row["data/file_index"])
            spans = {
                key: VideoSpan(
                    video_file(key, row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]),
                    float(row[f"videos/{key}/from_timestamp"]),
                )
                for key in videos
            }
            start, stop = row["dataset_from_index"], row["dataset_to_index"]
            found.append(Episode(row["episode_index"], row["length"], start, stop, spans, DataSpan(data, first_rows[data])))
        return tuple(found)

    def column(self, key: str) -> np.ndarray:
        """Return one column of `frames` as an array, shape (N, ...)."""
        values = self.frames[key].to_numpy()
        shape = self.shape(key) if key in self.features else (1,)
        return values.reshape(len(values), *shape) if len(shape) > 1 else values

    def files(self) -> list[Path]:
        """List every file under meta/, data/ and videos/, in order."""
        return sorted(path for part in ("data", "meta", "videos") for path in (self.root / part).rglob("*") if path.is_file())

    def content_hash(self, memo: HashMemo | None = None) -> str:
        """Hash names and contents of `files()` (SHA-256, 64 hex digits); unchanged files are remembered by `memo`."""
        paths, digest = self.files(), hashlib.sha256()
        hashes = (memo or HashMemo(None)).sha256_of(paths)
        for path in paths:
            digest.update(f"{path.relative_to(self.root).as_posix()}\0{hashes[path]}\n".encode())
        return digest.hexdigest()

    def _data_file(self, chunk: int, file: int) -> Path:
        pattern = self.info.get("data_path") or "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        return Path(pattern.format(chunk_index=chunk, file_index=file))

    def _video_file(self, key: str, chunk: int, file: int) -> Path:
        pattern = self.info.get("video_path") or "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        return Path(pattern.format(video_key=key, chunk_index=chunk, file_index=file))

    def _read(self, paths: list[Path], pattern: str) -> pl.DataFrame:
        if not paths:
            raise DatasetError(f"{self.root}: no file {pattern}. {_EXPECTED}")
        tables = []
        for path in paths:
            try:
                tables.append(pl.read_parquet(path))
            except (OSError, pl.exceptions.PolarsError) as error:
                raise DatasetError(
                    f"{path}: not a readable parquet file ({error}). It is truncated or damaged: restore or re-record it."
                ) from error
        try:
            return pl.concat(tables)
        except pl.exceptions.PolarsError as error:
            raise DatasetError(f"{self.root}: files {pattern} have different columns ({error}).") from error


def _runs(episodes: Sequence[Episode]) -> list[list[Episode]]:
    """Group episodes whose rows follow one another in one file."""
    runs: list[list[Episode]] = []
    for episode in episodes:
        before = runs[-1][-1] if runs else None
        if before is not None and before.data == episode.data and before.stop == episode.start:
            runs[-1].append(episode)
        else:
            runs.append([episode])
    return runs
