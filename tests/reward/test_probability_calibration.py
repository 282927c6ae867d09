"""A claimed probability means what it says, and the threshold keeps what was promised."""

import numpy as np
import pytest

from hilserl.reward.calibration import fit_platt, precision_recall, reliability
from hilserl.reward.train import choose_threshold


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_platt_finds_the_scale_and_offset_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 40_000)
    truth = rng.random(40_000) < sigmoid(0.5 * logits - 1.0)
    scale, offset = fit_platt(logits, truth)
    assert (scale, offset) == pytest.approx((0.5, -1.0), abs=0.04)
    told = sigmoid(scale * logits + offset)
    assert reliability(told, truth).error < 0.01 < reliability(sigmoid(logits), truth).error


def test_what_is_told_apart_without_error_does_not_become_certain() -> None:
    scale, offset = fit_platt(np.array([-2.0] * 10 + [2.0] * 10), np.array([False] * 10 + [True] * 10))
    assert sigmoid(np.array(scale * 2.0 + offset)) == pytest.approx(11 / 12, abs=1e-3)
    assert fit_platt(np.array([1.0, 2.0]), np.array([True, True])) == (1.0, 0.0)


def test_reliability_and_precision_are_counted_by_hand() -> None:
    told, truth = np.array([0.05, 0.05, 0.95, 0.95]), np.array([False, True, True, True])
    found = reliability(told, truth)
    np.testing.assert_allclose(found.claimed, [0.05, 0.95])
    np.testing.assert_allclose(found.happened, [0.5, 1.0])
    assert found.error == pytest.approx(0.25) and found.brier == pytest.approx((0.05**2 + 0.95**2 + 2 * 0.05**2) / 4)
    recall, precision, at = precision_recall(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, True]))
    np.testing.assert_allclose(recall, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(precision, [1, 2 / 3, 3 / 4])
    np.testing.assert_allclose(at, [0.9, 0.8, 0.1])


def test_the_threshold_is_the_strictest_that_the_stated_rate_needs() -> None:
    """Half the successes look like the worst failure: finding them all would call a tenth of the failures success."""
    truth = [np.array([False] * 10 + [True] * 10)]
    told = [np.array([0.1] * 9 + [0.62] + [0.62] * 5 + [0.95] * 5)]
    assert choose_threshold(told, truth, 20) == 0.5
    lenient, strict = (choose_threshold(told, truth, 3, false_positive_rate=rate) for rate in (0.2, 0.005))
    assert lenient <= 0.62 < strict <= 0.95
    assert choose_threshold([np.full(4, 0.99999)], [np.zeros(4, bool)], 1, false_positive_rate=0.005) == 0.9999  # nothing is strict enough


def test_a_failed_episode_that_would_be_rewarded_counts_by_itself() -> None:
    """Three frames of a thousand are few, and a whole episode."""
    quiet = [np.full(100, 0.1) for _ in range(10)]
    failed = np.full(100, 0.1)
    failed[50:53] = 0.7
    good = np.concatenate([np.full(50, 0.1), np.full(50, 0.9)])
    truth = [np.zeros(100, bool)] * 11 + [np.arange(100) >= 50]
    assert 0.7 < choose_threshold([*quiet, failed, good], truth, 3, false_positive_rate=0.005) <= 0.9
