"""Find and cut the idle head and tail of each episode: nothing moves, and nothing is asked to move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilserl.data.dataset import DONE_KEY, REWARD_KEY
from hilserl.data.editing.compose import Piece, compose, require_new
from hilserl.data.editing.record import Edit
from hilserl.data.editing.tables import Tables
from hilserl.errors import DatasetError
from hilserl.schema import ACTION_KEY, JOINT_NAMES, STATE_KEY

# A commanded delta below this share of a full step is nobody's wish.
_IDLE_DELTA = 0.02
# A scalar of unknown unit moves when it leaves this share of the range that it has in the whole dataset.
_IDLE_SHARE = 0.01
# Frames kept before the first and after the last motion: the command comes a frame before what it moves.
_MARGIN_FRAMES = 1


@dataclass(frozen=True)
class IdleFrames:
    """What trimming takes from one episode.

    Attributes:
        episode: Its index.
        length: Its frames.
        head: Frames that go at the start.
        tail: Frames that go at the end.
        note: What is special about it.
    """

    episode: int
    length: int
    head: int
    tail: int
    note: str = ""


def find_idle(
    tables: Tables, *, idle_mm: float = 2.0, idle_deg: float = 1.0, head: bool = True, tail: bool = True
) -> tuple[IdleFrames, ...]:
    """Measure the idle head and tail of every episode.

    A head is idle as long as no scalar of state and action has left its first value, a tail from when none
    will leave its last one. Velocities do not count (they are noise at rest), and neither do frames after the
    last reward: a success is not cut. Units come from the names: LeRobot's `<joint>.pos` are degrees (gripper
    0-100), or radians where no value exceeds 2 pi; `ee_` positions metres; `delta_` actions are idle below 2 % of
    a full step; anything else below 1 % of its range in the dataset.

    Args:
        tables: The dataset.
        idle_mm: Motion of the tool that is none [mm].
        idle_deg: Motion of a joint that is none [deg].
        head: Look at the head.
        tail: Look at the tail.

    Raises:
        DatasetError: There is neither state nor action, or a file is damaged.
    """
    keys = [key for key in (STATE_KEY, ACTION_KEY) if key in tables.dataset.features]
    if not keys:
        raise DatasetError(f"{tables.name}: has neither `{STATE_KEY}` nor `{ACTION_KEY}`, so what is idle cannot be told.")
    episodes = {episode: {key: _column(tables, episode, key) for key in keys} for episode in sorted(tables.rows)}
    limits = {key: _limits(tables, key, [columns[key] for columns in episodes.values()], idle_mm, idle_deg) for key in keys}
    return tuple(_measure(tables, episode, columns, limits, head, tail) for episode, columns in episodes.items())


def trim_idle(tables: Tables, found: Sequence[IdleFrames], target: Path, edit: Edit) -> None:
    """Write a new dataset without the frames in `found`.

    Raises:
        DatasetError: `target` exists, or the source is damaged.
    """
    require_new(target)
    has_done = DONE_KEY in tables.dataset.features
    pieces = []
    for idle in found:
        start, stop = idle.head, idle.length - idle.tail
        columns = {}
        if has_done and idle.tail:  # the end of the episode moved
            done = _column(tables, idle.episode, DONE_KEY)[start:stop, 0].astype(bool)
            done[-1] = True
            columns[DONE_KEY] = done
        pieces.append(Piece(tables, idle.episode, start, stop, columns))
    compose(target, pieces, edit)


def _measure(
    tables: Tables, episode: int, columns: dict[str, np.ndarray], limits: dict[str, np.ndarray], head: bool, tail: bool
) -> IdleFrames:
    length = tables.rows[episode]["length"]
    from_first, from_last = np.zeros(length, bool), np.zeros(length, bool)
    for key, values in columns.items():
        is_delta = _is_delta(tables, key)
        for moved, reference in ((from_first, values[0]), (from_last, values[-1])):
            distance = np.abs(values - np.where(is_delta, 0.0, reference))
            moved |= (distance > limits[key]).any(1)
    if not (from_first.any() or from_last.any()):
        return IdleFrames(episode, length, 0, 0, "nothing moves in it at all: kept whole; drop it")
    first = int(np.argmax(from_first)) if from_first.any() else 0
    last = length - 1 - int(np.argmax(from_last[::-1])) if from_last.any() else length - 1
    start = max(0, first - _MARGIN_FRAMES) if head else 0
    stop = min(length, last + 1 + _MARGIN_FRAMES) if tail else length
    note = ""
    if REWARD_KEY in tables.dataset.features:
        rewarded = np.flatnonzero(_column(tables, episode, REWARD_KEY)[:, 0])
        if len(rewarded) and rewarded[-1] >= stop:
            stop, note = int(rewarded[-1]) + 1, "idle frames up to the last reward stay"
        if len(rewarded) and rewarded[0] < start:
            start, note = int(rewarded[0]), "idle frames from the first reward on stay"
    return IdleFrames(episode, length, start, length - stop, note)


def _column(tables: Tables, episode: int, key: str) -> np.ndarray:
    """Return one column of an episode as float64, shape (T, D)."""
    table = tables.frames(episode)
    if key not in table.column_names:
        raise DatasetError(f"{tables.name}: `{key}` is declared in meta/info.json but is no column of data/. Run `hilserl validate` on it.")
    values = np.array(table[key].to_pylist(), np.float64)
    return values.reshape(len(values), -1)


def _names(tables: Tables, key: str, size: int) -> tuple[str, ...]:
    names = tables.dataset.names(key) or ()
    return names if len(names) == size else ("",) * size


def _is_delta(tables: Tables, key: str) -> np.ndarray:
    size = int(np.prod(tables.dataset.shape(key)))
    return np.array([name.startswith("delta_") for name in _names(tables, key, size)])


def _limits(tables: Tables, key: str, columns: list[np.ndarray], idle_mm: float, idle_deg: float) -> np.ndarray:
    """Return by how much each scalar of a feature may differ and be idle, shape (D,)."""
    values = np.concatenate(columns)
    reach = np.abs(values).max(0)
    spread = np.ptp(values, axis=0)
    names = _names(tables, key, values.shape[1])
    joints = [place for place, name in enumerate(names) if any(joint in name for joint in JOINT_NAMES[:-1]) and "vel" not in name]
    radians = bool(joints) and reach[joints].max() <= 2 * math.pi
    limits = np.empty(len(names))
    for place, name in enumerate(names):
        if "vel" in name:
            limits[place] = np.inf
        elif name.startswith("delta_"):
            limits[place] = _IDLE_DELTA
        elif name.startswith("ee_euler") or (radians and any(joint in name for joint in JOINT_NAMES)):
            limits[place] = math.radians(idle_deg)
        elif name.startswith("ee_"):
            limits[place] = idle_mm / 1000
        elif any(joint in name for joint in JOINT_NAMES) and joints:
            limits[place] = idle_deg
        else:
            limits[place] = _IDLE_SHARE * spread[place]
    return limits
