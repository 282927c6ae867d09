from collections.abc import Callable
from pathlib import Path

import pytest
from vision_testing import SIZES, random_weights, write_model


@pytest.fixture
def make_model(tmp_path) -> Callable[..., Path]:
    """Write a model folder as `save_pretrained` does."""

    def make(kind: str = "resnet", name: str = "model", seed: int = 0) -> Path:
        return write_model(tmp_path / name, SIZES[kind], random_weights(SIZES[kind], seed))

    return make
