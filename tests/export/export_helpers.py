"""What the tests of the export share: small policies whose actions depend on everything they see."""

from pathlib import Path
from typing import Any

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
RESNET = {
    "encoder": {
        "type": "pretrained",
        "model": "somebody/resnet",
        "revision": "0" * 40,
        "network": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "sha256": "0" * 64},
    }
}
TRAINED = {"encoder.freeze": False}


def make_source_in(folder: Path, config: str, **overrides: Any) -> PolicySource:
    """Save a small policy of a shipped configuration, with weights far from a fresh network's, and read it again."""
    settings = load_config(config, {**SMALL, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        policy = Policy(PolicyArchitecture.from_config(settings), Preprocessor.from_config(settings))
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, tensor in policy.tensors().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if not tensor.is_floating_point():
            tensors[name] = tensor
        elif name.endswith("running_var"):
            tensors[name] = 0.5 + noise.abs()
        elif name.endswith("half_range"):  # some of them small beside their centre, as of joints that hardly move
            tensors[name] = 0.3 * noise.abs() + 0.005
        else:
            tensors[name] = tensor + noise * (0.3 if tensor.ndim < 2 else 1.5 / tensor[0].numel() ** 0.5)
    policy.load_tensors(tensors, 1)
    policy.save(folder, {"weights_version": 1, "task": config, "environment_steps": 123, "episodes": 20, "successes": 18})
    return PolicySource.read(folder)
