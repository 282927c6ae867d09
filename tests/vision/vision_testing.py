"""Networks of tiny size, and model folders that hold them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from hilserl.config.vision import ResNetConfig
from hilserl.vision.pretrained import build_network

SIZES = {
    "resnet": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"},
    "resnet10": {"model_type": "resnet10", "embedding_size": 8, "hidden_sizes": [8, 12, 16], "depths": [1, 1, 1]},
}


def random_weights(sizes: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of a network of these sizes, by its names: nothing is left at an initial 0 or 1 that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    network = build_network(ResNetConfig.model_validate(sizes | {"sha256": "0" * 64}), 32, 32)
    return {
        name: torch.rand(tensor.shape, generator=generator) + 0.5
        if name.endswith("running_var")
        else torch.randn(tensor.shape, generator=generator) * (0.3 if tensor.ndim == 1 else tensor[0].numel() ** -0.5)
        for name, tensor in network.state_dict().items()
    }


def write_model(folder: Path, sizes: dict, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**sizes, "architectures": ["Some"], "torch_dtype": "float32"}))
    save_file(tensors, folder / "model.safetensors")
    return folder
