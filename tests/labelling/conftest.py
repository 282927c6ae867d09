from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium_testing import Browser, chromium

from hilserl.data.writer import EpisodeWriter

HEIGHT, WIDTH, EPISODES, FRAMES = 96, 128, 4, 12


def number_picture(number: int) -> np.ndarray:
    """Eight vertical bars, the bits of a number, that survive two lossy compressions."""
    image = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    for bit in range(8):
        image[:, bit * 16 : bit * 16 + 16] = 220 if number >> bit & 1 else 30
    return image


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four encoded episodes of two cameras; every frame shows its number, on the second camera a hundred more. Never changed by a test."""
    root = tmp_path_factory.mktemp("recorded") / "cups"
    camera = {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.images.wrist": camera,
        "observation.images.front": camera,
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    }
    with EpisodeWriter(root, "test/cups", features, 10) as writer:
        for episode in range(EPISODES):
            for frame in range(FRAMES):
                number = episode * FRAMES + frame
                images = {"observation.images.wrist": number_picture(number), "observation.images.front": number_picture(number + 100)}
                state = np.array([episode, frame], np.float32)
                writer.add_frame({**images, "observation.state": state}, state, task="stack the cups")
            writer.save_episode()
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one
