"""What both systems of benchmarks/link.py do the same way."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

CAMERAS, SIZE, HZ = ("wrist", "front"), 128, 10.0
WEIGHTS = {f"layer{n}": (256, 200) for n in range(6)}  # 1.2 MB of float32


def weights_now() -> dict[str, np.ndarray]:
    """Return random weights that say when they were published."""
    random = np.random.default_rng()
    weights = {name: random.standard_normal(shape, np.float32) for name, shape in WEIGHTS.items()}
    return weights | {"published_at": np.array([time.monotonic()])}


def at_control_rate(steps: int, work: Callable[[int], None]) -> None:
    """Call `work(number)` `steps` times."""
    begin = time.monotonic()
    for number in range(steps):
        time.sleep(max(0.0, begin + number / HZ - time.monotonic()))
        work(number)
