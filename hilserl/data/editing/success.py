"""Mark which frames of which episodes are successes: writes `next.reward` and `next.done`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.data.dataset import DONE_KEY, REWARD_KEY
from hilserl.data.editing.compose import Piece, compose, require_new
from hilserl.data.editing.record import Edit
from hilserl.data.editing.tables import Tables
from hilserl.errors import DatasetError

COLUMNS = ("episode", "start", "end")
_ADDED: dict[str, dict[str, Any]] = {
    REWARD_KEY: {"dtype": "float32", "shape": [1], "names": None},
    DONE_KEY: {"dtype": "bool", "shape": [1], "names": None},
}


@dataclass(frozen=True)
class SuccessRange:
    """Success frames of one episode, both ends included.

    Attributes:
        episode: Index of the episode.
        start: First success frame; None: the last frame of the episode.
        end: Last success frame; None: the last frame of the episode.
        place: Where it was stated, for messages.
    """

    episode: int
    start: int | None
    end: int | None
    place: str


def read_ranges(file: Path) -> tuple[SuccessRange, ...]:
    """Read success ranges from a `.csv` or `.json` file.

    CSV: a header `episode,start,end` and one range a line. JSON: a list of objects with these keys. Frames are
    counted from 0 within the episode, both ends included; without `end` a range lasts until the episode ends,
    without both it is the last frame alone. An episode may have several lines, or none: then it has no success.

    Raises:
        DatasetError: Names every line that cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot be read ({error}).") from None
    rows = list(_json_rows(file, text) if file.suffix.lower() == ".json" else _csv_rows(file, text))
    problems, ranges = [], []
    for place, row in rows:
        values: dict[str, int | None] = {}
        for name in COLUMNS:
            given = row.get(name)
            if isinstance(given, str):
                given = given.strip() or None
            try:
                number = None if given is None else int(given)
            except (TypeError, ValueError):
                number = -1
            if number is not None and (number < 0 or isinstance(given, bool | float)):
                problems.append(f"{place}: `{name}` is {given!r}, not a whole number from 0 on")
                break
            values[name] = number
        else:
            episode, start, end = (values[name] for name in COLUMNS)
            if episode is None:
                problems.append(f"{place}: `episode` is missing")
            elif start is None and end is not None:
                problems.append(f"{place}: `end` is {end} and `start` is missing")
            elif start is not None and end is not None and end < start:
                problems.append(f"{place}: `end` {end} is before `start` {start}")
            else:
                ranges.append(SuccessRange(episode, start, end, place))
    if problems:
        raise DatasetError("These success ranges cannot be read; nothing was written:\n" + "\n".join(f"  {line}" for line in problems))
    if not ranges:
        raise DatasetError(f"{file}: holds no success range. Expected a header `{','.join(COLUMNS)}` and one range a line.")
    return tuple(ranges)


def mark_success(root: Path, ranges: Sequence[SuccessRange], target: Path, *, cut_after: bool = False) -> tuple[str, ...]:
    """Write a new dataset with `next.reward` 1 on the success frames and 0 elsewhere, `next.done` on last frames.

    Columns of these names are replaced. With `cut_after` an episode ends with its last success frame. Returns
    remarks worth a person's attention.

    Raises:
        DatasetError: `target` exists, a range lies outside its episode (all are named), or the source is damaged.
    """
    require_new(target)
    tables = Tables.open(root)
    rewards = {episode: np.zeros(row["length"], np.float32) for episode, row in sorted(tables.rows.items())}
    problems = []
    for given in ranges:
        if given.episode not in rewards:
            problems.append(f"{given.place}: the dataset has no episode {given.episode}; it has {min(rewards)} to {max(rewards)}")
            continue
        reward = rewards[given.episode]
        last = len(reward) - 1
        start = last if given.start is None else given.start
        end = last if given.end is None else given.end
        if max(start, end) > last:
            problems.append(f"{given.place}: frame {max(start, end)} is outside episode {given.episode}, whose last frame is {last}")
        else:
            reward[start : end + 1] = 1.0
    if problems:
        raise DatasetError(f"{root}: these success ranges do not fit; nothing was written:\n" + "\n".join(f"  {line}" for line in problems))
    if cut_after:
        ends = {episode: np.flatnonzero(reward)[-1] + 1 for episode, reward in rewards.items() if reward.any()}
        rewards = {episode: reward[: ends.get(episode)] for episode, reward in rewards.items()}
    pieces = [
        Piece(tables, episode, 0, len(reward), {REWARD_KEY: reward, DONE_KEY: np.arange(len(reward)) == len(reward) - 1})
        for episode, reward in rewards.items()
    ]
    stated = [{"episode": given.episode, "start": given.start, "end": given.end} for given in ranges]
    compose(target, pieces, Edit("mark-success", {"ranges": stated, "cut_after": cut_after}), _ADDED)
    return _remarks(rewards)


def _remarks(rewards: dict[int, np.ndarray]) -> tuple[str, ...]:
    early = [episode for episode, reward in rewards.items() if reward.any() and not reward[-1]]
    none = [episode for episode, reward in rewards.items() if not reward.any()]
    found = []
    if early:
        found.append(
            f"in episodes {early} the success ends before the episode does: what follows counts as failure, and the end as a time-out. "
            "Mark until the last frame, or cut what follows with --cut-after"
        )
    if none:
        found.append(f"episodes without success: {none}; they count as failures")
    return tuple(found)


def _csv_rows(file: Path, text: str) -> Iterable[tuple[str, dict[str, Any]]]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip() and not line.lstrip().startswith("#")]
    header = [name.strip().lower() for name in next(csv.reader([lines[0][1]]))] if lines else []
    if not set(COLUMNS) <= set(header):
        line = lines[0][0] if lines else 1
        raise DatasetError(f"{file}: line {line}: the header is {','.join(header) or 'missing'}, expected {','.join(COLUMNS)}.")
    for number, content in lines[1:]:
        cells = next(csv.reader([content]))
        row: dict[str, Any] = dict(zip(header, cells, strict=False))
        if len(cells) > len(header):
            row["episode"] = f"{content.strip()} ({len(cells)} cells, expected {len(header)})"
        yield f"{file}: line {number}", row


def _json_rows(file: Path, text: str) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}: is not valid JSON: {error.msg} at line {error.lineno}.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f'{file}: expected a list of objects such as [{{"episode": 0, "start": 40, "end": 55}}].')
    for number, row in enumerate(rows, start=1):
        unknown = sorted(set(row) - set(COLUMNS))
        yield f"{file}: entry {number}", row if not unknown else row | {"episode": f"beside unknown keys {unknown}"}
