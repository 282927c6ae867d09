"""Time `sample(256)` with random shift, beside LeRobot 0.6.1's and beside copying the same bytes.

    uv run python benchmarks/sampling.py
    uv run python benchmarks/sampling.py --json sampling.json

At each image size, one camera, observation and next observation: our `ReplayBuffer.sample` (uint8, shifted),
LeRobot's `lerobot.rl.buffer.ReplayBuffer.sample` (float32 storage, as it is by default: its DrQ shift compiled
by torch, where a C++ compiler is found, and the same without compiling), and `np.take` of the images alone
(`plain copy`). All in one process on one thread, one after the other in every repeat, in a new order each time,
so that whatever else runs on the machine meets them alike: trust the ratios more than the milliseconds.

Beside them, without a peer: the state alone, and features of a frozen ResNet, maps of 512x4x4 in half precision with four
stored views, of which each sample shows one; half of each batch from one buffer and half from another that share their
storage, as the learner samples.

Limits (exit 1 when missed): at least 5 times as fast as the faster of LeRobot's two, at most 2 times the plain copy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hilserl.data.augment import SHIFT_PX
from hilserl.data.observation_storage import HostStorage
from hilserl.data.replay import ArraySpec, ReplayBuffer, gather

BATCH, STATE, ACTION = 256, 18, 4
CAPACITIES = {84: 20_000, 128: 10_000}  # LeRobot's observations and next observations then take 3.4 and 3.9 GB
KEY = "observation.images.front"
AT_LEAST_LEROBOT, AT_MOST_COPY = 5.0, 2.0
OURS, COPY, COMPILED, EAGER = "ours, shifted", "plain copy (np.take)", "LeRobot, compiled", "LeRobot, not compiled"


def make_ours(images: np.ndarray) -> Callable[[], object]:
    """Fill our buffer with the images, in one long episode."""
    parts = {"observation.state": ArraySpec((STATE,), "float32"), KEY: ArraySpec(images.shape[1:], "uint8", SHIFT_PX)}
    buffer = ReplayBuffer(len(images), parts, ACTION)
    state, action = np.zeros(STATE, np.float32), np.zeros(ACTION, np.float32)
    rows = [buffer.add_observation({"observation.state": state, KEY: image}) for image in images]
    for row in rows[:-1]:
        buffer.add_transition(row, row + 1, action=action, reward=0.0, terminated=False)
    generator = np.random.default_rng(0)
    return lambda: buffer.sample(BATCH, generator)


def make_copy(images: np.ndarray) -> Callable[[], object]:
    """Copy what a batch holds: the images of random rows, and those of the rows behind them."""
    generator = np.random.default_rng(1)

    def copy() -> object:
        rows = generator.integers(0, len(images) - 1, BATCH)
        return np.take(images, rows, axis=0), np.take(images, rows + 1, axis=0)

    return copy


def make_lerobot(images: np.ndarray) -> dict[str, Callable[[], object]]:
    """Fill LeRobot's buffer with the images, and wrap its `sample` with and without the compiled augmentation.

    Its tensors are filled directly after the first `add` has made them: 20,000 calls would only take longer.
    """
    from lerobot.rl.buffer import ReplayBuffer as LeRobotBuffer
    from lerobot.rl.buffer import random_shift

    buffer = LeRobotBuffer(len(images), device="cpu", state_keys=["observation.state", KEY])
    first = {"observation.state": torch.zeros(1, STATE), KEY: torch.zeros(1, 3, *images.shape[1:3])}
    buffer.add(first, torch.zeros(1, ACTION), 0.0, first, done=False, truncated=False)
    for stored in (buffer.states, buffer.next_states):
        stored["observation.state"].zero_()
        for start in range(0, len(images), 256):
            chunk = torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2)
            torch.div(chunk, 255, out=stored[KEY][start : start + 256])
    for tensor in (buffer.actions, buffer.rewards, buffer.dones, buffer.truncateds):
        tensor.zero_()
    buffer.size = len(images)
    compiled = buffer.image_augmentation_function

    def sample_with(augmentation: Callable[..., torch.Tensor]) -> Callable[[], object]:
        def sample() -> object:
            buffer.image_augmentation_function = augmentation
            return buffer.sample(BATCH)

        return sample

    ways = {COMPILED: sample_with(compiled), EAGER: sample_with(random_shift)}
    started = time.perf_counter()
    try:
        ways[COMPILED]()
        print(f"  LeRobot's first call compiled for {time.perf_counter() - started:.1f} s (not counted)")
    except Exception as error:  # whatever torch.compile misses on this machine, LeRobot's default does not run here
        print(f"  {COMPILED}: left out, torch.compile failed here ({type(error).__name__})")
        del ways[COMPILED]
    return ways


def make_halves(spec: ArraySpec | None, capacity: int) -> Callable[[], object]:
    """Fill two buffers that share their storage, and draw half of the batch from each."""
    parts = {"observation.state": ArraySpec((STATE,), "float32")} | ({KEY: spec} if spec else {})
    storage = HostStorage(2 * capacity, parts)
    halves = [ReplayBuffer(capacity, parts, ACTION, storage=storage, first_row=first) for first in (0, capacity)]
    action = np.zeros(ACTION, np.float32)
    observation = {name: np.ones(part.stored_shape, part.dtype) for name, part in parts.items()}
    for buffer in halves:
        rows = [buffer.add_observation(observation) for _ in range(capacity)]
        for row in rows[:-1]:
            buffer.add_transition(row, row + 1, action=action, reward=0.0, terminated=False)
    generator = np.random.default_rng(0)
    return lambda: gather(storage, [buffer.draw(BATCH // 2, generator) for buffer in halves])


def run_without_peer(repeats: int) -> dict:
    """Measure what LeRobot's buffer has no counterpart of, print its table and return its figures."""
    print(f"\nhalf and half of two buffers, batch {BATCH}")
    maps = ArraySpec((512, 4, 4), "float16", views=4)
    times = measure({"state only": make_halves(None, 10_000), "ResNet maps, 4 views": make_halves(maps, 5_000)}, repeats)
    for name, values in times.items():
        print(f"  {name:24} {statistics.median(values):5.2f} ms {min(values):5.2f} ms {max(values):5.2f} ms   (median, min, max)")
    return times


