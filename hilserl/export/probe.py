"""Observations on which an exported policy is compared with the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hilserl.errors import CheckpointError
from hilserl.policy import Policy
from hilserl.schema import IMAGE_PREFIX, STATE_KEY

Observation = dict[str, np.ndarray]
_OUTSIDE = 3.0  # states up to this many half ranges off the centre: a live arm leaves the demonstrations' range


@dataclass(frozen=True)
class Comparison:
    """How well two policies agree.

    Attributes:
        observations: How many were compared.
        max_abs_difference: Largest difference of any action component.
    """

    observations: int
    max_abs_difference: float

    def __str__(self) -> str:
        return f"largest action difference {self.max_abs_difference:.1e} over {self.observations} observations"


def probe_observations(policy: Policy, count: int, *, seed: int = 0) -> list[Observation]:
    """Make native observations: states of the demonstrations' range and beyond, images of blocks and of noise.

    Args:
        policy: Says names, sizes and the range of the state.
        count: How many.
        seed: Of the generator.
    """
    generator = np.random.default_rng(seed)
    scaling = policy.networks.scaling
    center, half_range = scaling.center.cpu().numpy(), scaling.half_range.cpu().numpy()
    made: list[Observation] = []
    for index in range(count):
        reach = 1.0 if index % 2 else _OUTSIDE
        observation: Observation = {}
        for key, feature in policy.preprocessor.schema.observation.items():
            if key == STATE_KEY:
                observation[key] = (center + generator.uniform(-reach, reach, feature.shape) * half_range).astype(np.float32)
            else:
                observation[key] = _picture(
                    policy.preprocessor.views[key.removeprefix(IMAGE_PREFIX)].native, generator, noise=index % 3 == 0
                )
        made.append(observation)
    return made


def _picture(size: tuple[int, int], generator: np.random.Generator, *, noise: bool) -> np.ndarray:
    """Make a uint8 RGB picture of (height, width): pixels at random, or smooth colours."""
    height, width = size
    if noise:
        return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    blocks = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_LINEAR)


def compare(
    ours: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    theirs: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    observations: Sequence[Observation],
    *,
    tolerance: float,
    what: str,
) -> Comparison:
    """Compare two policies' actions.

    Raises:
        CheckpointError: They differ by more than `tolerance`, or in shape.
    """
    worst = 0.0
    for observation in observations:
        expected, got = ours(observation), theirs(observation)
        if got.shape != expected.shape:
            raise CheckpointError(f"{what} returns actions of shape {got.shape}, the policy {expected.shape}. Nothing was written.")
        difference = np.abs(got - expected).max()
        if not difference <= tolerance:  # also where it is not a number
            raise CheckpointError(
                f"{what} differs from the policy by {difference:.1e} in an action, more than {tolerance:.0e}. Nothing was written. "
                "This is a defect of the export: please report it with the versions of torch, lerobot and onnxruntime."
            )
        worst = max(worst, float(difference))
    return Comparison(len(observations), worst)
