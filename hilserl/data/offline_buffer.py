"""The offline buffer, opened for reading: what the learner starts from.

Rows are control steps, in the order of the datasets and their episodes. A row is a usable transition when
it is terminated or has a next row. The last step of a truncated episode has no next observation, and what
was recorded after a classifier's success is no part of the task: both are left out (counted in the manifest).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from hilserl.data.manifest import OfflineBufferManifest
from hilserl.data.normalize import StateNormalizer
from hilserl.data.shards import COLUMNS, ShardRecord, shard_folder
from hilserl.errors import CacheError
from hilserl.schema import IMAGE_PREFIX


@dataclass(frozen=True, eq=False)
class OfflineShard:
    """Some episodes of a buffer; arrays are memory-mapped, read-only, n rows. No next row lies outside.

    Attributes:
        weight: How often a transition of it is drawn, relative to 1.
        images: uint8, shape (n, H, W, 3), by image key with prefix.
        columns: Structured array of `shards.columns_dtype`, shape (n,).
    """

    weight: float
    images: Mapping[str, np.ndarray]
    columns: np.ndarray

    @property
    def transition_rows(self) -> np.ndarray:
        """Rows that are usable transitions, int64, ascending."""
        return np.flatnonzero(self.columns["terminated"] | self.columns["has_next"])

    @property
    def next_rows(self) -> np.ndarray:
        """Row of the next observation of every transition, int64; a terminated one names itself (never bootstrapped)."""
        rows = self.transition_rows
        return np.where(self.columns["has_next"][rows], rows + 1, rows)


@dataclass(frozen=True, eq=False)
class OfflineBuffer:
    """A buffer opened for reading. Shards are mapped when they are reached, so opening costs the same at any size.

    The properties named as columns hold all N rows in memory, for looking at small buffers.

    Attributes:
        manifest: What it holds.
    """

    manifest: OfflineBufferManifest

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a buffer that `get_or_build` or `verify_offline_buffer` found good.

        Raises:
            CacheError: There is no readable manifest.
        """
        return cls(OfflineBufferManifest.read(folder))

    def shards(self) -> Iterator[OfflineShard]:
        """Map one shard after the other, in order.

        Raises:
            CacheError: A file is missing or has another shape.
        """
        for source in self.manifest.sources:
            for key in source.shards:
                yield self._map(self.manifest.shards[key], source.weight)

    @property
    def normalizer(self) -> StateNormalizer:
        """Scaling of the state, fitted on all rows."""
        return StateNormalizer.from_dict(self.manifest.normalizer)

    @cached_property
    def columns(self) -> np.ndarray:
        """All rows but the images, as `OfflineShard.columns`; `episode` counts from 0 over the whole buffer."""
        parts, first = [], 0
        for shard in self.shards():
            part = np.array(shard.columns)
            part["episode"] += first
            first = int(part["episode"][-1]) + 1
            parts.append(part)
        return np.concatenate(parts)

    @cached_property
    def images(self) -> dict[str, np.ndarray]:
        """All images, uint8, shape (N, H, W, 3), by image key with prefix."""
        shards = list(self.shards())
        return {key: np.concatenate([shard.images[key] for shard in shards]) for key in shards[0].images}

    @property
    def transition_rows(self) -> np.ndarray:
        """Rows that are usable transitions, int64, ascending."""
        return np.flatnonzero(self.columns["terminated"] | self.columns["has_next"])

    def _map(self, record: ShardRecord, weight: float) -> OfflineShard:
        folder = shard_folder(self.manifest.shard_store, record.key)
        arrays = {}
        for name in record.files:
            try:
                arrays[name] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise CacheError(f"{folder / name}: {error}. Run the same command again: the shard is converted anew.") from error
            if len(arrays[name]) != record.rows:
                raise CacheError(f"{folder / name} has {len(arrays[name])} rows, the manifest says {record.rows}. Delete {folder}.")
        images = {name.removesuffix(".npy"): array for name, array in arrays.items() if name.startswith(IMAGE_PREFIX)}
        return OfflineShard(weight, images, arrays[COLUMNS])
