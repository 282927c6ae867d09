"""Where the observations of the replay buffers lie, row by row, and how a batch is copied out of them.

Rows and random choices (shift, view) are drawn by the caller, so that every kind of storage gives the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hilserl.data.augment import ShiftableImages, random_shifts

Choices = Mapping[str, np.ndarray]  # by part: shifts down and right (2, B), or a view (B,); no entry where nothing is random


@dataclass(frozen=True)
class ArraySpec:
    """One observation part in storage.

    Attributes:
        shape: Without the row axis.
        dtype: NumPy's name of it.
        shift_px: Largest random shift of a sampled image [px]; 0: sampled as stored. Needs uint8 (H, W, C).
        views: K. More than 1: stored as (K, *shape), of which every sample shows one at random.
    """

    shape: tuple[int, ...]
    dtype: str
    shift_px: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        assert not self.shift_px or (self.dtype == "uint8" and len(self.shape) == 3), "only uint8 images (H, W, C) can be shifted"
        assert self.views == 1 or not self.shift_px, "views are augmented already"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one row in storage."""
        return self.shape if self.views == 1 else (self.views, *self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in storage."""
        return int(np.prod(self.stored_shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def choose(self, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Draw what is random about `count` samples of this part; None where nothing is."""
        if self.shift_px:
            return random_shifts(self.shift_px, count, generator)
        return generator.integers(0, self.views, count) if self.views > 1 else None


def choose(parts: Mapping[str, ArraySpec], count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the random choices of `count` observations, part by part in order."""
    drawn = {name: spec.choose(count, generator) for name, spec in parts.items()}
    return {name: choice for name, choice in drawn.items() if choice is not None}


class ObservationStorage(Protocol):
    """N rows of named parts."""

    @property
    def parts(self) -> Mapping[str, ArraySpec]:
        """What an observation consists of."""

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""

    def write(self, row: int, observation: Mapping[str, Any]) -> None:
        """Store one observation."""

    def read(self, row: int) -> dict[str, Any]:
        """Return the observation of one row, as `write` takes it."""

    def load(self, name: str, rows: slice | np.ndarray, values: np.ndarray) -> None:
        """Store one part of many rows, (n, *stored_shape)."""

    def gather(self, rows: np.ndarray, choices: Choices) -> dict[str, Any]:
        """Copy observations out, each part (B, *shape), with the given shifts and views.

        Args:
            rows: int64, (B,).
            choices: Of `choose`.
        """


class HostStorage:
    """Storage in main memory; gathers NumPy arrays. Memory is taken by the system as rows are written.

    Args:
        capacity: N.
        parts: What an observation consists of.
    """

    def __init__(self, capacity: int, parts: Mapping[str, ArraySpec]) -> None:
        self.parts = dict(parts)
        self._images: dict[str, ShiftableImages] = {}
        self._arrays: dict[str, np.ndarray] = {}  # views of one row lie behind each other: (N * K, *shape)
        for name, spec in parts.items():
            if spec.shift_px:
                height, width, channels = spec.shape
                self._images[name] = ShiftableImages(capacity, (height, width, channels), spec.shift_px)
                self._arrays[name] = self._images[name].images
            else:
                self._arrays[name] = np.zeros((capacity * spec.views, *spec.shape), spec.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(self._images[name].nbytes if name in self._images else array.nbytes for name, array in self._arrays.items())

    def write(self, row: int, observation: Mapping[str, Any]) -> None:
        """Store one observation."""
        for name, array in self._arrays.items():
            views = self.parts[name].views
            array[row * views : (row + 1) * views] = observation[name]

    def read(self, row: int) -> dict[str, Any]:
        """Return the observation of one row, as `write` takes it."""
        return {name: self._rows(name)[row] for name in self._arrays}

    def load(self, name: str, rows: slice | np.ndarray, values: np.ndarray) -> None:
        """Store one part of many rows, (n, *stored_shape)."""
        self._rows(name)[rows] = values

    def gather(self, rows: np.ndarray, choices: Choices) -> dict[str, Any]:
        """Copy observations out, each part (B, *shape)."""
        gathered = {}
        for name, array in self._arrays.items():
            if name in self._images:
                gathered[name] = self._images[name].shifted(rows, *choices[name])
            else:
                views = self.parts[name].views
                gathered[name] = np.take(array, rows if views == 1 else rows * views + choices[name], axis=0)
        return gathered

    def _rows(self, name: str) -> np.ndarray:
        return self._arrays[name].reshape(-1, *self.parts[name].stored_shape)
