"""Read what can be read of a dataset, and say what cannot: one damaged file never hides the others."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl

from hilserl.data.dataset import Dataset, Episode, VideoSpan
from hilserl.data.validation.findings import Finding, few, restore_or_exclude
from hilserl.data.validation.repairs import DECLARED, repair
from hilserl.errors import DatasetError

_EPISODE_COLUMNS = ("episode_index", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index")
_SPAN_COLUMNS = ("chunk_index", "file_index", "from_timestamp")
_NOT_READABLE = "not a readable parquet file: truncated or damaged, or the recording was never finalised"
_LEFT_OUT = "Episodes left out"


@dataclass
class Reading:
    """What was read.

    Attributes:
        dataset: Opened with what is well-formed in `meta/info.json`; None where that is unreadable.
        findings: What could not be read.
        frames: Rows of the episodes in use, from every readable file, vectors as fixed-size arrays.
        table: The readable rows of the episode table, with those left out; `start` and `stop` as declared.
        files: Data file that the table declares for each episode.
        excluded: Episodes left out by `dataset.exclude_episodes`.
        unread: Episodes in use whose rows, or some of them, could not be read.
        complete: Everything was read and nothing left out, so totals can be compared.
        table_complete: The whole episode table was read.
    """

    dataset: Dataset | None = None
    findings: list[Finding] = field(default_factory=list)
    frames: pl.DataFrame = field(default_factory=pl.DataFrame)
    table: tuple[Episode, ...] = ()
    files: dict[int, str] = field(default_factory=dict)
    excluded: frozenset[int] = frozenset()
    unread: set[int] = field(default_factory=set)
    complete: bool = True
    table_complete: bool = True

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes in use."""
        return tuple(episode for episode in self.table if episode.index not in self.excluded)

    def view(self, left_out: set[int]) -> Dataset | None:
        """Return the episodes whose rows are all there and not `left_out`, as a dataset; None where there are none."""
        if self.dataset is None or "episode_index" not in self.frames.columns:
            return None
        row, index = pl.col("row"), pl.col("episode_index")
        spans = (
            self.frames.lazy()
            .select("episode_index")
            .with_row_index("row")
            .group_by(index)
            .agg(row.min(), row.max().alias("end"), pl.len())
        )
        found = {episode: (start, end + 1, count) for episode, start, end, count in spans.collect().iter_rows()}
        whole = []
        for episode in self.episodes:
            start, stop, count = found.get(episode.index, (0, 0, 0))
            if episode.index not in left_out | self.unread and 0 < stop - start == count == episode.length:
                whole.append((start, episode))
        if not whole:
            return None
        whole.sort(key=lambda pair: pair[0])
        keep = np.zeros(len(self.frames), bool)
        for start, episode in whole:
            keep[start : start + episode.length] = True
        starts = np.cumsum([0, *(episode.length for _, episode in whole)])
        view = Dataset(self.dataset.root, self.dataset.info)
        # The two tables are computed on first use; a view has them from the start.
        view.__dict__["frames"] = self.frames if keep.all() else self.frames.filter(pl.Series(keep))
        view.__dict__["episodes"] = tuple(
            replace(episode, start=int(start), stop=int(start) + episode.length)
            for (_, episode), start in zip(whole, starts[:-1], strict=True)
        )
        return view


def read_dataset(root: Path, excluded: Sequence[int] = ()) -> Reading:
    """Read metadata and tables of the dataset at `root`, without the episodes `excluded`."""
    reading = Reading(excluded=frozenset(excluded))
    try:
        opened = Dataset.open(root)
    except DatasetError as error:
        remedy = "# restore meta/info.json from the recording, or name the folder that holds meta/, data/ and videos/"
        if "codebase_version" in str(error):
            remedy = f"hilserl dataset upgrade {shlex.quote(str(root))} --into NEW_FOLDER\n# and name that folder as the dataset"
        reading.findings.append(Finding("D18", "stops", str(root), str(error), remedy, "A dataset that cannot be opened"))
        reading.findings += _unreadable_files(root)
        return reading
    reading.dataset = Dataset(root, {**opened.info, "features": _features(opened, reading.findings)})
    reading.table = _episode_table(reading)
    _exclude(reading)
    reading.frames = _frames(reading)
    repair(reading)
    return reading


def _exclude(reading: Reading) -> None:
    table, excluded, findings = reading.table, reading.excluded, reading.findings
    dropped = [episode for episode in table if episode.index in excluded]
    unknown = sorted(excluded - {episode.index for episode in table})
    if unknown and table:
        message = f"the dataset has no episode {few(unknown)}, only {table[0].index} to {table[-1].index}: another is meant, and used"
        known = ", ".join(str(episode.index) for episode in dropped)
        findings.append(
            Finding("D20", "stops", "dataset.exclude_episodes", message, f"dataset: {{exclude_episodes: [{known}]}}", _LEFT_OUT)
        )
    if dropped:
        reading.complete = False
        message = f"{len(dropped)} of {len(table)} episodes ({sum(e.length for e in dropped)} frames) are left out, and not checked"
        findings.append(Finding("D18", "informs", "dataset.exclude_episodes", message, title=_LEFT_OUT))
        if len(dropped) == len(table):
            message = "no episode is left to learn from"
            findings.append(Finding("D18", "stops", "dataset.exclude_episodes", message, "dataset: {exclude_episodes: []}", _LEFT_OUT))


