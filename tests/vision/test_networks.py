"""The networks against others' own code, or a second implementation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from installed_source import classes_of
from torch import Tensor, nn
from vision_testing import SIZES, random_weights

from hilserl.config.vision import ResNetConfig
from hilserl.errors import ConfigError
from hilserl.vision.encoder import Vision
from hilserl.vision.lerobot_cnn import SMALLEST_PX, LeRobotCnn
from hilserl.vision.pretrained import build_network
from hilserl.vision.small_cnn import SmallCnn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as torchvision and LeRobot write them


def images(*size: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, *size, 3), np.uint8))


def scaled(pixels: Tensor) -> Tensor:
    """ToTensor and Normalize of torchvision: (B, H, W, 3) of 0-255 to (B, 3, H, W)."""
    mean, std = torch.tensor(IMAGENET_MEAN, dtype=torch.float64), torch.tensor(IMAGENET_STD, dtype=torch.float64)
    return ((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2).float().contiguous()


def transformers_resnet(sizes: dict, tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """`last_hidden_state` of the installed transformers' ResNetModel, in evaluation."""
    names = ["ConvLayer", "Embeddings", "ShortCut", "BasicLayer", "BottleNeckLayer", "Stage", "Encoder"]
    code = classes_of(
        "transformers",
        "models/resnet/modeling_resnet.py",
        [f"ResNet{name}" for name in names],
        {"nn": nn, "Tensor": Tensor, "ResNetConfig": object, "ACT2FN": {"relu": nn.ReLU(), "gelu": nn.GELU()},
         "BaseModelOutputWithNoAttention": SimpleNamespace},
    )  # fmt: skip
    defaults = {"num_channels": 3, "hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False}
    config = SimpleNamespace(**{**defaults, **sizes})
    embedder, encoder = code["ResNetEmbeddings"](config).eval(), code["ResNetEncoder"](config).eval()
    for prefix, module in (("embedder.", embedder), ("encoder.", encoder)):
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        problems = module.load_state_dict(own, strict=False)
        assert not problems.unexpected_keys and all(name.endswith("num_batches_tracked") for name in problems.missing_keys)
    with torch.inference_mode():
        return encoder(embedder(pixels)).last_hidden_state


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"downsample_in_first_stage": True},
        {"hidden_act": "gelu"},
        {"layer_type": "bottleneck", "hidden_sizes": [16, 32], "depths": [2, 2]},
        {"layer_type": "bottleneck", "hidden_sizes": [16, 32], "depths": [2, 2], "downsample_in_bottleneck": True},
        {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [1, 1, 1, 1]},  # ResNet-10
    ],
    ids=["basic", "early", "gelu", "bottleneck", "bottleneck-early", "ten"],
)
@pytest.mark.parametrize("size", [(64, 64), (67, 45)])
def test_a_resnet_computes_what_transformers_computes(changes, size) -> None:
    sizes = SIZES["resnet"] | changes
    tensors = random_weights(sizes)
    network = build_network(ResNetConfig.model_validate(sizes | {"sha256": "0" * 64}), *size)
    network.load_state_dict(tensors)
    pixels = images(*size)
    theirs = transformers_resnet(sizes, tensors, scaled(pixels))
    ours = network(pixels)
    assert tuple(ours.shape[1:]) == network.feature_shape
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def same_windows(x: np.ndarray, kernel: int, stride: int, fill: float) -> np.ndarray:
    """Windows (h, w, kernel, kernel, C) of an image (H, W, C), padded as XLA's "SAME": the smaller half before, the larger behind."""
    out = [-(-size // stride) for size in x.shape[:2]]
    pads = []
    for size, count in zip(x.shape[:2], out, strict=True):
        total = max((count - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    rows = [[padded[i * stride : i * stride + kernel, j * stride : j * stride + kernel] for j in range(out[1])] for i in range(out[0])]
    return np.array(rows)


def slow_hilserl_resnet(tensors: dict[str, np.ndarray], pixels: np.ndarray, stages: int) -> np.ndarray:
    """HIL-SERL's ResNet-10 as its JAX code reads (channels last, "SAME"), window by window; one image (H, W, 3) to (h, w, C)."""

    def convolve(x: np.ndarray, name: str, stride: int) -> np.ndarray:
        kernel = tensors[name]  # (out, in, k, k)
        return np.einsum("hwklc,ockl->hwo", same_windows(x, kernel.shape[-1], stride, 0.0), kernel)

    def normalise(x: np.ndarray, name: str) -> np.ndarray:
        grouped = x.reshape(*x.shape[:2], 4, -1)
        mean, variance = grouped.mean((0, 1, 3), keepdims=True), grouped.var((0, 1, 3), keepdims=True)
        result = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
        return result * tensors[f"{name}.group_norm.weight"] + tensors[f"{name}.group_norm.bias"]

    x = (pixels / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    x = np.pad(x, [(3, 3), (3, 3), (0, 0)])  # conv_init: padding ((3, 3), (3, 3)), stride 2
    kernel = tensors["embedder.0.weight"]
    count = [(size - 7) // 2 + 1 for size in x.shape[:2]]
    x = np.array(
        [[np.einsum("klc,ockl->o", x[2 * i : 2 * i + 7, 2 * j : 2 * j + 7], kernel) for j in range(count[1])] for i in range(count[0])]
    )
    x = np.maximum(normalise(x, "embedder.1"), 0.0)
    x = same_windows(x, 3, 2, -np.inf).max((2, 3))
    for stage in range(stages):
        name, stride = f"encoder.stages.{stage}", 2 if stage else 1
        y = np.maximum(normalise(convolve(x, f"{name}.conv1.conv.weight", stride), f"{name}.norm1"), 0.0)
        y = normalise(convolve(y, f"{name}.conv2.conv.weight", 1), f"{name}.norm2")
        if y.shape != x.shape:
            x = normalise(convolve(x, f"{name}.shortcut.0.conv.weight", stride), f"{name}.shortcut.1")
        x = np.maximum(x + y, 0.0)
    return x


@pytest.mark.parametrize("size", [(32, 32), (33, 46), (35, 39)])
def test_hilserls_resnet_computes_what_its_jax_code_says(size) -> None:
    tensors = random_weights(SIZES["resnet10"])
    network = build_network(ResNetConfig.model_validate(SIZES["resnet10"] | {"sha256": "0" * 64}), *size)
    network.load_state_dict(tensors)
    (pixels,) = images(*size, batch=1).numpy()
    slow = slow_hilserl_resnet({name: tensor.double().numpy() for name, tensor in tensors.items()}, pixels, 3)
    ours = network(torch.from_numpy(pixels[None]))[0]
    assert tuple(ours.shape) == network.feature_shape
    torch.testing.assert_close(ours, torch.from_numpy(slow).permute(2, 0, 1).float(), rtol=1e-4, atol=1e-4)


def test_hilserls_resnet_has_the_names_of_the_published_weights() -> None:
    """As github.com/helper2424/resnet10 converts them; ten of the ImageNet weights' 34."""
    names = set(random_weights(SIZES["resnet10"] | {"hidden_sizes": [64, 128, 256, 512], "depths": [1] * 4, "embedding_size": 64}))
    for name in (
        "embedder.0.weight",
        "embedder.1.group_norm.weight",
        "embedder.1.group_norm.bias",
        "encoder.stages.0.conv1.conv.weight",
        "encoder.stages.0.norm1.group_norm.weight",
        "encoder.stages.0.conv2.conv.weight",
        "encoder.stages.3.norm2.group_norm.bias",
        "encoder.stages.3.shortcut.0.conv.weight",
        "encoder.stages.3.shortcut.1.group_norm.weight",
    ):
        assert name in names
    assert not any(name.startswith("encoder.stages.0.shortcut") for name in names)
    assert len(names) == 3 + 4 * 6 + 3 * 3


@pytest.mark.parametrize("size", [(84, 84), (128, 128), (SMALLEST_PX, 65)])
def test_lerobots_cnn_computes_what_lerobot_computes(size) -> None:
    code = classes_of(
        "lerobot",
        "policies/gaussian_actor/modeling_gaussian_actor.py",
        ["DefaultImageEncoder"],
        {"nn": nn, "GaussianActorConfig": object, "is_image_feature": lambda key: True},
    )
    feature = SimpleNamespace(shape=(3, *size))
    theirs = code["DefaultImageEncoder"](SimpleNamespace(input_features={"image": feature}, image_encoder_hidden_dim=32))
    ours = LeRobotCnn(*size)
    ours.load_state_dict(theirs.state_dict())  # the same names
    pixels = images(*size)
    assert tuple(ours(pixels).shape[1:]) == ours.feature_shape
    torch.testing.assert_close(ours(pixels), theirs(scaled(pixels)), rtol=1e-5, atol=1e-5)


def test_an_image_too_small_for_lerobots_cnn_is_refused() -> None:
    with pytest.raises(ConfigError, match=rf"needs {SMALLEST_PX} px or more; this one is {SMALLEST_PX - 1}x80"):
        LeRobotCnn(SMALLEST_PX - 1, 80)


@pytest.mark.parametrize("kind", ["cnn", "lerobot", "resnet", "resnet10"])
def test_a_batch_is_its_images_one_by_one_and_training_mode_changes_nothing(kind) -> None:
    """So what acts is what was trained: no statistics of the batch are used, and none are kept."""
    size = (44, 52)
    if kind in SIZES:
        network = build_network(ResNetConfig.model_validate(SIZES[kind] | {"sha256": "0" * 64}), *size)
        network.load_state_dict(random_weights(SIZES[kind]))
    else:
        network = SmallCnn(*size) if kind == "cnn" else LeRobotCnn(*size)
    pixels = images(*size, batch=5)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    together = network.train()(pixels)
    together.square().mean().backward()
    torch.testing.assert_close(together, torch.cat([network(one[None]) for one in pixels]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, network.eval()(pixels), rtol=0, atol=0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_vision_encodes_what_it_has_an_encoder_for_and_passes_features_on() -> None:
    vision = Vision({"wrist": SmallCnn(32, 32)})
    features = torch.randn(2, 5)
    seen = vision({"wrist": images(32, 32), "front": features})
    assert seen["front"] is features and tuple(seen["wrist"].shape) == (2, *vision.encoders["wrist"].feature_shape)
