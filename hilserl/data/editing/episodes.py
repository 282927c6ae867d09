"""Keep, drop, split and merge whole episodes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.data.dataset import INDEX_KEYS
from hilserl.data.editing.compose import compose, require_new, whole
from hilserl.data.editing.record import Edit
from hilserl.data.editing.tables import Tables
from hilserl.errors import DatasetError
from hilserl.schema import JOINT_NAMES

# No joint of the arm turns further than this in radians; in degrees every real recording does.
_MOST_RAD = 6.5
_LEAST_DEG = 15.0


def parse_numbers(text: str, what: str = "episodes") -> tuple[int, ...]:
    """Read `0-9,12` as numbers, ascending.

    Raises:
        DatasetError: The text is something else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise DatasetError(f"{what} {text!r}: cannot read {part.strip()!r}. Write numbers and ranges, ends included, such as 0-9,12.")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def require_episodes(tables: Tables, episodes: Iterable[int]) -> None:
    """Refuse episodes that a dataset does not have, all at once.

    Raises:
        DatasetError: Names them, and what there is.
    """
    absent = sorted(set(episodes) - set(tables.rows))
    if absent:
        raise DatasetError(f"{tables.name}: has no episode {_short(absent)}. It has {len(tables.rows)}: {_short(sorted(tables.rows))}.")


def keep_episodes(root: Path, episodes: Sequence[int], target: Path) -> None:
    """Write the chosen episodes of a dataset as a new one.

    Raises:
        DatasetError: `target` exists, an episode does not, or the source is damaged.
    """
    require_new(target)
    tables = Tables.open(root)
    require_episodes(tables, episodes)
    _write(target, tables, sorted(set(episodes)), Edit("keep", {"episodes": sorted(set(episodes))}))


def drop_episodes(root: Path, episodes: Sequence[int], target: Path) -> None:
    """Write all but the chosen episodes of a dataset as a new one.

    Raises:
        DatasetError: `target` exists, an episode does not, none would be left, or the source is damaged.
    """
    require_new(target)
    tables = Tables.open(root)
    require_episodes(tables, episodes)
    kept = [episode for episode in sorted(tables.rows) if episode not in set(episodes)]
    if not kept:
        raise DatasetError(f"{root}: all {len(tables.rows)} episodes would be dropped, and a dataset needs one.")
    _write(target, tables, kept, Edit("drop", {"episodes": sorted(set(episodes))}))


def choose_split(tables: Tables, fraction: float | None, episodes: Sequence[int] | None, seed: int) -> tuple[list[int], list[int]]:
    """Choose the episodes of two parts, each in the order of the source.

    Args:
        tables: The source.
        fraction: Share of the episodes that goes to the first part, drawn at random with `seed`.
        episodes: Or the episodes of the first part, by name.
        seed: Seed of the draw.

    Raises:
        DatasetError: A part would be empty, or not exactly one of the two is given.
    """
    everything = sorted(tables.rows)
    if (fraction is None) == (episodes is None):
        raise DatasetError("split: give exactly one of --fraction (drawn at random) and --episodes (those of the first part).")
    if episodes is not None:
        require_episodes(tables, episodes)
        chosen = set(episodes)
    else:
        assert fraction is not None
        count = round(fraction * len(everything))
        chosen = set(np.random.default_rng(seed).permutation(everything)[:count].tolist())
    first = [episode for episode in everything if episode in chosen]
    second = [episode for episode in everything if episode not in chosen]
    if not first or not second:
        raise DatasetError(
            f"{tables.name}: {len(first)} episodes would go to the first part and {len(second)} to the second; each needs at least one. "
            f"There are {len(everything)}."
        )
    return first, second


