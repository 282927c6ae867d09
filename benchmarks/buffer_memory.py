"""Count the bytes that a replay buffer allocates, beside LeRobot 0.6.1's with `optimize_memory=True`.

    uv run python benchmarks/buffer_memory.py
    uv run python benchmarks/buffer_memory.py --cameras 1 --size 84 --json memory.json

Both sides make their real buffers, and the sizes of all their arrays are added up: observations, actions, rewards and
book-keeping. Nothing is written to them, so the system gives no memory for most of it. LeRobot keeps images as
float32, and with `optimize_memory` the next observation is the next row's, which is wrong at the end of an episode;
without it the buffer takes twice as much. Ours keeps uint8 images, or features of a frozen encoder.

Limit (exit 1 when missed): images take at most 0.2505 of LeRobot's. A quarter is the images alone; the rest is the
state, and the book-keeping that finds the true next observation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from hilserl.data.augment import SHIFT_PX
from hilserl.data.replay import ArraySpec, ReplayBuffer

AT_MOST = 0.2505
FEATURE_MAP, FEATURES = (512, 4, 4), (70,)


def our_bytes(capacity: int, cameras: int, spec: ArraySpec, state: int, action: int) -> int:
    """Make our buffer and add up its arrays."""
    parts = {"observation.state": ArraySpec((state,), "float32")} | {f"camera{number}": spec for number in range(cameras)}
    buffer = ReplayBuffer(capacity, parts, action)
    return buffer.storage.nbytes + buffer.bookkeeping_nbytes


def lerobot_bytes(capacity: int, cameras: int, size: int, state: int, action: int) -> int:
    """Make LeRobot's buffer with its first transition, and add up its tensors."""
    from lerobot.rl.buffer import ReplayBuffer as LeRobotBuffer

    keys = [f"observation.images.camera{number}" for number in range(cameras)]
    buffer = LeRobotBuffer(capacity, device="cpu", state_keys=["observation.state", *keys], use_drq=False, optimize_memory=True)
    first = {"observation.state": torch.zeros(1, state)} | {key: torch.zeros(1, 3, size, size) for key in keys}
    buffer.add(first, torch.zeros(1, action), 0.0, first, done=False, truncated=False)
    assert buffer.next_states is buffer.states
    tensors = [*buffer.states.values(), buffer.actions, buffer.rewards, buffer.dones, buffer.truncateds, buffer.episode_ends]
    return sum(tensor.nbytes for tensor in tensors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, default=100_000, help="transitions")
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="of an image [px]")
    parser.add_argument("--state", type=int, default=18)
    parser.add_argument("--action", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    capacity, cameras, size = arguments.capacity, arguments.cameras, arguments.size
    dimensions = (arguments.state, arguments.action)
    theirs = lerobot_bytes(capacity, cameras, size, *dimensions)
    print(f"{capacity:,} transitions, {cameras} camera(s) of {size}x{size}, state {arguments.state}, action {arguments.action}")
    print(f"  LeRobot, optimize_memory {theirs:16,} bytes")
    image = "uint8 images"
    kinds = {image: ArraySpec((size, size, 3), "uint8", SHIFT_PX)}
    kinds |= {f"ResNet maps {FEATURE_MAP}, float16, {views} view(s)": ArraySpec(FEATURE_MAP, "float16", views=views) for views in (1, 2, 4)}
    kinds |= {f"features {FEATURES}, float32, 1 view": ArraySpec(FEATURES, "float32")}
    results = {"lerobot": theirs}
    for name, spec in kinds.items():
        results[name] = our_bytes(capacity, cameras, spec, *dimensions)
        print(f"  ours, {results[name]:16,} bytes, {results[name] / theirs:.5f} of LeRobot's: {name}")
    passed = results[image] / theirs <= AT_MOST
    print(f"  {'passed' if passed else 'MISSED'}: {image}: {results[image] / theirs:.5f} of LeRobot's (at most {AT_MOST})")
    if arguments.json:
        arguments.json.write_text(json.dumps({"settings": vars(arguments) | {"json": None}, "bytes": results}, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
