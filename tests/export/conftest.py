from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hilserl.config.loader import load_config
from hilserl.data.preprocess import Preprocessor
from hilserl.export.source import PolicySource
from hilserl.policy import Policy, PolicyArchitecture

SMALL = {"policy.hidden_dims": [16, 16], "policy.latent_dim": 8}
CROPPED = {  # a camera whose frame is cropped, not resized
    "robot.cameras.wrist.width": 96,
    "robot.cameras.wrist.height": 72,
    "observation.images.wrist": {"crop": [5, 20, 60, 64], "resize": [60, 64]},
}
RESIZED = {
    "robot.cameras.wrist.width": 160,
    "robot.cameras.wrist.height": 120,
    "observation.images.wrist": {"crop": [10, 20, 100, 110], "resize": [60, 64]},
}
TRAINED = {"encoder.freeze": False}

MakeSource = Callable[..., PolicySource]


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """Make a small policy of a shipped configuration, with weights far from a fresh network's, saved and read again."""

    def make(config: str, **overrides: Any) -> PolicySource:
        settings = load_config(config, {**SMALL, **overrides})
        policy = Policy(PolicyArchitecture.from_config(settings), Preprocessor.from_config(settings))
        generator = torch.Generator().manual_seed(3)
        tensors = {}
        for name, tensor in policy.tensors().items():
            noise = torch.randn(tensor.shape, generator=generator)
            # A half range is positive, some of them small beside their centre, as joints that hardly move have.
            tensors[name] = (noise.abs() * 0.3 + 0.005) if name.endswith("half_range") else 0.3 * noise
        policy.load_tensors(tensors, 1)
        folder = tmp_path / "policy"
        policy.save(folder, {"weights_version": 1, "task": config, "environment_steps": 123, "episodes": 20, "successes": 18})
        return PolicySource.read(folder)

    return make
