"""The dataset of `offline_buffer.py`: made once, and copies of it that differ in one thing."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import polars as pl

from hilserl.config.models import TrainConfig
from hilserl.data.writer import EpisodeWriter, teleop_features

HEIGHT, WIDTH, SIZE = 480, 640, 84
CAMERA = "front"
KEY = f"observation.images.{CAMERA}"


def benchmark_config(root: Path, **policy: float) -> TrainConfig:
    """Train on `root` as a user would: joint-space teleoperation, success at the end, one camera at 84x84."""
    return TrainConfig.model_validate(
        {
            "robot": {"cameras": {CAMERA: {"height": HEIGHT, "width": WIDTH}}},
            "observation": {"images": {CAMERA: {"resize": [SIZE, SIZE]}}},
            "dataset": {"root": str(root), "action_from": "joints", "reward_from": "success_at_end"},
            "policy": policy,
        }
    )


def make_dataset(root: Path, frames: int, episodes: int) -> None:
    """Record through LeRobot's writer, with its own encoder settings (libsvtav1, crf 30, GOP 2): no reward, no done.

    Frames are a window that wanders over a large textured picture, with a disc that moves in it: every block of
    every frame changes, as with a camera on the wrist. Joints are slow sines; the action is where they go next.
    """
    config = benchmark_config(root)
    rng = np.random.default_rng(0)
    texture = _texture(rng)
    number = 0
    with EpisodeWriter(root, "benchmark/teleop", teleop_features(config), config.robot.control_hz) as writer:
        for episode in range(episodes):
            length = (frames * (episode + 1)) // episodes - number
            joints = _joints(rng, length + 1)
            for step in range(length):
                observation = {"observation.state": joints[step], KEY: _frame(texture, number)}
                writer.add_frame(observation, joints[step + 1], task="lift the cube")
                number += 1
            writer.save_episode()
            print(f"\r  recording: {number:,} of {frames:,} frames", end="", flush=True)
    print()


def _texture(rng: np.random.Generator) -> np.ndarray:
    fine, coarse = rng.integers(0, 256, (1200, 1600, 3), np.uint8), rng.integers(0, 256, (60, 80, 3), np.uint8)
    blurred = cv2.GaussianBlur(fine, (0, 0), 3.0).astype(np.float32)
    large = cv2.resize(coarse, (1600, 1200), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return np.clip(128 + 3.0 * (blurred - 128) + 0.6 * (large - 128), 0, 255).astype(np.uint8)


def _frame(texture: np.ndarray, number: int) -> np.ndarray:
    height, width = texture.shape[:2]
    top = round((height - HEIGHT) * (0.5 + 0.5 * math.sin(number / 37)))
    left = round((width - WIDTH) * (0.5 + 0.5 * math.sin(number / 53)))
    frame = texture[top : top + HEIGHT, left : left + WIDTH].copy()
    centre = (round(320 + 250 * math.sin(number / 11)), round(240 + 180 * math.cos(number / 17)))
    cv2.circle(frame, centre, 40, (220, 40, 40), -1)
    return frame


def _joints(rng: np.random.Generator, count: int) -> np.ndarray:
    """Smooth joint positions in LeRobot's units, shape (count, 6)."""
    time = np.arange(count)[:, None] / 10
    middle, amplitude = np.array([0, -20, 30, 40, 0, 50]), np.array([12, 8, 8, 8, 15, 40])
    period_s, phase = rng.uniform(4, 9, 6), rng.uniform(0, 2 * np.pi, 6)
    return (middle + amplitude * np.sin(2 * np.pi * time / period_s + phase)).astype(np.float32)


def copy_with_one_byte_changed(root: Path, copy: Path) -> None:
    """Copy a dataset and change one byte of a video that no picture depends on: in the name of the program that wrote it."""
    _copy(root, copy)
    path = sorted((copy / "videos").rglob("*.mp4"))[0]
    start, stop = _index_of_video(path)
    _flip(path, path.read_bytes().index(b"Lavf", start, stop) + 4)


def _index_of_video(path: Path) -> tuple[int, int]:
    """Return where the box `moov` of an MP4 file lies, which holds no picture."""
    data, start = path.read_bytes(), 0
    while start < len(data):
        size, name = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16])
        if name == b"moov":
            return start, start + size
        start += size
    raise ValueError(f"{path}: no moov")


def copy_with_one_picture_damaged(root: Path, copy: Path) -> int:
    """Copy a dataset and change one byte of an encoded picture, which AV1's decoder notices; return the picture's frame."""
    import av

    _copy(root, copy)
    path = sorted((copy / "videos").rglob("*.mp4"))[0]
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    frame = len(packets) // 2
    position, size = packets[frame]
    _flip(path, position + size // 2)
    return frame


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        before = file.read(1)[0]
        file.seek(place)
        file.write(bytes([before ^ 1]))


def copy_with_one_episode_changed(root: Path, copy: Path, episode: int) -> None:
    """Copy a dataset and scale the actions of one episode by a tenth of a percent."""
    _copy(root, copy)
    for path in sorted((copy / "data").rglob("*.parquet")):
        table = pl.read_parquet(path)
        if episode not in table["episode_index"]:
            continue
        action = table["action"].to_numpy().copy()
        action[(table["episode_index"] == episode).to_numpy()] *= 0.999
        table.with_columns(pl.Series("action", action, dtype=table.schema["action"])).write_parquet(path)


def copy_of_size(root: Path, copy: Path, size_bytes: int) -> None:
    """Repeat a dataset's files under new numbers until it is as large as wanted; every table agrees."""
    _copy(root, copy)
    info_file = copy / "meta" / "info.json"
    info = json.loads(info_file.read_text())
    videos, tables = sorted((copy / "videos").rglob("*.mp4")), sorted((copy / "data").rglob("*.parquet"))
    (episodes_file,) = sorted((copy / "meta" / "episodes").rglob("*.parquet"))
    times = max(1, math.ceil(size_bytes / sum(path.stat().st_size for path in (*videos, *tables))))
    episodes, frames, count = pl.read_parquet(episodes_file), info["total_frames"], info["total_episodes"]
    parts = [episodes]
    for time in range(1, times):
        shifts = {"data/file_index": time * len(tables), f"videos/{KEY}/file_index": time * len(videos)}
        shifts |= {"episode_index": time * count, "dataset_from_index": time * frames, "dataset_to_index": time * frames}
        parts.append(_added(episodes, shifts))
        for path in videos:
            shutil.copyfile(path, _numbered(path, time * len(videos)))
        for path in tables:
            _added(pl.read_parquet(path), {"episode_index": time * count, "index": time * frames}).write_parquet(
                _numbered(path, time * len(tables))
            )
    pl.concat(parts).write_parquet(episodes_file)
    info |= {"total_frames": times * frames, "total_episodes": times * count, "splits": {"train": f"0:{times * count}"}}
    info_file.write_text(json.dumps(info))


def _added(table: pl.DataFrame, shifts: dict[str, int]) -> pl.DataFrame:
    return table.with_columns((pl.col(name) + shift).cast(table.schema[name]) for name, shift in shifts.items())


def _numbered(path: Path, shift: int) -> Path:
    return path.with_stem(f"file-{int(path.stem.removeprefix('file-')) + shift:03d}")


def _copy(root: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root, copy)
