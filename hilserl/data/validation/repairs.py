"""What metadata say wrongly about sound rows is told once, and the rest is checked by what rows and videos say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
import polars as pl

from hilserl.data.dataset import Dataset, Episode
from hilserl.data.validation.findings import Finding
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY

if TYPE_CHECKING:
    from hilserl.data.validation.reading import Reading

DECLARED = "What meta/info.json says of the columns"
_RATE_TOLERANCE = 0.02


def repair(reading: Reading) -> None:
    """Replace in memory what only the metadata say otherwise, with one finding each."""
    _rate(reading)
    _declared(reading)
    _without_table(reading)


def _declared(reading: Reading) -> None:
    """Compare the declared sizes and names of vectors with the rows, and go on with what the rows hold."""
    dataset = reading.dataset
    assert dataset is not None
    features = dict(dataset.features)
    for key, dtype in reading.frames.schema.items():
        if key not in features or not isinstance(dtype, pl.Array) or len(dtype.shape) != 1 or key.startswith(IMAGE_PREFIX):
            continue
        width, size = dtype.shape[0], int(np.prod(dataset.shape(key)))
        names = dataset.names(key) if key in (STATE_KEY, ACTION_KEY) else None
        problems = [f"declares {size} numbers"] if size != width else []
        if names is not None and len(names) != width:
            problems.append(f"names {len(names)}")
        if not problems:
            continue
        # Whose names are a part of LeRobot's joints, in their order, is the arm's: the rest is checked as such.
        joints = LEROBOT_JOINT_NAMES if names and width == len(LEROBOT_JOINT_NAMES) and names == LEROBOT_JOINT_NAMES[: len(names)] else None
        kept = names if names is not None and len(names) == width else joints
        features[key] = {**features[key], "shape": [width], "names": list(kept) if kept else None}
        message = f"the rows hold {width} numbers, meta/info.json {' and '.join(problems)}: they would be taken for one another"
        remedy = f'# in a copy of the dataset, meta/info.json: "{key}": "shape": [{width}], with {width} names'
        code = {STATE_KEY: "D04", ACTION_KEY: "D06"}.get(key, "D18")
        reading.findings.append(Finding(code, "stops", f"`{key}`", message, remedy, DECLARED))
    reading.dataset = Dataset(dataset.root, {**dataset.info, "features": features})


def _without_table(reading: Reading) -> None:
    """Take the episodes that an unreadable table left out from the rows, without videos, so that their rows are checked."""
    if reading.table_complete or "episode_index" not in reading.frames.columns or reading.frames.schema["episode_index"] != pl.Int64:
        return
    known = {episode.index for episode in reading.table}
    rows = reading.frames.with_row_index("row")
    first = "index" if rows.schema.get("index") == pl.Int64 else "row"
    spans = rows.group_by("episode_index").agg(pl.col(first).first(), pl.len()).sort("episode_index")
    more = [
        Episode(number, length, start, start + length, {})
        for number, start, length in spans.iter_rows()
        if number is not None and start is not None and number not in known
    ]
    reading.table = tuple(sorted((*reading.table, *more), key=lambda episode: episode.index))


def _rate(reading: Reading) -> None:
    """Take the rate that timestamps and video agree on, where only `meta/info.json` says another."""
    dataset, own = reading.dataset, own_rate(reading.frames)
    assert dataset is not None
    if own is None or abs(own / dataset.fps - 1) < _RATE_TOLERANCE:
        return
    for path in sorted(dataset.root.glob("videos/*/chunk-*/file-*.mp4")):
        try:
            with av.open(str(path)) as container:
                video = float(container.streams.video[0].average_rate or 0)
        except (av.error.FFmpegError, IndexError, ValueError):
            continue  # Told when the videos are checked.
        if abs(video / own - 1) > _RATE_TOLERANCE:
            return
        message = f"says {dataset.fps:g} frames/s, timestamps and video say {own:g}: every velocity would be wrong. Checked at {own:g}"
        remedy = f'# in a copy of the dataset, meta/info.json: "fps": {own:g}'
        reading.findings.append(Finding("D18", "stops", "meta/info.json", message, remedy, "Frame rate"))
        reading.dataset = Dataset(dataset.root, {**dataset.info, "fps": own})
        return


def own_rate(frames: pl.DataFrame) -> float | None:
    """Return the rate that the timestamps show [Hz], where they show one."""
    if not {"frame_index", "timestamp"} <= set(frames.columns):
        return None
    moving = frames.filter(pl.col("frame_index") > 0).select(step=pl.col("timestamp") / pl.col("frame_index"))["step"]
    steps = moving.drop_nulls().to_numpy()
    if not len(steps) or not np.isfinite(steps).all() or np.median(steps) <= 0 or np.ptp(steps) > 0.01 * np.median(steps):
        return None
    return round(float(1 / np.median(steps)), 2)