def _features(dataset: Dataset, findings: list[Finding]) -> dict[str, Any]:
    """Keep the features that are described as LeRobot describes them."""
    good = {}
    for key, feature in dataset.features.items():
        try:
            tuple(int(size) for size in feature["shape"]), str(feature["dtype"])
        except (KeyError, TypeError, ValueError) as error:
            message = f"feature `{key}` has no readable dtype and shape ({type(error).__name__}: {error}): its numbers could be anything"
            remedy = f"# in a copy of the dataset, say in meta/info.json what dtype, shape and names `{key}` was recorded with"
            findings.append(Finding("D18", "stops", "meta/info.json", message, remedy, DECLARED))
        else:
            good[key] = feature
    return good


def _episode_table(reading: Reading) -> tuple[Episode, ...]:
    dataset = reading.dataset
    assert dataset is not None
    paths = sorted((dataset.root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
    dataset, videos = _cameras(reading, dataset, paths)
    wanted = [*_EPISODE_COLUMNS, *(f"videos/{key}/{name}" for key in videos for name in _SPAN_COLUMNS)]
    problems = {} if paths else {"meta/episodes/": "no file chunk-*/file-*.parquet, so no episode table"}
    episodes: list[Episode] = []
    for path in paths:
        with _told(path, dataset.root, problems):
            schema = pl.read_parquet_schema(path)
            missing = [name for name in wanted if name not in schema]
            if missing:
                raise ValueError(f"the episode table lacks {missing}")
            table = pl.read_parquet(path, columns=wanted)
            empty = [name for name in wanted if table[name].null_count()]
            if empty:
                raise ValueError(f"the episode table has empty cells in {empty}")
            for row in table.iter_rows(named=True):
                index, first, last = row["episode_index"], row["dataset_from_index"], row["dataset_to_index"]
                episodes.append(Episode(index, row["length"], first, last, {key: _span(dataset, key, row) for key in videos}))
                pattern = dataset.info.get("data_path") or "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
                reading.files[index] = pattern.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
    for place, problem in problems.items():
        reading.complete = reading.table_complete = False
        message = f"{problem}. Without it nobody knows where its episodes begin, end, and lie in the videos"
        remedy = "# restore meta/episodes/ from the recording, or record it again"
        reading.findings.append(Finding("D18", "stops", place, message, remedy, "The episode table"))
    return tuple(episodes)


def _span(dataset: Dataset, key: str, row: dict[str, Any]) -> VideoSpan:
    pattern = dataset.info.get("video_path") or "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
    return VideoSpan(Path(pattern.format(video_key=key, chunk_index=chunk, file_index=file)), float(row[f"videos/{key}/from_timestamp"]))


def _frames(reading: Reading) -> pl.DataFrame:
    dataset = reading.dataset
    assert dataset is not None
    declared: dict[str, list[int]] = {}
    for index, file in reading.files.items():
        declared.setdefault(file, []).append(index)
    present = {path.relative_to(dataset.root).as_posix() for path in (dataset.root / "data").glob("chunk-*/file-*.parquet")}
    problems: dict[str, str] = {file: "the file is missing" for file in declared if file not in present}
    if not present and not declared:
        problems["data/"] = "no file chunk-*/file-*.parquet: there are no frames"
    tables: list[pl.DataFrame] = []
    for file in sorted(present):
        with _told(dataset.root / file, dataset.root, problems):
            table = _used(_data_file(dataset.root / file), reading, file)
            if tables and table.schema != tables[0].schema:
                differ = sorted(set(table.schema.items()) ^ set(tables[0].schema.items()), key=str)
                raise ValueError(f"its columns differ from those of the files before it: {differ[:4]}")
            tables.append(table)
    for file, problem in problems.items():
        episodes = [index for index in declared.get(file, []) if index not in reading.excluded]
        reading.complete = False
        if declared.get(file) and not episodes:
            continue
        reading.unread |= set(episodes)
        message = f"{problem}. It holds {'episodes ' + few(episodes) if episodes else 'nobody knows what'}: it cannot be learned from"
        reading.findings.append(Finding("D18", "stops", file, message, restore_or_exclude(episodes), "A data file that cannot be used"))
    return pl.concat(tables, rechunk=True) if tables else pl.DataFrame()


def _data_file(path: Path) -> pl.DataFrame:
    """Read one file of frames without pictures and texts; lists become arrays, arrays of one element scalars."""
    schema = pl.read_parquet_schema(path)
    columns = [name for name, dtype in schema.items() if dtype not in (pl.Binary, pl.String, pl.Struct)]
    table = pl.read_parquet(path, columns=columns)
    for key, dtype in table.schema.items():
        if isinstance(dtype, pl.List):
            sizes = table[key].list.len()
            width = sizes.mode().first() if len(sizes) else 0
            ragged = table.filter((sizes != width).fill_null(True))
            if len(ragged):
                first = ragged.row(0, named=True)
                other = int(sizes.filter((sizes != width).fill_null(True)).fill_null(0)[0])
                raise ValueError(
                    f"`{key}` has another number of values in {len(ragged)} rows, first at episode {first.get('episode_index')} "
                    f"frame {first.get('frame_index')} ({other} for {width!s})"
                )
            table = table.with_columns(pl.col(key).list.to_array(int(str(width))))
        array = table.schema[key]
        if isinstance(array, pl.Array) and array.shape == (1,):
            table = table.with_columns(pl.col(key).arr.first())
    return table


def _used(table: pl.DataFrame, reading: Reading, file: str) -> pl.DataFrame:
    """Leave excluded episodes out, and compare the others with the file that the episode table declares for them."""
    if "episode_index" not in table.columns:
        return table
    if reading.excluded:
        table = table.filter(~pl.col("episode_index").is_in(list(reading.excluded)))
    elsewhere = [i for i in table["episode_index"].unique().sort() if i in reading.files and reading.files[i] != file]
    if elsewhere:
        message = (
            f"holds rows of episodes {few(elsewhere)}, which the episode table places in {reading.files[elsewhere[0]]}: readers mix them"
        )
        remedy = restore_or_exclude(elsewhere)
        reading.findings.append(Finding("D18", "stops", file, message, remedy, "Rows in another file than declared"))
    return table


def _unreadable_files(root: Path) -> list[Finding]:
    """Open every file of a dataset whose info.json says nothing, so that the rest of the damage is known too."""
    problems: dict[str, str] = {}
    for path in sorted(root.glob("data/chunk-*/file-*.parquet")) + sorted(root.glob("meta/episodes/chunk-*/file-*.parquet")):
        with _told(path, root, problems):
            pl.scan_parquet(path).select(pl.len()).collect()
    for path in sorted(root.glob("videos/*/chunk-*/file-*.mp4")):
        try:
            with av.open(str(path)) as container:
                next(container.decode(video=0))
        except (av.error.FFmpegError, IndexError, StopIteration, ValueError) as error:
            problems[path.relative_to(root).as_posix()] = f"not a readable video ({error})"
    return [
        Finding("D18", "stops", place, problem, restore_or_exclude(()), "A file that cannot be read") for place, problem in problems.items()
    ]


@contextmanager
def _told(path: Path, root: Path, problems: dict[str, str]) -> Iterator[None]:
    """Note why a parquet file cannot be used, and go on."""
    try:
        yield
    except ValueError as error:
        problems[path.relative_to(root).as_posix()] = str(error)
    # Polars panics, which is no Exception, on some damaged files.
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).strip().splitlines()
        problems[path.relative_to(root).as_posix()] = f"{_NOT_READABLE} ({reason[0][:200] if reason else type(error).__name__})"


def _cameras(reading: Reading, dataset: Dataset, paths: Sequence[Path]) -> tuple[Dataset, list[str]]:
    """List the cameras whose videos the episode table places; one that only `meta/info.json` calls otherwise is renamed."""
    declared = [key for key in dataset.camera_keys if dataset.features[key]["dtype"] == "video"]
    schema: list[str] = []
    for path in paths:
        try:
            schema = list(pl.read_parquet_schema(path))
            break
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            continue  # Told when its rows are read.
    placed = list(dict.fromkeys(name.split("/")[1] for name in schema if name.startswith("videos/") and name.endswith("/chunk_index")))
    lost, extra = [key for key in declared if key not in placed], [key for key in placed if key not in dataset.features]
    if not schema or not lost or not placed:
        return dataset, declared
    title = "Cameras in meta/info.json"
    if len(lost) == len(extra) == 1:
        message = f"names the camera `{lost[0]}`, the episode table and videos/ call it `{extra[0]}`: one of them was edited. Checked as "
        message += f"`{extra[0]}`"
        remedy = f"# in a copy of the dataset, name the feature `{extra[0]}` in meta/info.json"
        features = {extra[0] if key == lost[0] else key: feature for key, feature in dataset.features.items()}
        declared = [extra[0] if key == lost[0] else key for key in declared]
        reading.dataset = dataset = Dataset(dataset.root, {**dataset.info, "features": features})
    else:
        message = f"names the cameras {lost}, for which the episode table knows no video (it knows {placed}): they have no pictures"
        remedy = "# in a copy of the dataset, name the cameras in meta/info.json as the episode table and videos/ do"
    reading.findings.append(Finding("D18", "stops", "meta/info.json", message, remedy, title))
    return dataset, [key for key in declared if key in placed]
