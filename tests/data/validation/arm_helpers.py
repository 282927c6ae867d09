"""An arm that follows its commands, recorded without a camera; and ways to split and damage what was recorded."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
from data_helpers import NATIVE, make_config, update

from hilserl.config.models import TrainConfig
from hilserl.data.writer import EpisodeWriter, policy_features, teleop_features

ARM_LENGTHS = (40, 40, 40)
STEP_M = 0.02
JAW_STEP_RAD = 0.16 * 1.9199  # at |action| = 1
HOME = np.array([0.22, 0.0, 0.12])


def arm_config(root: Path, **dataset: object) -> TrainConfig:
    """A task with a gripper, and a policy without pictures."""
    return update(make_config(root, **dataset), task={"type": "lift"}, observation={"images": {}})


def record_arm(root: Path) -> None:
    """Actions that are carried out within one step, up to a little noise; the jaw opens and closes."""
    config, rng = arm_config(root), np.random.default_rng(3)
    with EpisodeWriter(root, "test/arm", policy_features(config), 10) as writer:
        for length in ARM_LENGTHS:
            tool, joints = HOME.copy(), rng.uniform(-0.3, 0.3, 6)
            joints[5] = 0.8
            previous = joints.copy()
            for frame in range(length):
                action = rng.uniform(-0.9, 0.9, 4)
                action[3] = 0.4 * np.sign(0.8 - joints[5]) if frame % 3 else 0.5 * rng.choice([-1, 1])
                state = np.concatenate([joints, (joints - previous) * 10, tool, joints[:3]]).astype(np.float32)
                writer.add_frame({"observation.state": state}, action.astype(np.float32), float(frame == length - 1), task="lift")
                previous = joints.copy()
                tool = tool + 0.9 * STEP_M * action[:3] + rng.normal(0, 1e-4, 3)
                joints[:5] += rng.normal(0, 0.03, 5)
                joints[5] += 0.9 * JAW_STEP_RAD * action[3]
            writer.save_episode()


def record_leader(root: Path, degrees: bool = True) -> None:
    """Joint targets of a leader arm, reached one frame later."""
    config, rng = arm_config(root), np.random.default_rng(4)
    with EpisodeWriter(root, "test/leader", teleop_features(config), 10) as writer:
        for length in ARM_LENGTHS:
            path = np.array([0, 10, 20, 30, 0, 50]) + np.cumsum(rng.normal(0, 2.0, (length + 1, 6)), axis=0)
            path = path if degrees else np.radians(path)
            for now, target in zip(path[:-1].astype(np.float32), path[1:].astype(np.float32), strict=True):
                writer.add_frame({"observation.state": now}, target, task="lift")
            writer.save_episode()


def shift_actions(root: Path, frames: int) -> None:
    """Pair every action with the observation `frames` later, inside its episode."""
    from data_helpers import edit_frames

    def change(table: pl.DataFrame) -> pl.DataFrame:
        parts = []
        for part in table.partition_by("episode_index", maintain_order=True):
            parts.append(part.with_columns(pl.Series("action", np.roll(part["action"].to_numpy(), frames, axis=0))))
        return pl.concat(parts)

    edit_frames(root, change)


def split_files(root: Path, first: int) -> list[Path]:
    """Move the episodes from `first` on into a second data file, as LeRobot does when a file is full."""
    (path,) = (root / "data").rglob("*.parquet")
    table = pl.read_parquet(path)
    other = path.with_name("file-001.parquet")
    table.filter(pl.col("episode_index") < first).write_parquet(path)
    table.filter(pl.col("episode_index") >= first).write_parquet(other)
    edit_episodes(root, lambda t: t.with_columns((pl.col("episode_index") >= first).cast(pl.Int64).alias("data/file_index")))
    return [path, other]


def edit_episodes(root: Path, change: Any) -> None:
    (path,) = (root / "meta" / "episodes").rglob("*.parquet")
    change(pl.read_parquet(path)).write_parquet(path)


def edit_json(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def video(root: Path) -> Path:
    (path,) = root.rglob("*.mp4")
    return path


def write_video(path: Path, frames: list[np.ndarray], fps: int = 10, codec: str = "libx264", gop: int = 2) -> None:
    """Encode RGB frames, shape (height, width, 3)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"g": str(gop)})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def noise(count: int, size: tuple[int, int] = NATIVE) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for _ in range(count)]
