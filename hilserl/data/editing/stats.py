"""Statistics of an episode and of a dataset, in LeRobot's layout.

LeRobot's own functions estimate quantiles from histograms and take seconds to import; these are exact
within an episode. Over episodes both weigh quantiles by length, as there is no better way without the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_IMAGE_SAMPLES = 100
_IMAGE_SIDE_PX = 150

FeatureStats = dict[str, np.ndarray]


def column_stats(values: np.ndarray) -> FeatureStats:
    """Describe the rows of one column, shape (T,) or (T, ...): each statistic has a row's shape, at least (1,)."""
    rows = np.asarray(values, np.float64)
    rows = rows.reshape(len(rows), 1) if rows.ndim == 1 else rows
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True)),
    }


def image_stats(frames: Sequence[np.ndarray]) -> FeatureStats:
    """Describe uint8 RGB frames, shape (H, W, 3): per channel, in 0-1, each of shape (3, 1, 1)."""
    step = max(1, max(frames[0].shape[:2]) // _IMAGE_SIDE_PX)
    pixels = np.stack([frame[::step, ::step] for frame in frames]).reshape(-1, 3) / 255.0
    stats = {name: value.reshape(3, 1, 1) for name, value in column_stats(pixels).items() if name != "count"}
    return stats | {"count": np.array([len(frames)])}


def sampled(length: int) -> list[int]:
    """Choose the frames of an episode of `length` frames that its image statistics are computed from."""
    return sorted(set(np.linspace(0, length - 1, min(length, _IMAGE_SAMPLES)).round().astype(int).tolist()))


def dataset_stats(episodes: Sequence[Mapping[str, FeatureStats]]) -> dict[str, dict[str, Any]]:
    """Combine the statistics of episodes, feature by feature, as nested lists for `meta/stats.json`.

    Features and quantiles that an episode lacks are left out.
    """
    keys = [key for key in episodes[0] if all(key in episode for episode in episodes)]
    return {key: {name: value.tolist() for name, value in _combined([episode[key] for episode in episodes]).items()} for key in keys}


def _combined(parts: Sequence[FeatureStats]) -> FeatureStats:
    counts = np.array([part["count"].item() for part in parts], np.float64)
    weights = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)

    def weighted(values: np.ndarray) -> np.ndarray:
        return (values * weights).sum(0)

    means, deviations = np.stack([part["mean"] for part in parts]), np.stack([part["std"] for part in parts])
    mean = weighted(means)
    return {
        "min": np.min([part["min"] for part in parts], 0),
        "max": np.max([part["max"] for part in parts], 0),
        "mean": mean,
        "std": np.sqrt(weighted(deviations**2 + (means - mean) ** 2)),
        "count": np.array([int(counts.sum())]),
        **{name: weighted(np.stack([part[name] for part in parts])) for name in QUANTILES if all(name in part for part in parts)},
    }
