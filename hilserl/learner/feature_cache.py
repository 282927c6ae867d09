"""Features of the demonstrations' images, kept on disk: a pretrained encoder needs minutes for them on a CPU.

One folder per shard of the offline buffer, named by the hash of all that decides its content: the shard, the
encoders' tensors and code, the number of views and the seed of their shifts.
"""

from __future__ import annotations

import inspect
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from hilserl.data.observation_storage import ArraySpec
from hilserl.errors import CacheError
from hilserl.files import atomic_directory, content_hash, home, write_json
from hilserl.link.messages import weights_hash

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_RECORD = "features.json"


def encoders_hash(encoders: Mapping[str, nn.Module]) -> str:
    """Identify encoders by their tensors, and by the code of their classes."""
    identities = {}
    for camera, encoder in encoders.items():
        tensors = {name: tensor.detach().cpu().float().numpy() for name, tensor in encoder.state_dict().items()}
        identities[camera] = [weights_hash(tensors), inspect.getsource(type(encoder)), repr(encoder)]
    return content_hash(identities)


class FeatureCache:
    """Features by shard.

    Args:
        encoders: Frozen, by camera.
        parts: Storage of each camera's features.
        seed: Decides the shifts of the views.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], parts: Mapping[str, ArraySpec], seed: int) -> None:
        self._parts = {camera: parts[camera] for camera in encoders}
        self._identity = {
            "format_version": FORMAT_VERSION,
            "encoders": encoders_hash(encoders),
            "parts": {camera: [spec.stored_shape, spec.dtype] for camera, spec in self._parts.items()},
            "seed": seed if any(spec.views > 1 for spec in self._parts.values()) else None,
        }

    def get(
        self, shard_key: str, rows: int, encode: Callable[[], Iterable[tuple[slice, Mapping[str, np.ndarray]]]]
    ) -> dict[str, np.ndarray]:
        """Return the features of one shard, read-only, each (rows, *stored_shape); they are computed if they are not there.

        Args:
            shard_key: Hash of the shard's content.
            rows: Its rows.
            encode: Computes the features, some rows at a time.

        Raises:
            CacheError: The disk is full.
        """
        folder = home() / "features" / content_hash([shard_key, rows, self._identity])
        try:
            return self._read(folder, rows)
        except CacheError as error:
            if folder.exists():
                logger.warning("%s; it is computed again", error)
        with atomic_directory(folder) as temporary:
            arrays = {
                camera: np.memmap(temporary / f"{camera}.raw", spec.dtype, "w+", shape=(rows, *spec.stored_shape))
                for camera, spec in self._parts.items()
            }
            for where, features in encode():
                for camera, array in arrays.items():
                    array[where] = features[camera]
            checksums = {camera: _checksum(array) for camera, array in arrays.items()}
            for array in arrays.values():
                array.flush()
            write_json(temporary / _RECORD, {"shard": shard_key, "rows": rows, **self._identity, "crc32": checksums})
        return self._read(folder, rows)

    def _read(self, folder: Path, rows: int) -> dict[str, np.ndarray]:
        try:
            record = json.loads((folder / _RECORD).read_text())
            arrays: dict[str, np.ndarray] = {
                camera: np.memmap(folder / f"{camera}.raw", spec.dtype, "r", shape=(rows, *spec.stored_shape))
                for camera, spec in self._parts.items()
            }
            if damaged := [camera for camera, array in arrays.items() if _checksum(array) != record["crc32"][camera]]:
                raise CacheError(f"{folder / damaged[0]}.raw does not match its checksum")
        except (OSError, ValueError, KeyError) as error:
            raise CacheError(f"{folder} cannot be read ({error!r})") from None
        return arrays


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
