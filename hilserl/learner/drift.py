"""Do the cameras still see what they saw in the demonstrations? Light that changed ruins a policy before anything else shows it.

Compared are the first pictures of episodes, where the arm stands at its start in both: later ones depend on where the policy goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.schema import IMAGE_PREFIX

Array = NDArray[np.floating[Any]]

_WINDOW = 20  # episodes
_FEWEST = 5
_LEAST_SPREAD = 6.0  # grey levels: less is a change that nobody sees


@dataclass(frozen=True, eq=False)
class Look:
    """How one camera's pictures were in the demonstrations.

    Attributes:
        mean: Of red, green, blue and contrast over the episodes' first pictures, in grey levels of 255, shape (4,).
        spread: Standard deviation from episode to episode, at least six levels, shape (4,).
    """

    mean: Array
    spread: Array


class ImageDrift:
    """Compares the first pictures of the last episodes with the demonstrations', camera by camera.

    Args:
        demonstrated: By image key with prefix; empty: there is nothing to compare with.
    """

    def __init__(self, demonstrated: Mapping[str, Look] | None = None) -> None:
        self._demonstrated = dict(demonstrated or {})
        self._seen: dict[str, deque[Array]] = {key: deque(maxlen=_WINDOW) for key in self._demonstrated}

    @classmethod
    def from_demonstrations(cls, buffer: OfflineBuffer | None) -> ImageDrift:
        """Look at the first picture of every episode of a buffer."""
        looks: dict[str, list[Array]] = {}
        for shard in [] if buffer is None else buffer.shards():
            starts = np.flatnonzero(np.diff(shard.columns["episode"], prepend=-1))
            for key, images in shard.images.items():
                looks.setdefault(key, []).extend(_look(images[row]) for row in starts)
        return cls({key: _spread(np.stack(found)) for key, found in looks.items()})

    def add(self, observation: Mapping[str, np.ndarray], step: int) -> None:
        """Take the pictures of one step, uint8 (H, W, 3), and its number in the episode; only the first is looked at."""
        if step:
            return
        for key, seen in self._seen.items():
            if key in observation:
                seen.append(_look(observation[key]))

    def metrics(self) -> dict[str, float]:
        """Return how far each camera is from the demonstrations, in their standard deviations, and the farthest."""
        found = {}
        for key, seen in self._seen.items():
            if len(seen) >= _FEWEST:
                look = self._demonstrated[key]
                found[f"drift/{key.removeprefix(IMAGE_PREFIX)}"] = float(np.abs((np.mean(seen, axis=0) - look.mean) / look.spread).max())
        return {**found, "drift/images": max(found.values())} if found else {}


def _look(image: np.ndarray) -> Array:
    """Return the mean of each colour and the contrast of a picture, shape (4,)."""
    small = image[::4, ::4].astype(np.float32)
    return np.append(small.mean((0, 1)), small.mean(2).std())


def _spread(looks: Array) -> Look:
    return Look(looks.mean(0), np.maximum(looks.std(0), _LEAST_SPREAD))