def measure(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time each way once a repeat [ms]."""
    order = list(ways)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 2):
        random.Random(repeat).shuffle(order)
        for name in order:
            start = time.perf_counter()
            batch = ways[name]()
            elapsed = (time.perf_counter() - start) * 1e3
            del batch
            if repeat > 1:  # the first two warm up
                times[name].append(elapsed)
    return times


def run_size(size: int, capacity: int, repeats: int) -> dict:
    """Measure one image size, print its table and return its figures."""
    print(f"\n{size}x{size}, {capacity:,} transitions, batch {BATCH}, {2 * BATCH * size * size * 3 / 1e6:.1f} MB of uint8 a batch")
    block = np.random.default_rng(0).integers(0, 256, (500, size, size, 3), np.uint8)
    images = np.concatenate([block] * -(-capacity // len(block)))[:capacity]
    times = measure({OURS: make_ours(images), COPY: make_copy(images), **make_lerobot(images)}, repeats)
    ratios = {name: [other / ours for other, ours in zip(times[name], times[OURS], strict=True)] for name in times}
    print(f"  {'':24} {'median':>8} {'min':>8} {'max':>8}   time / ours: median (quartiles)")
    for name, values in times.items():
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        print(
            f"  {name:24} {statistics.median(values):5.2f} ms {min(values):5.2f} ms {max(values):5.2f} ms"
            f"   {middle:6.2f} ({low:.2f}-{high:.2f})"
        )
    lerobot = min(statistics.median(ratios[name]) for name in (COMPILED, EAGER) if name in ratios)
    copies = 1 / statistics.median(ratios[COPY])
    limits = {
        "times_as_fast_as_lerobot": {"measured": lerobot, "limit": AT_LEAST_LEROBOT, "passed": lerobot >= AT_LEAST_LEROBOT},
        "times_the_plain_copy": {"measured": copies, "limit": AT_MOST_COPY, "passed": copies <= AT_MOST_COPY},
    }
    for name, limit in limits.items():
        sign = "at least" if name.endswith("lerobot") else "at most"
        verdict = "passed" if limit["passed"] else "MISSED"
        print(f"  {verdict}: {name.replace('_', ' ')}: {limit['measured']:.2f} ({sign} {limit['limit']:g})")
    return {"size": size, "capacity": capacity, "milliseconds": times, "limits": limits}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(CAPACITIES))
    parser.add_argument("--capacity", type=int, help="transitions; by default 20,000 at 84 and 10,000 at 128 pixels")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; one thread"
    print(f"{machine}; Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}")
    results = [run_size(size, arguments.capacity or CAPACITIES.get(size, 10_000), arguments.repeats) for size in arguments.sizes]
    without_peer = run_without_peer(arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "batch": BATCH, "sizes": results, "others": without_peer}, indent=1))
    return 0 if all(limit["passed"] for result in results for limit in result["limits"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
