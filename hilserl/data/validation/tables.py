"""Pandera schemas of a dataset's tables: what must hold in every row, found all at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from hilserl.data.dataset import DONE_KEY, INDEX_KEYS, REWARD_KEY, Dataset
from hilserl.data.validation.findings import Finding

# Without a cap, a column that is bad in a million rows takes pandera 22 s to describe.
_MAX_CASES = 20
# float32 seconds are this exact after a day of frames.
_TIMESTAMP_TOLERANCE_S = 1e-3
_DTYPES = {"float32": pl.Float32, "float64": pl.Float64, "int64": pl.Int64, "bool": pl.Boolean}
_MESSAGES = {
    "finite": "not finite: one such value makes every weight NaN",
    "frame_step": "frame_index does not count 0, 1, 2, ... inside its episode: frames are missing, doubled or out of order",
    "index_step": "index does not count 0, 1, 2, ...: rows are missing, doubled or out of order",
    "timestamp": "timestamp is not frame_index / fps: the video frame of another moment would be paired with this row",
    "episode_order": "episode_index goes back: episodes are interleaved, so a next observation would come from another episode",
}


def check_frames(dataset: Dataset) -> list[Finding]:
    """Check every row of the frame table against the declared features and against each other."""
    frames = dataset.frames
    if missing := [key for key in INDEX_KEYS if key not in frames.columns]:
        return [
            Finding("D18", "stops", "data/", f"the columns {missing} are missing; this is not a LeRobotDataset v3.0", "record it again")
        ]
    checks = [
        _check("frame_step", pl.col("frame_index") == pl.int_range(pl.len()).over("episode_index")),
        _check("index_step", pl.col("index") == pl.int_range(pl.len())),
        _check("timestamp", (pl.col("timestamp") - pl.col("frame_index") / dataset.fps).abs() < _TIMESTAMP_TOLERANCE_S),
        _check("episode_order", pl.col("episode_index").diff().fill_null(0) >= 0),
    ]
    columns: dict[str, Any] = {key: pa.Column(pl.Float32 if key == "timestamp" else pl.Int64) for key in INDEX_KEYS}
    for key in (REWARD_KEY, DONE_KEY):
        declared = _DTYPES.get(dataset.features[key]["dtype"]) if key in dataset.features else None
        if key in frames.columns and declared is not None:
            # Nullable, because the finite check finds both null and NaN, and says what it means.
            finite = _check("finite", pl.col(key).is_finite()) if declared.is_float() else None
            columns[key] = pa.Column(declared, finite, nullable=declared.is_float())
    findings = _validate(pa.DataFrameSchema(columns, checks=checks), frames)
    for key in dataset.features:
        if key in frames.columns and isinstance(frames.schema[key], pl.Array) and frames.schema[key].inner.is_float():  # type: ignore[attr-defined]
            bad = np.flatnonzero(~np.isfinite(dataset.column(key)).reshape(len(frames), -1).all(axis=1))
            if len(bad):
                where = f"`{key}` at {_rows(frames, bad)}"
                findings.append(Finding("D18", "stops", where, _MESSAGES["finite"], "drop or re-record these episodes"))
    return findings


def check_episodes(dataset: Dataset) -> list[Finding]:
    """Compare the episode table with the frames and with the files on disk."""
    findings = []
    counted = dict(dataset.frames.group_by("episode_index").len().iter_rows())
    expected_start = 0
    for position, episode in enumerate(dataset.episodes):
        place = f"meta/episodes, episode {episode.index}"
        problems = []
        if episode.index != position:
            problems.append(f"is row {position} of the table")
        if episode.length != counted.get(episode.index, 0):
            problems.append(f"declares {episode.length} frames, data/ has {counted.get(episode.index, 0)}")
        if (episode.start, episode.stop) != (expected_start, expected_start + episode.length):
            problems.append(f"declares rows {episode.start}-{episode.stop}, expected {expected_start}-{expected_start + episode.length}")
        if episode.length < 1:
            problems.append("has no frame")
        expected_start += episode.length
        if problems:
            remedy = "the recording was interrupted or edited by hand: restore it, or record it again"
            findings.append(Finding("D18", "stops", place, "; ".join(problems) + ". Episodes would be mixed", remedy))
    extra = sorted(set(counted) - {episode.index for episode in dataset.episodes})
    if extra:
        message = f"data/ has frames of episodes {_few(extra)} that the episode table does not know"
        findings.append(
            Finding("D18", "stops", "meta/episodes", message, "the recording was not finalised: restore it, or record it again")
        )
    files = {span.path for episode in dataset.episodes for span in episode.videos.values()}
    for path in sorted(files):
        if not (dataset.root / path).is_file():
            episodes = [episode.index for episode in dataset.episodes if path in {span.path for span in episode.videos.values()}]
            remedy = "restore the file, or drop these episodes"
            findings.append(Finding("D18", "stops", str(path), f"the video of episodes {_few(episodes)} is missing", remedy))
    return findings


def _check(name: str, expression: pl.Expr) -> Any:
    def run(data: Any) -> pl.LazyFrame:
        return data.lazyframe.select(expression.fill_null(False))

    return pa.Check(run, name=name, n_failure_cases=_MAX_CASES)


def _validate(schema: Any, frames: pl.DataFrame) -> list[Finding]:
    """Run one schema over the frame table; one finding for each column and check, with its first place."""
    try:
        schema.validate(frames, lazy=True)
    except pa.errors.SchemaErrors as errors:
        return [_finding(error, frames) for error in errors.schema_errors]
    return []


def _finding(error: Any, frames: pl.DataFrame) -> Finding:
    column = f"`{error.schema.name}`" if error.schema.name else "data/"
    name = getattr(error.check, "name", None)
    if name is None or error.check_output is None:
        # Not a row's fault: a missing column or another dtype. Pandera's own sentence says it.
        return Finding("D18", "stops", column, f"{' '.join(str(error).split())}", "record the dataset again with LeRobot's writer")
    output = error.check_output.lazy().collect().to_series().to_numpy()
    where = f"{column} at {_rows(frames, np.flatnonzero(~output))}"
    return Finding("D18", "stops", where, _MESSAGES[name], "drop or re-record these episodes")


def _rows(frames: pl.DataFrame, rows: Any) -> str:
    first = frames.row(int(rows[0]), named=True)
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"episode {first['episode_index']} frame {first['frame_index']}{more}"


def _few(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:5]))
    return shown if len(values) <= 5 else f"{shown}, ... ({len(values)} in all)"