def split_dataset(
    root: Path, targets: tuple[Path, Path], *, fraction: float | None = None, episodes: Sequence[int] | None = None, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Write two new datasets, each with some of the episodes; returns which.

    Raises:
        DatasetError: A target exists, or as `choose_split`.
    """
    for target in targets:
        require_new(target)
    if targets[0].resolve() == targets[1].resolve():
        raise DatasetError(f"{targets[0]}: both parts have the same name. Give two.")
    tables = Tables.open(root)
    parts = choose_split(tables, fraction, episodes, seed)
    for number, (target, part) in enumerate(zip(targets, parts, strict=True)):
        arguments = {"part": number, "fraction": fraction, "seed": seed if fraction is not None else None, "episodes": part}
        _write(target, tables, part, Edit("split", arguments))
    return parts


def merge_datasets(roots: Sequence[Path], target: Path) -> None:
    """Write the episodes of several datasets one after another; tasks are the same where their text is.

    Raises:
        DatasetError: `target` exists, a source is damaged, or they differ in what their columns are.
    """
    require_new(target)
    if len(roots) < 2:
        raise DatasetError("merge: give at least two datasets.")
    everything = [Tables.open(root) for root in roots]
    differences = [line for tables in everything[1:] for line in _differences(everything[0], tables)]
    if differences:
        raise DatasetError(
            "merge: these datasets cannot be one:\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\nTo train on datasets that differ, list them under `dataset.sources`: each is converted by its own rules."
        )
    pieces = [whole(tables, episode) for tables in everything for episode in sorted(tables.rows)]
    compose(target, pieces, Edit("merge", {"datasets": len(roots)}))


def _write(target: Path, tables: Tables, episodes: Sequence[int], edit: Edit) -> None:
    compose(target, [whole(tables, episode) for episode in episodes], edit)


def _differences(first: Tables, other: Tables) -> list[str]:
    """Say by name in what two datasets differ."""
    a, b, names = first.dataset, other.dataset, (first.name, other.name)
    found = []

    def differ(what: str, mine: Any, theirs: Any) -> None:
        found.append(f"{what}: {mine} in {names[0]}, {theirs} in {names[1]}")

    if a.fps != b.fps:
        differ("frames per second", f"{a.fps:g}", f"{b.fps:g}")
    if a.info.get("robot_type") != b.info.get("robot_type"):
        differ("robot_type", a.info.get("robot_type"), b.info.get("robot_type"))
    for key in [*a.features, *(key for key in b.features if key not in a.features)]:
        if key not in a.features or key not in b.features:
            there = "there is" if key in a.features else "there is none"
            differ(f"`{key}`", there, "there is none" if key in a.features else "there is")
            continue
        if key in INDEX_KEYS:
            continue
        mine, theirs = a.features[key], b.features[key]
        if mine["dtype"] != theirs["dtype"]:
            differ(f"dtype of `{key}`", mine["dtype"], theirs["dtype"])
        if a.shape(key) != b.shape(key):
            differ(f"size of `{key}`", a.shape(key), b.shape(key))
        elif a.names(key) != b.names(key):
            differ(f"names of `{key}`", a.names(key), b.names(key))
        elif mine["dtype"].startswith("float"):
            units = [_joint_unit(tables, key) for tables in (first, other)]
            if {"degrees", "radians"} <= set(units):
                differ(f"unit of `{key}`, by its values", *units)
    return found


def _joint_unit(tables: Tables, key: str) -> str | None:
    """Guess whether the joints of a feature are degrees or radians, from the largest value that was ever met."""
    names = tables.dataset.names(key) or ()
    # The gripper is 0-100 in LeRobot's units, and tells no more than the others.
    joints = [place for place, name in enumerate(names) if any(joint in name for joint in JOINT_NAMES[:-1]) and "vel" not in name]
    if not joints:
        return None
    largest = 0.0
    for episode in tables.rows:
        stats = tables.stats(episode).get(key)
        if stats is not None and len(stats["max"]) == len(names):
            largest = max(largest, float(np.abs([stats["min"], stats["max"]])[:, joints].max()))
    return "radians" if 0 < largest <= _MOST_RAD else "degrees" if largest >= _LEAST_DEG else None


def _short(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ranges: 0-9, 12."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
