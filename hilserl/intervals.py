"""How far a measured rate or mean can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def wilson_interval(successes: int, trials: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a success rate (Wilson 1927); 95 % with the default z.

    Args:
        successes: Number of successes.
        trials: Number of trials, at least 1.
        z: Quantile of the standard normal distribution.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    rate = successes / trials
    denominator = 1 + z * z / trials
    center = (rate + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / denominator
    return max(0.0, center - half), min(1.0, center + half)


def mean_interval(values: Sequence[float], *, repeats: int = 10_000) -> tuple[float, float]:
    """Confidence interval (95 %) of a mean by the percentile bootstrap (Efron 1979); repeatable.

    Args:
        values: At least one.
        repeats: Resamples.
    """
    sample = np.asarray(values, np.float64)
    rows = np.random.default_rng(0).integers(0, len(sample), (repeats, len(sample)))
    low, high = np.percentile(sample[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)
