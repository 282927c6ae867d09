"""What is in a dataset, for a person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilserl.data.dataset import DONE_KEY, INDEX_KEYS, REWARD_KEY
from hilserl.data.editing.record import read_record
from hilserl.data.editing.tables import Tables
from hilserl.schema import JOINT_NAMES, STATE_COMPONENTS


@dataclass(frozen=True)
class FeatureLine:
    """One feature: key, dtype, shape, and its scalars as `name [unit] min to max`."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    scalars: str


@dataclass(frozen=True)
class EpisodeLine:
    """One episode.

    Attributes:
        index: Its index.
        frames: Its length.
        seconds: Its duration [s].
        tasks: What it was recorded for.
        rewarded: Frames with a reward; None where the dataset has none.
        ends: Frames where next.done is true; None where the dataset has none.
    """

    index: int
    frames: int
    seconds: float
    tasks: str
    rewarded: int | None
    ends: int | None


@dataclass(frozen=True)
class Description:
    """What is in a dataset.

    Attributes:
        root: Its folder.
        summary: Lines of text.
        features: One line a feature.
        episodes: One line an episode.
    """

    root: Path
    summary: tuple[str, ...]
    features: tuple[FeatureLine, ...]
    episodes: tuple[EpisodeLine, ...]


def describe_dataset(root: Path) -> Description:
    """Read metadata and tables of a dataset, no video.

    Raises:
        DatasetError: It is no LeRobotDataset v3.0, or a table is damaged.
    """
    tables = Tables.open(root)
    dataset = tables.dataset
    episodes = []
    for index, row in sorted(tables.rows.items()):
        frames = tables.frames(index)
        rewarded, ends = (
            int(np.count_nonzero(np.array(frames[key].to_pylist(), np.float64))) if key in frames.column_names else None
            for key in (REWARD_KEY, DONE_KEY)
        )
        tasks = "; ".join(map(str, row.get("tasks") or []))
        episodes.append(EpisodeLine(index, row["length"], row["length"] / dataset.fps, tasks, rewarded, ends))
    features = tuple(
        FeatureLine(key, feature["dtype"], dataset.shape(key), (_camera if key in dataset.camera_keys else _scalars)(tables, key))
        for key, feature in dataset.features.items()
        if key not in INDEX_KEYS
    )
    total = sum(episode.frames for episode in episodes)
    sizes = {part: sum(path.stat().st_size for path in (root / part).rglob("*") if path.is_file()) for part in ("data", "videos")}
    with_reward = sum(bool(episode.rewarded) for episode in episodes)
    summary = [
        f"{len(episodes)} episodes, {total} frames, {total / dataset.fps:.0f} s at {dataset.fps:g} frames per second; "
        f"robot: {dataset.info.get('robot_type') or 'not stated'}",
        f"tables {sizes['data'] / 1e6:.1f} MB, video {sizes['videos'] / 1e6:.1f} MB; tasks: {'; '.join(tables.tasks.values())}",
        f"{REWARD_KEY}: rewarded frames in {with_reward} of {len(episodes)} episodes"
        if REWARD_KEY in dataset.features
        else f"no {REWARD_KEY}: mark successes (`hilserl dataset mark-success`), or choose `dataset.reward_from`",
        f"{DONE_KEY}: {'there' if DONE_KEY in dataset.features else 'not there; ends come from the episode table'}",
    ]
    record = read_record(root)
    if record:
        summary.append(f"made by `hilserl dataset {record.get('command')}` on {record.get('made')} from {_folders(record)}")
    return Description(root, tuple(summary), features, tuple(episodes))


def _folders(record: dict) -> str:
    return ", ".join(str(source.get("folder")) for source in record.get("sources", []))


def _camera(tables: Tables, key: str) -> str:
    info = tables.dataset.features[key].get("info") or {}
    parts = [str(info[name]) for name in ("video.codec", "video.pix_fmt") if info.get(name)]
    return ", ".join(parts)


def _scalars(tables: Tables, key: str) -> str:
    shape = tables.dataset.shape(key)
    size = int(np.prod(shape))
    names = tables.dataset.names(key) or ()
    if len(names) != size:
        names = tuple(f"[{place}]" for place in range(size)) if size > 1 else (key.rpartition(".")[2],)
    parts = [part for part in (tables.stats(episode).get(key) for episode in tables.rows) if part and part["min"].size == size]
    low = np.min([part["min"].ravel() for part in parts], 0) if parts else None
    high = np.max([part["max"].ravel() for part in parts], 0) if parts else None
    lines = []
    for place, name in enumerate(names):
        spread = "" if low is None or high is None else f" {low[place]:.3g} to {high[place]:.3g}"
        unit = _unit(name)
        lines.append(f"{name}{f' [{unit}]' if unit else ''}{spread}")
    return "\n".join(lines) if tables.dataset.names(key) else f"no names; {', '.join(lines)}"


def _unit(name: str) -> str:
    """Return the unit that a name stands for, or nothing where names do not tell."""
    component = STATE_COMPONENTS.get(name.partition(".")[0])
    if component is not None and "." in name:
        return component.unit
    joint, _, suffix = name.partition(".")
    if suffix == "pos" and joint in JOINT_NAMES:
        return "0-100" if joint == "gripper" else "deg"
    return ""
