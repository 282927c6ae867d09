"""From a network's opinion to a probability that means what it says (Platt 1999)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEPS = 100
_RIDGE = 1e-6
_LARGEST_LOGIT = 30.0


@dataclass(frozen=True)
class Reliability:
    """How often something happened of which a probability was claimed.

    Attributes:
        claimed: Mean probability of each bin that is not empty, shape (n,).
        happened: Share of successes in it, shape (n,).
        counts: Frames in it, shape (n,).
        error: Mean distance of the two, weighted by frames (expected calibration error).
        brier: Mean squared error of the probability.
    """

    claimed: np.ndarray
    happened: np.ndarray
    counts: np.ndarray
    error: float
    brier: float


def fit_platt(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Fit scale and offset so that `sigmoid(scale * logit + offset)` is the probability, by Newton's method.

    Targets are smoothed as Platt did: a set that is told apart without error does not make it infinitely certain.

    Args:
        logits: Shape (N,).
        truth: bool, shape (N,).

    Returns:
        Scale, positive, and offset; (1, 0) where a class is missing or the logits say nothing.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return 1.0, 0.0
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([np.clip(logits.astype(np.float64), -_LARGEST_LOGIT, _LARGEST_LOGIT), np.ones(len(logits))], 1)
    weights = np.array([1.0, 0.0])
    loss = _loss(design @ weights, target)
    for _ in range(_STEPS):
        told = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (told - target)
        curvature = (design * (told * (1 - told))[:, None]).T @ design + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and (new := _loss(design @ (weights - size * step), target)) > loss:
            size /= 2
        if size <= 1e-6 or loss - new < 1e-12:
            break
        weights, loss = weights - size * step, new
    scale, offset = float(weights[0]), float(weights[1])
    return (scale, offset) if scale > 0 and np.isfinite([scale, offset]).all() else (1.0, 0.0)


def reliability(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> Reliability:
    """Compare claimed probabilities with what was true, in bins of equal width."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    used = counts > 0
    claimed = np.bincount(place, probability, bins)[used] / counts[used]
    happened = np.bincount(place, truth, bins)[used] / counts[used]
    error = float((np.abs(claimed - happened) * counts[used]).sum() / len(truth))
    return Reliability(claimed, happened, counts[used], error, float(((probability - truth) ** 2).mean()))


def precision_recall(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return recall, precision and threshold at each distinct probability, from the highest down, shape (n,) each."""
    order = np.argsort(-probability, kind="stable")
    last = np.flatnonzero(np.append(np.diff(probability[order]) != 0, True))
    found = np.cumsum(truth[order])[last]
    return found / max(1, int(truth.sum())), found / (last + 1), probability[order][last]


def _loss(logits: np.ndarray, target: np.ndarray) -> float:
    return float((np.logaddexp(0, logits) - target * logits).sum())
