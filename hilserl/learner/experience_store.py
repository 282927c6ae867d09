"""What the actors sent, kept on disk as the buffers hold it, so that a restart loads it instead of making it anew.

A folder of append-only files: `steps` has what each step says besides its observations, `<part>` each observation
as it is stored (features of a frozen encoder, not the image), in the order of arrival, and `copy.<part>` those that a
person's actions took to the offline buffer; `store.json` describes them. Everything is raw, little-endian, and checked
chunk by chunk (CRC-32). Observations that no buffer can hold any more are dropped; steps (some 60 bytes each) stay,
because the buffers' book-keeping is repeated from the first on.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.data.observation_storage import ArraySpec
from hilserl.data.row_file import OnDamage, RowFile, RowPosition
from hilserl.errors import CacheError, CheckpointError
from hilserl.files import write_json
from hilserl.link.messages import Step

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
_HEADER = "store.json"
_AT_ONCE = 2048  # steps whose observations are in memory together


class ExperienceStore:
    """Append-only steps and observations of one run.

    Args:
        folder: Made when something is written. What lies there already is kept until `rewind`, or removed by `clear`.
        parts: What an observation consists of.
        action_dim: A.
    """

    def __init__(self, folder: Path, parts: Mapping[str, ArraySpec], action_dim: int) -> None:
        self.folder = folder
        self._parts = dict(parts)
        self._action_dim = action_dim
        self._header = {
            "format_version": FORMAT_VERSION,
            "action_dim": action_dim,
            "parts": {name: {"shape": list(spec.stored_shape), "dtype": spec.dtype} for name, spec in parts.items()},
        }
        self._steps: RowFile | None = None
        self._observations: dict[str, RowFile] = {}
        self._copies: dict[str, RowFile] = {}
        self._actors: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        """Whether it is known where the next row goes."""
        return self._steps is not None

    def clear(self) -> None:
        """Start empty; an earlier process's rows that no checkpoint pinned are removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write_json(self.folder / _HEADER, self._header)
        self._open_files()

    def _open_files(self) -> list[RowFile]:
        self._steps = RowFile(self.folder / "steps.rows", _steps_dtype(self._action_dim))
        self._observations, self._copies = (
            {
                name: RowFile(self.folder / f"{prefix}{name}.rows", np.dtype(spec.dtype).newbyteorder("<"), spec.stored_shape)
                for name, spec in self._parts.items()
            }
            for prefix in ("", "copy.")
        )
        return self._files()

    def _files(self) -> list[RowFile]:
        return [*([self._steps] if self._steps else []), *self._observations.values(), *self._copies.values()]

    def add_step(self, actor_id: str, step: Step) -> None:
        """Append what a step says besides its observations."""
        assert self._steps is not None
        has_final = step.final_observation is not None
        number = self._actors.setdefault(actor_id, len(self._actors))
        flags = (step.terminated, step.truncated, step.is_intervention, has_final)
        row = (number, step.episode, step.step, self._arrived, *flags, step.reward, step.action)
        self._steps.append(np.array(row, _steps_dtype(self._action_dim)))

    @property
    def _arrived(self) -> int:
        return next(iter(self._observations.values())).position.rows

    def add_observation(self, observation: Mapping[str, Any]) -> None:
        """Append one observation as it is stored."""
        for name, file in self._observations.items():
            file.append(observation[name])

    def add_copy(self, observation: Mapping[str, Any]) -> None:
        """Append one observation that the offline buffer keeps too."""
        for name, file in self._copies.items():
            value = observation[name]
            file.append(value.cpu().numpy() if hasattr(value, "cpu") else value)  # where it is stored on a GPU

    def position(self) -> dict[str, Any]:
        """Return how far the files are written, JSON-able."""
        assert self._steps is not None
        return {
            "steps": astuple(self._steps.position),
            "observations": {name: astuple(file.position) for name, file in self._observations.items()},
            "copies": {name: astuple(file.position) for name, file in self._copies.items()},
            "actors": list(self._actors),
        }

    def sync(self) -> None:
        """Make what was appended durable; may be called from another thread.

        Raises:
            CacheError: The disk is full.
        """
        for file in self._files():
            file.sync()

    def drop_before(self, observation: int, copy: int) -> None:
        """Delete what lies before an observation and before a copy, whole segments at a time; may be called from another thread."""
        for files, first in ((self._observations, observation), (self._copies, copy)):
            for file in files.values():
                file.drop_before(first)

    def close(self) -> None:
        """Flush and close the files; what a full disk does not take is in the link's journal."""
        for file in self._files():
            try:
                file.close()
            except (CacheError, OSError) as error:
                logger.warning("The end of %s is not kept, and is made anew from the journal: %s", file.path, error)

    def rewind(self, position: Mapping[str, Any]) -> None:
        """Go on at `position`, and cut off what was appended behind it.

        Raises:
            CheckpointError: The store is not there, ends before it, or holds other observations.
        """
        try:
            header = json.loads((self.folder / _HEADER).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.folder / _HEADER}: cannot be read ({error}); the checkpoint's experience is lost.") from None
        if differences := [name for name in self._header if header.get(name) != self._header[name]]:
            name = differences[0]
            raise CheckpointError(
                f"{self.folder / _HEADER}: `{name}` is {header.get(name)!r}, this configuration and program have {self._header[name]!r}. "
                "Start a new run with `--fresh`."
            )
        self._open_files()
        assert self._steps is not None
        self._steps.rewind(RowPosition(*position["steps"]))
        for name, file in self._observations.items():
            file.rewind(RowPosition(*position["observations"][name]))
        for name, file in self._copies.items():
            file.rewind(RowPosition(*position["copies"][name]))
        self._actors = {actor: number for number, actor in enumerate(position["actors"])}

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Read all steps in order, with the actor of each; observations are empty.

        Raises:
            CheckpointError: The file is damaged.
        """
        for rows in self._step_rows(None):
            yield from self._steps_of(rows)

    def _step_rows(self, on_damage: OnDamage | None) -> Iterator[np.ndarray]:
        assert self._steps is not None
        for _, rows in self._steps.read(np.arange(self._steps.position.rows), on_damage):
            yield rows

    def _steps_of(self, rows: np.ndarray) -> Iterator[tuple[str, Step]]:
        actors = list(self._actors)
        names = [name for name in rows.dtype.names if name not in ("action", "observation")]
        actions, columns = rows["action"].copy(), (rows[name].tolist() for name in names)
        for actor, episode, step, terminated, truncated, is_intervention, has_final, reward, action in zip(*columns, actions, strict=True):
            final: Mapping[str, np.ndarray] | None = {} if has_final else None
            yield actors[actor], Step(episode, step, {}, action, reward, terminated, truncated, is_intervention, final)

    def observations(self, name: str, numbers: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Read one part of many observations, counted from 0 in the order of arrival; see `RowFile.read`."""
        return self._observations[name].read(numbers)

    def copies(self, name: str, numbers: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Read one part of many copies, counted from 0 in the order in which they were made; see `RowFile.read`."""
        return self._copies[name].read(numbers)

    def whole_steps(self, position: Mapping[str, Any], oldest: int) -> Iterator[tuple[str, Step, list[dict[str, np.ndarray]]]]:
        """Read what of a damaged store is whole: each step whose observations can be read, with them as they are stored.

        Args:
            position: Of a checkpoint; files that end before it are read as far as they go.
            oldest: Number of the oldest observation that is wanted.

        Yields:
            Actor, step, and its observation; behind it the final one, where the episode ended.
        """
        self._actors = {actor: number for number, actor in enumerate(position["actors"])}
        for file in self._open_files():
            file.pin(RowPosition(*_position_of(position, file.path.stem)))
        for rows in self._step_rows(lambda first, last: None):
            wanted = rows[rows["observation"] >= oldest]
            for start in range(0, len(wanted), _AT_ONCE):
                yield from self._whole(wanted[start : start + _AT_ONCE])

    def _whole(self, rows: np.ndarray) -> Iterator[tuple[str, Step, list[dict[str, np.ndarray]]]]:
        counts = 1 + rows["has_final"].astype(np.int64)
        numbers = np.repeat(rows["observation"], counts) + (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))
        found = {name: np.empty((len(numbers), *spec.stored_shape), spec.dtype) for name, spec in self._parts.items()}
        is_whole = np.ones(len(numbers), bool)
        for name, file in self._observations.items():
            is_read = np.zeros(len(numbers), bool)
            reachable = int(np.searchsorted(numbers, file.position.rows))
            for where, values in file.read(numbers[:reachable], lambda first, last: None):
                found[name][where], is_read[where] = values, True
            is_whole &= is_read
        first = 0
        for (actor, step), count in zip(self._steps_of(rows), map(int, counts), strict=True):
            if is_whole[first : first + count].all():
                yield actor, step, [{name: values[at] for name, values in found.items()} for at in range(first, first + count)]
            first += count

    def move_aside(self) -> ExperienceStore:
        """Move the folder out of the way of a new store, and return it as it is there."""
        aside = self.folder.with_name(self.folder.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(aside)
        return ExperienceStore(aside, self._parts, self._action_dim)


def _position_of(position: Mapping[str, Any], stem: str) -> list[int]:
    if stem == "steps":
        return list(position["steps"])
    return list(position["copies"][stem[5:]] if stem.startswith("copy.") else position["observations"][stem])


def _steps_dtype(action_dim: int) -> np.dtype:
    return np.dtype(
        [
            ("actor", "<i4"),
            ("episode", "<i8"),
            ("step", "<i8"),
            ("observation", "<i8"),
            ("terminated", "?"),
            ("truncated", "?"),
            ("is_intervention", "?"),
            ("has_final", "?"),
            ("reward", "<f8"),
            ("action", "<f4", (action_dim,)),
        ]
    )
