"""Datasets in which a person could see success: a lamp that lights up, between things that move."""

from pathlib import Path

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.writer import EpisodeWriter, policy_features
from hilserl.schema import state_components

NATIVE = (64, 96)  # height, width
CROP = (0, 16, 64, 64)
EPISODES = 14
LENGTH = 14


def make_config(root: Path, **dataset: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "robot": {"cameras": {"wrist": {"height": NATIVE[0], "width": NATIVE[1]}}},
            "observation": {"images": {"wrist": {"crop": list(CROP), "resize": [48, 48]}}},
            "dataset": {"root": str(root), **dataset},
        }
    )


def paint(rng: np.random.Generator, lit: bool) -> np.ndarray:
    """A frame whose lamp, in the lower middle, is red when it is lit; a blue square is anywhere in the upper half."""
    frame = np.full((*NATIVE, 3), 90, np.uint8)
    frame[..., 1] = np.linspace(60, 160, NATIVE[1], dtype=np.uint8)
    y, x = rng.integers(0, 18), rng.integers(0, 80)
    frame[y : y + 12, x : x + 12] = (20, 40, 220)
    frame[40:54, 44:58] = (230, 40, 30) if lit else (50, 50, 50)
    return frame


def lit_frames(lamp: str, seed: int = 0) -> np.ndarray:
    """Frames of one episode: `lamp` has `#` where the lamp is lit; uint8, shape (T, H, W, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack([paint(rng, sign == "#") for sign in lamp])


def lamps(episodes: int = EPISODES, seed: int = 0) -> list[str]:
    """Every fourth episode fails; the others are lit from somewhere in their second half until they end."""
    rng = np.random.default_rng(seed)
    starts = [LENGTH if number % 4 == 3 else int(rng.integers(LENGTH // 2, LENGTH - 4)) for number in range(episodes)]
    return ["." * start + "#" * (LENGTH - start) for start in starts]


def record(root: Path, shown: list[str], seed: int = 0, marked: list[str] | None = None) -> Path:
    """Record episodes through LeRobot's writer; `next.reward` is 1 where `marked`, by default where the lamp is lit."""
    rng, config = np.random.default_rng(seed), make_config(root)
    limits = np.array([part.limit for part in state_components(config) for _ in part.labels])
    with EpisodeWriter(root, "test/lamp", policy_features(config), 10) as writer:
        for lamp, marks in zip(shown, marked or shown, strict=True):
            for sign, mark in zip(lamp, marks, strict=True):
                state = (rng.uniform(-0.5, 0.5, len(limits)) * limits).astype(np.float32)
                action = rng.uniform(-1, 1, len(config.action_names)).astype(np.float32)
                observation = {"observation.state": state, "observation.images.wrist": paint(rng, sign == "#")}
                writer.add_frame(observation, action, float(mark == "#"), task="light the lamp")
            writer.save_episode()
    return root
