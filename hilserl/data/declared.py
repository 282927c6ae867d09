"""Scaling of the state where there are no demonstrations to take it from."""

from __future__ import annotations

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.normalize import StateNormalizer
from hilserl.schema import state_components


def declared_normalizer(config: TrainConfig) -> StateNormalizer:
    """Scale each scalar of a Gymnasium environment's state from its bounds to [-1, 1]; without both bounds, leave it as it is.

    Args:
        config: With the environment's spaces in it.
    """
    assert config.env is not None and config.env.spaces is not None, "the SO-101's scaling comes from its demonstrations"
    names = tuple(scalar for component in state_components(config) for scalar in component.scalars)
    vectors = [config.env.spaces.vectors[name] for name in config.observation.state]
    bounds = [pair for vector in vectors for pair in zip(vector.low, vector.high, strict=True)]
    center, half_range = np.zeros(len(names), np.float32), np.ones(len(names), np.float32)
    for index, (low, high) in enumerate(bounds):
        if low is not None and high is not None and low < high:
            center[index], half_range[index] = (low + high) / 2, (high - low) / 2
    return StateNormalizer(names, center, half_range)
