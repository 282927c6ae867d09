"""Small real datasets, and ways to damage them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from hilserl.config.models import TrainConfig
from hilserl.data.writer import EpisodeWriter
from hilserl.schema import policy_schema, state_components

NATIVE = (96, 128)  # height, width
BITS = 8  # frame identity, painted as black and white blocks
LENGTHS = (6, 8, 7, 8)
REWARDED = (0, 1, 2)  # episode 3 ran out of time


def make_config(root: Path | str | None = "unused", **dataset: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "robot": {"cameras": {"wrist": {"height": NATIVE[0], "width": NATIVE[1]}}},
            "observation": {"images": {"wrist": {"crop": [0, 16, 96, 96], "resize": [48, 48]}}},
            "dataset": {"root": None if root is None else str(root), **dataset},
        }
    )


def update(config: TrainConfig, **parts: dict) -> TrainConfig:
    """Change single fields, validated."""
    value = config.model_dump()
    for part, changes in parts.items():
        value[part].update(changes)
    return TrainConfig.model_validate(value)


def paint(number: int) -> np.ndarray:
    """A frame that shows its number in eight vertical bars, on a slope of colour."""
    height, width = NATIVE
    frame = np.empty((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(40, 200, width, dtype=np.uint8)
    frame[..., 1] = np.linspace(200, 60, height, dtype=np.uint8)[:, None]
    frame[..., 2] = 128
    for bit in range(BITS):
        frame[: height // 2, bit * 16 : bit * 16 + 16] = 255 if number >> bit & 1 else 0
    return frame


def number_in(frame: np.ndarray) -> int:
    """Read what `paint` wrote, after lossy compression."""
    return sum(int(frame[24, bit * 16 + 8].mean() > 127) << bit for bit in range(BITS))


def states(rng: np.random.Generator, config: TrainConfig, count: int) -> np.ndarray:
    limits = np.array([part.limit for part in state_components(config) for _ in part.labels])
    return (rng.uniform(-0.5, 0.5, (count, len(limits))) * limits).astype(np.float32)


def joints(rng: np.random.Generator, count: int) -> np.ndarray:
    """Smooth joint positions in LeRobot's units, shape (count, 6)."""
    start = np.array([0, 10, 20, 30, 0, 50])
    return (start + np.cumsum(rng.uniform(-2, 2, (count, 6)), axis=0)).astype(np.float32)


def record_policy(root: Path, config: TrainConfig, features: dict, lengths: tuple[int, ...] = LENGTHS) -> None:
    rng = np.random.default_rng(0)
    number = 0
    with EpisodeWriter(root, "test/demos", features, 10) as writer:
        for episode, length in enumerate(lengths):
            state = states(rng, config, length)
            for frame in range(length):
                action = rng.uniform(-1, 1, len(config.action_names)).astype(np.float32)
                reward = float(frame == length - 1 and episode in REWARDED)
                observation = {"observation.state": state[frame], "observation.images.wrist": paint(number)}
                writer.add_frame(observation, action, reward, task="reach the cube")
                number += 1
            writer.save_episode()


def record_teleop(root: Path, features: dict) -> None:
    rng = np.random.default_rng(1)
    number = 0
    with EpisodeWriter(root, "test/teleop", features, 10) as writer:
        for length in LENGTHS[:2]:
            position = joints(rng, length + 1)
            for frame in range(length):
                observation = {"observation.state": position[frame], "observation.images.wrist": paint(number)}
                writer.add_frame(observation, position[frame + 1], task="reach the cube")
                number += 1
            writer.save_episode()


def edit_frames(root: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    (path,) = (root / "data").rglob("*.parquet")
    change(pl.read_parquet(path)).write_parquet(path)


def edit_info(root: Path, change: Callable[[dict], None]) -> None:
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def drop_feature(root: Path, key: str) -> None:
    edit_frames(root, lambda table: table.drop(key))
    edit_info(root, lambda info: info["features"].pop(key))


def set_column(root: Path, key: str, values: np.ndarray) -> None:
    """Replace one column, keeping its type."""

    def change(table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(pl.Series(key, values, dtype=table.schema[key]))

    edit_frames(root, change)


class ToyArm:
    """A `JointConverter` with arithmetic that a test can redo by hand: the tool is 1 cm a degree of the first three joints."""

    version = "toy-1"

    def __init__(self, config: TrainConfig) -> None:
        self._actions = len(config.action_names)
        self._states = policy_schema(config).observation["observation.state"].shape[0]

    def radians(self, joints: np.ndarray) -> np.ndarray:
        return np.radians(joints)

    def lerobot_units(self, joints_rad: np.ndarray) -> np.ndarray:
        return np.degrees(joints_rad)

    def state(self, joint_pos: np.ndarray) -> np.ndarray:
        velocity = np.diff(joint_pos, axis=0, prepend=joint_pos[:1]) * 10
        parts = np.concatenate([np.radians(joint_pos), np.radians(velocity), joint_pos[:, :3] * 0.01, np.radians(joint_pos[:, 3:])], axis=1)
        return parts[:, : self._states]

    def actions(self, joint_pos: np.ndarray, joint_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        action = (joint_target - joint_pos)[:, : self._actions] * 0.4
        return action, np.abs(joint_target[:, 5] - joint_pos[:, 5]) * 1e-3
