"""Aggregates over seeds, as Agarwal et al. 2021 (arXiv 2108.13264) recommend for few runs; `rliable` computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last axis: a quarter of the scores, rounded down, is cut from either end."""
    ordered, cut = np.sort(scores, axis=-1), scores.shape[-1] // 4
    return ordered[..., cut : scores.shape[-1] - cut].mean(-1)


def mean(scores: np.ndarray) -> np.ndarray:
    return scores.mean(-1)


def bootstrap_interval(
    scores: np.ndarray, statistic: Statistic = interquartile_mean, *, repeats: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `statistic` by the stratified bootstrap: runs are drawn anew within each task.

    Args:
        scores: (runs, tasks).
        statistic: Reduces the last axis of (repeats, runs * tasks).
        repeats: Resamples.
        seed: Of the resampling.
    """
    runs, tasks = scores.shape
    rows = np.random.default_rng(seed).integers(0, runs, (repeats, runs, tasks))
    resampled = scores[rows, np.arange(tasks)].reshape(repeats, -1)
    low, high = np.percentile(statistic(resampled), [2.5, 97.5])
    return float(low), float(high)
