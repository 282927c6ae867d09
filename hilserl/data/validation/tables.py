"""Pandera schemas of a dataset's tables: what must hold in every row, found all at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import polars as pl

from hilserl.data.dataset import DONE_KEY, INDEX_KEYS, REWARD_KEY
from hilserl.data.validation.findings import Finding, few, restore_or_exclude
from hilserl.data.validation.reading import Reading
from hilserl.data.validation.repairs import own_rate

# Without a cap, a column that is bad in a million rows takes pandera 22 s to describe.
_MAX_CASES = 20
# float32 seconds are this exact after a day of frames.
_TIMESTAMP_TOLERANCE_S = 1e-3
_DTYPES = {"float32": pl.Float32, "float64": pl.Float64, "int64": pl.Int64, "bool": pl.Boolean}
# Computed once, and compared with what the file says.
_POSITION, _INDEX = "(position)", "(index)"
_MESSAGES = {
    "finite": "not finite: one such value makes every weight NaN",
    "frame_step": "frame_index does not count 0, 1, 2, ... inside its episode: frames are missing, doubled or out of order, "
    "so an observation would be followed by one that did not follow it",
    "index_step": "index does not count 0, 1, 2, ...: rows are missing, doubled or out of order",
    "timestamp": "timestamp is not frame_index / fps: the video frame of another moment would be paired with this row",
    "episode_order": "episode_index goes back: episodes are interleaved, so a next observation would come from another episode",
}
_CAUSES = {
    "finite": "Values that are not finite",
    "frame_step": "Rows out of order",
    "index_step": "Rows out of order",
    "timestamp": "Timestamps",
    "episode_order": "Rows out of order",
}
_COUNTS = ("frame_step", "index_step", "episode_order")


def check_frames(reading: Reading) -> tuple[list[Finding], set[int]]:
    """Check every row against the declared features and against each other.

    Returns:
        Findings, and the episodes with values that cannot be interpreted.
    """
    dataset, frames = reading.dataset, reading.frames
    if dataset is None or not len(frames):
        return [], set()
    findings = []
    if missing := [key for key in INDEX_KEYS if key not in frames.columns]:
        message = f"the columns {missing} are missing; this is not a LeRobotDataset v3.0, and rows cannot be told apart"
        remedy = "# restore data/ from the recording, or record it again with LeRobot's writer"
        findings.append(Finding("D18", "stops", "data/", message, remedy, "Columns that are missing"))
    if "episode_index" not in frames.columns or "frame_index" not in frames.columns:
        return findings, set()
    findings += _validate(_schema(reading), _counted(reading), _miscounted(reading))
    unusable: set[int] = set()
    for key, dtype in frames.schema.items():
        if key in dataset.features and isinstance(dtype, pl.Array) and dtype.inner.is_float():
            # A row that is null as a whole is NaN everywhere here.
            bad = np.flatnonzero(~np.isfinite(frames[key].to_numpy()).reshape(len(frames), -1).all(axis=1))
            if len(bad):
                episodes = _episodes(frames, bad)
                where = f"`{key}` at {_rows(frames, bad)}"
                findings.append(Finding("D18", "stops", where, _MESSAGES["finite"], restore_or_exclude(episodes), _CAUSES["finite"]))
                unusable |= set(episodes)
    if REWARD_KEY in frames.columns and frames.schema[REWARD_KEY].is_float():
        unusable |= set(_episodes(frames, np.flatnonzero(~frames[REWARD_KEY].is_finite().fill_null(False).to_numpy())))
    return findings, unusable


def _schema(reading: Reading) -> Any:
    import pandera.polars as pa  # with pandas, seconds: only where something is validated, so that a killed training is back sooner

    assert reading.dataset is not None
    frames, features, fps = reading.frames, reading.dataset.features, reading.dataset.fps
    checks = [
        _check("frame_step", pl.col("frame_index") == pl.col(_POSITION)),
        _check("episode_order", pl.col("episode_index").diff().fill_null(0) >= 0),
    ]
    if "index" in frames.columns:
        checks.append(_check("index_step", pl.col("index") == pl.col(_INDEX)))
    if "timestamp" in frames.columns:
        late = (pl.col("timestamp") - pl.col("frame_index") / fps).abs()
        checks.append(_check("timestamp", late < _TIMESTAMP_TOLERANCE_S))
    columns: dict[str, Any] = {
        key: pa.Column(pl.Float32 if key == "timestamp" else pl.Int64) for key in INDEX_KEYS if key in frames.columns
    }
    for key in (REWARD_KEY, DONE_KEY):
        declared = _DTYPES.get(features[key]["dtype"]) if key in features else None
        if key in frames.columns and declared is not None:
            # Nullable, because the finite check finds both null and NaN, and says what it means.
            finite = _check("finite", pl.col(key).is_finite()) if declared.is_float() else None
            columns[key] = pa.Column(declared, finite, nullable=declared.is_float())
    return pa.DataFrameSchema(columns, checks=checks)


def _counted(reading: Reading) -> pl.DataFrame:
    """Add what frame_index and index should be: counted rows of the episode, from where the episode table begins it."""
    frames = reading.frames.select(key for key in (*INDEX_KEYS, REWARD_KEY, DONE_KEY) if key in reading.frames.columns)
    frames = frames.with_columns(pl.int_range(pl.len()).over("episode_index").alias(_POSITION))
    starts = {episode.index: episode.start for episode in reading.episodes}
    if not starts or "index" not in frames.columns or frames.schema["episode_index"] != pl.Int64:
        return frames.with_columns((pl.col("index") if "index" in frames.columns else pl.lit(0)).alias(_INDEX))
    start = pl.col("episode_index").replace_strict(starts, default=None, return_dtype=pl.Int64)
    # Rows of an episode that the table does not know are told as such.
    return frames.with_columns((start + pl.col(_POSITION)).fill_null(pl.col("index")).alias(_INDEX))


def check_episodes(reading: Reading) -> list[Finding]:
    """Compare the episode table with itself and with the frames; one finding lists every episode that disagrees."""
    if reading.dataset is None or not reading.table or "episode_index" not in reading.frames.columns:
        return []
    counted, miscounted = _counts(reading), _miscounted(reading)
    told: dict[int, str] = {}
    before = None
    for episode in reading.table:
        problems = []
        index, start = (before.index + 1, before.stop) if before else (0, 0)
        if reading.table_complete or before:
            if episode.index != index:
                problems.append(f"stands where episode {index} should")
            if (episode.start, episode.stop) != (start, start + episode.length):
                problems.append(f"declares rows {episode.start}-{episode.stop}, expected {start}-{start + episode.length}")
        if episode.index in miscounted:
            problems.append(f"declares {episode.length} frames, data/ has {counted.get(episode.index, 0)}{_jump(reading, episode.index)}")
        if episode.length < 1:
            problems.append("has no frame")
        before = episode
        if problems and episode.index not in reading.excluded:
            told[episode.index] = "; ".join(problems)
    findings = []
    if told:
        first, *more = told
        shown = [told[first], *(f"episode {index} {told[index]}" for index in more[: _MAX_CASES - 1])]
        shown += [f"{len(told) - _MAX_CASES} more episodes disagree"] if len(told) > _MAX_CASES else []
        message = "; ".join(shown) + ". Episodes would be mixed: the recording was interrupted, resumed over an old one, or edited"
        place = f"meta/episodes, episode {first}" + (f" and {len(more)} more" if more else "")
        remedy = (
            restore_or_exclude(sorted(told)) if len(told) <= _MAX_CASES else "# restore meta/episodes/ and data/ from the same recording"
        )
        findings.append(Finding("D18", "stops", place, message, remedy, "Episode table and rows"))
    extra = sorted(set(counted) - {episode.index for episode in reading.table} - reading.excluded)
    if extra:
        message = f"data/ has frames of episodes {few(extra)} that the episode table does not know: nobody knows where their video lies"
        remedy = "# restore meta/episodes/ (the recording was not finalised: LeRobotDataset.finalize()), or record it again"
        findings.append(Finding("D18", "stops", "meta/episodes", message, remedy, "Episode table and rows"))
    return findings


def _counts(reading: Reading) -> dict[int, int]:
    return dict(reading.frames.group_by("episode_index").len().iter_rows())


def _miscounted(reading: Reading) -> set[int]:
    """List the episodes of which data/ has more or fewer rows than the episode table says."""
    counted = _counts(reading)
    return {episode.index for episode in reading.table if episode.length != counted.get(episode.index, 0)} - reading.unread


def _jump(reading: Reading, episode: int) -> str:
    """Say where rows of an episode are missing or doubled; empty where its `frame_index` counts on."""
    if "frame_index" not in reading.frames.columns:
        return ""
    count = reading.frames.filter(pl.col("episode_index") == episode)["frame_index"].drop_nulls().to_numpy()
    jumps = np.flatnonzero(np.diff(count) != 1)
    return f" (frame {count[jumps[0]]} is followed by frame {count[jumps[0] + 1]})" if len(jumps) else ""


def _check(name: str, expression: pl.Expr) -> Any:
    import pandera.polars as pa

    def run(data: Any) -> pl.LazyFrame:
        return data.lazyframe.select(expression.fill_null(False))

    return pa.Check(run, name=name, n_failure_cases=_MAX_CASES)


def _validate(schema: Any, frames: pl.DataFrame, miscounted: Collection[int]) -> list[Finding]:
    """Run one schema over the frame table; one finding for each column and check, with its first place."""
    import pandera.polars as pa

    try:
        schema.validate(frames, lazy=True)
    except pa.errors.SchemaErrors as errors:
        found = [_finding(error, frames, miscounted) for error in errors.schema_errors]
        return [finding for finding in found if finding is not None]
    return []


def _finding(error: Any, frames: pl.DataFrame, miscounted: Collection[int]) -> Finding | None:
    column = f"`{error.schema.name}`" if error.schema.name else "data/"
    name = getattr(error.check, "name", None)
    if name is None or error.check_output is None:
        # Not a row's fault: another dtype, or empty cells. Pandera's own sentence says it.
        remedy = "# write the column again with the declared dtype (LeRobot's writer does), or restore data/ from the recording"
        message = f"{' '.join(str(error).split())[:300]}: a reader would guess, or fail in the middle of training"
        return Finding("D18", "stops", column, message, remedy, "Type of a column")
    bad = np.flatnonzero(~error.check_output.lazy().collect().to_series().to_numpy())
    if name in _COUNTS:
        # Where rows are missing or doubled, all of these follow; `check_episodes` tells it once.
        bad = bad[~np.isin(frames["episode_index"].gather(bad).to_numpy(), sorted(miscounted))]
        if not len(bad):
            return None
    message, remedy = _MESSAGES[name], restore_or_exclude(_episodes(frames, bad))
    rate = own_rate(frames) if name == "timestamp" and len(bad) > len(frames) / 2 else None
    if rate is not None:
        message = f"timestamps are 1/{rate:g} s apart, meta/info.json says another fps: {message}, and every velocity would be wrong"
        remedy = f'# if the camera delivered {rate:g} frames/s: in a copy of the dataset, meta/info.json: "fps": {rate:g}'
    return Finding("D18", "stops", f"{column} at {_rows(frames, bad)}", message, remedy, _CAUSES[name])


def _rows(frames: pl.DataFrame, rows: Any) -> str:
    first = frames.row(int(rows[0]), named=True)
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"episode {first['episode_index']} frame {first['frame_index']}{more}"


def _episodes(frames: pl.DataFrame, rows: Iterable[int] | np.ndarray) -> list[int]:
    return sorted({int(index) for index in frames["episode_index"].gather(rows).drop_nulls()})  # type: ignore[arg-type]
