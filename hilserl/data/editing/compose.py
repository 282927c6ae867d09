"""Write a new dataset from parts of others.

Every edit is the same act: a list of pieces (frames `start` to `stop` of an episode), put one after
another. Rows keep every column and its type, video is copied packet by packet (see `video`), and what
describes the whole (indices, time stamps, task table, statistics, totals) is made anew.

LeRobot's own `dataset_tools` (0.6.1) do part of it, and were left for what they do with real datasets: deleting
and splitting encode video again (with loss), leave the old statistics of `index` and `episode_index`, and split
without a seed; added features get no statistics; merging names no difference; nothing trims.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hilserl.data.editing.record import RECORD_PATH, Edit, write_record
from hilserl.data.editing.stats import FeatureStats, column_stats, dataset_stats, image_stats, sampled
from hilserl.data.editing.tables import DATA_PATH, EPISODES_PATH, TASKS_PATH, VIDEO_PATH, Tables
from hilserl.data.editing.video import SourceVideos, VideoWriter
from hilserl.errors import DatasetError
from hilserl.files import atomic_directory, write_json
from hilserl.progress import Progress, publish

STAGE = "edit-dataset"
# What is made anew; whatever else lies in meta/ is taken along.
_MADE_ANEW = ("info.json", "stats.json", "tasks.parquet", "episodes", Path(RECORD_PATH).name)
_RENUMBERED = ("index", "episode_index", "task_index")
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Piece:
    """Frames [start, stop) of one episode.

    Attributes:
        tables: Where it comes from.
        episode: Index of the episode there.
        start: First frame, counted from the episode's first.
        stop: The frame after the last.
        columns: Columns that get these values instead, shape (stop - start,) each.
    """

    tables: Tables
    episode: int
    start: int
    stop: int
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether it is the complete episode."""
        return self.start == 0 and self.stop == self.tables.rows[self.episode]["length"]


def whole(tables: Tables, episode: int) -> Piece:
    """Take a complete episode."""
    return Piece(tables, episode, 0, tables.rows[episode]["length"])


def require_new(target: Path) -> None:
    """Refuse a target that exists.

    Raises:
        DatasetError: Something is there.
    """
    if target.exists() or target.is_symlink():
        raise DatasetError(f"{target} exists: an edit is always written into a new folder. Choose another name, or remove that one.")


@contextmanager
def new_dataset(target: Path) -> Iterator[Path]:
    """Fill a hidden folder beside `target` that takes its name at the end; nothing is left behind otherwise."""
    require_new(target)
    with atomic_directory(target) as folder:
        yield folder
        require_new(target)  # somebody else may have made it meanwhile


