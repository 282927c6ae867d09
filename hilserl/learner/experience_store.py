"""What the actors sent, kept on disk as the buffers hold it, so that a restart loads it instead of making it anew.

A folder of append-only files: `steps.rows` has what each step says besides its observations, `<part>.rows` each
observation as it is stored (features of a frozen encoder, not the image), in the order of arrival; `store.json`
describes them. Everything is raw, little-endian, and checked chunk by chunk (CRC-32).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.data.observation_storage import ArraySpec
from hilserl.data.row_file import RowFile, RowPosition
from hilserl.errors import CheckpointError
from hilserl.files import write_json
from hilserl.link.messages import Step

FORMAT_VERSION = 1
_HEADER = "store.json"


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
        self._actors: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        """Whether it is known where the next row goes."""
        return self._steps is not None

    def clear(self) -> None:
        """Start empty; an earlier process's rows that no checkpoint pinned are removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / _HEADER, self._header)
        for file in self._open_files():
            file.rewind(RowPosition(0, 0))

    def _open_files(self) -> list[RowFile]:
        self._steps = RowFile(self.folder / "steps.rows", _steps_dtype(self._action_dim))
        self._observations = {
            name: RowFile(self.folder / f"{name}.rows", np.dtype(spec.dtype).newbyteorder("<"), spec.stored_shape)
            for name, spec in self._parts.items()
        }
        return [self._steps, *self._observations.values()]

    def add_step(self, actor_id: str, step: Step) -> None:
        """Append what a step says besides its observations."""
        assert self._steps is not None
        has_final = step.final_observation is not None
        number = self._actors.setdefault(actor_id, len(self._actors))
        flags = (step.terminated, step.truncated, step.is_intervention, has_final)
        self._steps.append(np.array((number, step.episode, step.step, *flags, step.reward, step.action), _steps_dtype(self._action_dim)))

    def add_observation(self, observation: Mapping[str, Any]) -> None:
        """Append one observation as it is stored."""
        for name, file in self._observations.items():
            file.append(observation[name])

    def position(self) -> dict[str, Any]:
        """Return how far the files are written, JSON-able."""
        assert self._steps is not None
        return {
            "steps": astuple(self._steps.position),
            "observations": {name: astuple(file.position) for name, file in self._observations.items()},
            "actors": list(self._actors),
        }

    def sync(self) -> None:
        """Make what was appended durable; may be called from another thread.

        Raises:
            CacheError: The disk is full.
        """
        assert self._steps is not None
        for file in (self._steps, *self._observations.values()):
            file.sync()

    def close(self) -> None:
        """Flush and close the files."""
        for file in (self._steps, *self._observations.values()):
            if file is not None:
                file.close()

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
        self._actors = {actor: number for number, actor in enumerate(position["actors"])}

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Read all steps in order, with the actor of each; observations are empty.

        Raises:
            CheckpointError: The file is damaged.
        """
        assert self._steps is not None
        actors = list(self._actors)
        for _, rows in self._steps.read(np.arange(self._steps.position.rows)):
            actions, columns = rows["action"].copy(), (rows[name].tolist() for name in rows.dtype.names if name != "action")
            for actor, episode, step, terminated, truncated, is_intervention, has_final, reward, action in zip(
                *columns, actions, strict=True
            ):
                final: Mapping[str, np.ndarray] | None = {} if has_final else None
                yield actors[actor], Step(episode, step, {}, action, reward, terminated, truncated, is_intervention, final)

    def observations(self, name: str, numbers: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Read one part of many observations, counted from 0 in the order of arrival; see `RowFile.read`."""
        return self._observations[name].read(numbers)


def _steps_dtype(action_dim: int) -> np.dtype:
    return np.dtype(
        [
            ("actor", "<i4"),
            ("episode", "<i8"),
            ("step", "<i8"),
            ("terminated", "?"),
            ("truncated", "?"),
            ("is_intervention", "?"),
            ("has_final", "?"),
            ("reward", "<f8"),
            ("action", "<f4", (action_dim,)),
        ]
    )
