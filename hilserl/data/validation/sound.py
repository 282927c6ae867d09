"""Which rows a check may look at: a bad row must not hide what is wrong with the others."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from hilserl.data.dataset import Dataset, Episode
from hilserl.data.validation.findings import Finding, few
from hilserl.data.validation.reading import Reading

# One row has no motion and no range.
_SHORTEST = 2


def sound_stretches(reading: Reading, keys: Collection[str]) -> Dataset | None:
    """Cut the frames into stretches that every check of values and motion can use.

    Args:
        reading: What was read; neither every row nor the episode table need be there.
        keys: Columns that must be finite.

    Returns:
        Each stretch as an episode of its own, under the index of the one that it is from: rows that follow one another, all finite.
        None where there is none.
    """
    frames = reading.frames
    if reading.dataset is None or "episode_index" not in frames.columns:
        return None
    episode = _integers(frames["episode_index"])
    good = (episode >= 0) & _finite(frames, keys)
    begins = np.ones(len(frames), bool)
    begins[1:] = (np.diff(episode) != 0) | ~good[:-1]
    if "frame_index" in frames.columns:
        begins[1:] |= np.diff(_integers(frames["frame_index"])) != 1
    starts = np.flatnonzero(good & begins)
    ends = np.append(np.flatnonzero(begins | ~good), len(frames))
    stops = ends[np.searchsorted(ends, starts, side="right")]
    long = stops - starts >= _SHORTEST
    starts, stops = starts[long], stops[long]
    if not len(starts):
        return None
    keep = np.zeros(len(frames), bool)
    for start, stop in zip(starts, stops, strict=True):
        keep[start:stop] = True
    offsets = np.cumsum([0, *(stops - starts)]).tolist()
    view = Dataset(reading.dataset.root, reading.dataset.info)
    # The two tables are computed on first use; a view has them from the start.
    view.__dict__["frames"] = frames if keep.all() else frames.filter(pl.Series(keep))
    view.__dict__["episodes"] = tuple(
        Episode(int(episode[row]), stop - start, start, stop, {})
        for row, start, stop in zip(starts, offsets[:-1], offsets[1:], strict=True)
    )
    return view


def whole_episodes(reading: Reading, keys: Collection[str]) -> Dataset | None:
    """Return the episodes of which every row is there and finite in `keys`; None where there is none."""
    frames = reading.frames
    if "episode_index" not in frames.columns:
        return None
    episode = _integers(frames["episode_index"])
    bad = {int(index) for index in np.unique(episode[~_finite(frames, keys)])}
    return reading.view(bad)


def not_checked(reading: Reading, used: Dataset | None, code: str, place: str, what: str) -> list[Finding]:
    """Say which episodes a check did not see, and why.

    Args:
        reading: What was read.
        used: What the check saw.
        code: Row of the list of failures that the check is for.
        place: What it checks.
        what: Such as `rewards and ends`.
    """
    rows = reading.frames["episode_index"].drop_nulls().unique().to_list() if "episode_index" in reading.frames.columns else []
    known = {episode.index for episode in reading.episodes} | {int(index) for index in rows if index >= 0}
    missed = sorted(known - reading.excluded - {episode.index for episode in (used.episodes if used is not None else ())})
    if not missed and used is not None:
        return []
    if not len(reading.frames):
        reason = "no row of data/ could be read"
    elif "episode_index" not in reading.frames.columns:
        reason = "the rows do not say which episode they belong to"
    else:
        reason = "their rows are missing, out of order, or not finite"
    where = f" in episodes {few(missed)}" if used is not None else ""
    return [Finding(code, "informs", place, f"{what} are not checked{where}, because {reason}")]


def _finite(frames: pl.DataFrame, keys: Collection[str]) -> np.ndarray:
    """Mark rows that are finite in all `keys`, shape (N,)."""
    finite = np.ones(len(frames), bool)
    for key in keys:
        if key not in frames.columns or (frames[key].dtype.is_nested() and not isinstance(frames[key].dtype, pl.Array)):
            continue
        values = frames[key].to_numpy()
        if np.issubdtype(values.dtype, np.floating):
            finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return finite


def _integers(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