def compose(target: Path, pieces: Sequence[Piece], edit: Edit, added: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write the dataset `target` from pieces, in their order.

    Args:
        target: Folder of the new dataset.
        pieces: Its episodes.
        edit: What was asked for, for the record.
        added: Declaration of features that the sources may lack; each piece then has the column.

    Raises:
        DatasetError: `target` exists, nothing would be left, or a source is damaged.
    """
    require_new(target)
    if not pieces or any(piece.start >= piece.stop for piece in pieces):
        raise DatasetError(f"{target}: no frame would be left in {'the dataset' if not pieces else 'an episode'}, so there is no dataset.")
    sources = list({id(piece.tables): piece.tables for piece in pieces}.values())
    with new_dataset(target) as folder:
        features = dict(sources[0].dataset.features) | {key: dict(feature) for key, feature in (added or {}).items()}
        stats, rows = _write_episodes(folder, pieces, features)
        _write_meta(folder, sources, features, rows, stats)
        hashes = {tables.dataset.root.resolve(): tables.dataset.content_hash() for tables in sources}
        taken = [
            {"source": str(piece.tables.dataset.root.resolve()), "episode": piece.episode, "start": piece.start, "stop": piece.stop}
            for piece in pieces
        ]
        write_record(folder, edit, hashes, taken)


def _write_episodes(
    folder: Path, pieces: Sequence[Piece], features: Mapping[str, Mapping[str, Any]]
) -> tuple[list[dict[str, FeatureStats]], list[dict[str, Any]]]:
    """Write data/ and videos/; return statistics and row of every episode."""
    info = pieces[0].tables.dataset.info
    cameras = [key for key, feature in features.items() if feature["dtype"] == "video"]
    # Each camera reads its own file: a table of packets is made once a file, not once an episode.
    sources, task_numbers = {key: SourceVideos() for key in cameras}, dict[str, int]()
    stats, rows, done, total = [], [], 0, sum(piece.stop - piece.start for piece in pieces)
    with ExitStack() as open_files:
        for videos in sources.values():
            open_files.callback(videos.close)
        limit_mb = info.get("video_files_size_in_mb", 200)
        writers = {key: open_files.enter_context(VideoWriter(folder / "videos" / key, limit_mb, sources[key])) for key in cameras}
        data = open_files.enter_context(_DataWriter(folder, info.get("data_files_size_in_mb", 100)))
        for number, piece in enumerate(pieces):
            tables, length = piece.tables, piece.stop - piece.start
            table = _renumbered(piece, number, done, task_numbers)
            chunk, file = data.add(table)
            row = {name: value for name, value in tables.rows[piece.episode].items() if not name.startswith("stats/")}
            row |= {"episode_index": number, "length": length, "dataset_from_index": done, "dataset_to_index": done + length}
            row |= {"data/chunk_index": chunk, "data/file_index": file, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            for key, writer in writers.items():
                place = writer.add(tables.span(piece.episode, key, piece.start, piece.stop))
                row |= dict(zip((f"videos/{key}/{name}" for name in _PLACE), place, strict=True))
            stats.append(_stats_of(piece, table, features, sources))
            rows.append(row)
            done += length
            publish(Progress(STAGE, done, total, "frames"))
    (folder / "meta").mkdir()
    _write_tasks(folder, pieces[0].tables, task_numbers)
    return stats, rows


_PLACE = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def _renumbered(piece: Piece, number: int, first_row: int, task_numbers: dict[str, int]) -> pa.Table:
    """Return the rows of a piece as they are in the new dataset; a task that is new here gets the next number."""
    table = piece.tables.frames(piece.episode).slice(piece.start, piece.stop - piece.start)
    length, tasks = len(table), piece.tables.tasks
    try:
        task_index = np.array([task_numbers.setdefault(tasks[index], len(task_numbers)) for index in table["task_index"].to_pylist()])
    except KeyError as error:
        raise DatasetError(
            f"{piece.tables.name}: episode {piece.episode} has task_index {error}, which {TASKS_PATH} lacks. Run `hilserl validate` on it."
        ) from None
    values: dict[str, np.ndarray] = {
        "episode_index": np.full(length, number),
        "index": np.arange(first_row, first_row + length),
        "task_index": task_index,
    }
    if piece.start:
        values["frame_index"] = np.arange(length)
        times = table["timestamp"].to_numpy()
        values["timestamp"] = times - times[0]
    for key, column in (values | dict(piece.columns)).items():
        place = table.schema.get_field_index(key)
        if place < 0:
            table = table.append_column(key, pa.array(column))
        else:
            old = table.schema.field(place)
            table = table.set_column(place, old, pa.array(column).cast(old.type))
    return table


def _stats_of(
    piece: Piece, table: pa.Table, features: Mapping[str, Mapping[str, Any]], sources: Mapping[str, SourceVideos]
) -> dict[str, FeatureStats]:
    """Describe the values of a new episode: what did not change is taken over."""
    known = piece.tables.stats(piece.episode)
    found: dict[str, FeatureStats] = {}
    for key, feature in features.items():
        changed = key in _RENUMBERED or key in piece.columns or not piece.is_whole
        is_depth = bool((feature.get("info") or {}).get("is_depth_map"))
        if key in known and (not changed or is_depth):
            found[key] = known[key]
        elif feature["dtype"] == "video":
            if not is_depth:
                span = piece.tables.span(piece.episode, key, piece.start, piece.stop)
                found[key] = image_stats(sources[key].pictures(span, sampled(span.frames)))
        elif feature["dtype"] == "image":
            stored = table[key].to_pylist()
            found[key] = image_stats([_picture(stored[frame]["bytes"], key, piece) for frame in sampled(len(stored))])
        elif feature["dtype"] not in ("string", "language") and key in table.column_names:
            found[key] = column_stats(np.array(table[key].to_pylist()))
    return found


def _picture(data: bytes, key: str, piece: Piece) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{piece.tables.name}: episode {piece.episode}: a picture of `{key}` is damaged. Drop the episode.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _write_tasks(folder: Path, first: Tables, numbers: Mapping[str, int]) -> None:
    text = next(name for name in first.tasks_schema.names if name != "task_index")
    columns = {"task_index": list(numbers.values()), text: list(numbers)}
    table = pa.table({name: columns[name] for name in first.tasks_schema.names}, schema=first.tasks_schema)
    pq.write_table(table, folder / TASKS_PATH)


def _write_meta(
    folder: Path,
    sources: Sequence[Tables],
    features: Mapping[str, Mapping[str, Any]],
    rows: list[dict[str, Any]],
    stats: list[dict[str, FeatureStats]],
) -> None:
    names = list(rows[0])
    names += [name for row in rows for name in row if name not in names]
    flat = [
        row | {f"stats/{key}/{name}": value.tolist() for key, group in part.items() for name, value in group.items()}
        for row, part in zip(rows, stats, strict=True)
    ]
    # A statistic that some episode lacks (quantiles, before LeRobot 0.4) would be null there: left out for all.
    names += [name for name in flat[0] if name.startswith("stats/") and all(name in row for row in flat)]
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in flat])
    path = folder / EPISODES_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    write_json(folder / "meta" / "stats.json", dataset_stats(stats))
    has_video = any(feature["dtype"] == "video" for feature in features.values())
    info = dict(sources[0].dataset.info) | {
        "features": {key: dict(feature) for key, feature in features.items()},
        "total_episodes": len(rows),
        "total_frames": rows[-1]["dataset_to_index"],
        "total_tasks": pq.read_metadata(folder / TASKS_PATH).num_rows,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if has_video else None,
        "splits": {"train": f"0:{len(rows)}"},
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=4) + "\n")
    if len(sources) == 1:
        for extra in sorted((sources[0].dataset.root / "meta").iterdir()):
            if extra.name not in _MADE_ANEW and not extra.name.startswith("."):
                (shutil.copytree if extra.is_dir() else shutil.copy2)(extra, folder / "meta" / extra.name)


class _DataWriter:
    """Write data/: one row group an episode, a new file where the old one is full; as LeRobot does."""

    def __init__(self, folder: Path, max_mb: float) -> None:
        self._folder, self._max_bytes = folder, max_mb * _MEGABYTE
        self._schema: pa.Schema | None = None
        self._writer: Any = None
        self._path: Path | None = None
        self._number = -1

    def add(self, table: pa.Table) -> tuple[int, int]:
        """Append one episode; return the chunk and file that it is in."""
        if self._schema is None:
            self._schema = _with_declared_columns(table.schema)
        try:
            table = table.select(self._schema.names).cast(self._schema)
        except (pa.ArrowException, KeyError) as error:
            raise DatasetError(f"data/: columns of the sources differ ({error}).") from error
        if self._path is None or self._path.stat().st_size >= self._max_bytes:
            self.close()
            self._number += 1
            self._path = self._folder / DATA_PATH.format(chunk_index=self._number // 1000, file_index=self._number % 1000)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="snappy")
        self._writer.write_table(table)
        return self._number // 1000, self._number % 1000

    def close(self) -> None:
        """Finish the file that is open."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def __enter__(self) -> _DataWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _with_declared_columns(schema: pa.Schema) -> pa.Schema:
    """Declare added columns in the metadata by which the `datasets` library reads a file."""
    metadata = dict(schema.metadata or {})
    metadata.pop(b"pandas", None)
    if b"huggingface" in metadata:
        declared = json.loads(metadata[b"huggingface"])
        known = declared.get("info", {}).get("features", {})
        for column in schema:
            name = {"float": "float32", "double": "float64"}.get(str(column.type), str(column.type))
            known.setdefault(column.name, {"dtype": name, "_type": "Value"})
        metadata[b"huggingface"] = json.dumps(declared).encode()
    return schema.with_metadata(metadata)
