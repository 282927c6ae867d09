"""The ResNet of Hugging Face's transformers (`ResNetModel`), with its names, in plain torch.

Written here so that neither the learner nor the robot host needs transformers, and so that batch
normalisation keeps the statistics it was pretrained with: a batch of RL is half demonstrations,
half the policy's own frames, and its statistics are not those of a single frame at acting time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hilserl.config.vision import ResNetConfig
from hilserl.vision.encoder import Encoder
from hilserl.vision.pixels import ImageNetScaling

_EPSILON = 1e-5  # of torch's BatchNorm2d, which transformers takes as it is
_REDUCTION = 4  # of the channels inside a bottleneck
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "selu": nn.SELU}


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics; scale and shift can be trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.running_mean: Tensor
        self.running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), the same in training and evaluation."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=_EPSILON)


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, activation: str | None = "relu") -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.normalization = FrozenBatchNorm(outputs)
        self.activation = nn.Identity() if activation is None else ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.normalization(self.convolution(x)))
        return result


class _Block(nn.Module):
    """A residual layer, basic (two 3x3) or bottleneck (1x1, 3x3, 1x1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, config: ResNetConfig, *, is_first: bool) -> None:
        super().__init__()
        has_shortcut = inputs != outputs or stride != 1
        self.shortcut = _Convolution(inputs, outputs, 1, stride, None) if has_shortcut else nn.Identity()
        if config.layer_type == "basic":
            # transformers gives `hidden_act` to the stem and to the ends of the blocks; inside them it is always ReLU.
            layers = [_Convolution(inputs, outputs, 3, stride), _Convolution(outputs, outputs, 3, 1, None)]
        else:
            narrow = outputs // _REDUCTION
            early = config.downsample_in_bottleneck and is_first
            layers = [
                _Convolution(inputs, narrow, 1, stride if early else 1),
                _Convolution(narrow, narrow, 3, 1 if early else stride),
                _Convolution(narrow, outputs, 1, 1, None),
            ]
        self.layer = nn.Sequential(*layers)
        self.activation = ACTIVATIONS[config.hidden_act]()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.layer(x) + self.shortcut(x))
        return result


class _Stem(nn.Module):
    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.embedder = _Convolution(3, config.embedding_size, 7, 2, config.hidden_act)
        self.pooler = nn.MaxPool2d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pooler(self.embedder(x))
        return result


class _Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, depth: int, config: ResNetConfig) -> None:
        super().__init__()
        blocks = [_Block(inputs, outputs, stride, config, is_first=True)]
        blocks += [_Block(outputs, outputs, 1, config, is_first=False) for _ in range(depth - 1)]
        self.layers = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class Stages(nn.Module):
    """One stage behind another; gives them the name that both kinds of weights use, `encoder.stages`."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the last stage's map."""
        for stage in self.stages:
            x = stage(x)
        return x


class ResNet(Encoder):
    """transformers' `ResNetModel` up to `last_hidden_state`, ImageNet scaling included; its parameters have transformers' names."""

    def __init__(self, config: ResNetConfig, height: int, width: int) -> None:
        super().__init__()
        self.scale = ImageNetScaling()
        self.embedder = _Stem(config)
        sizes = (config.embedding_size, *config.hidden_sizes)
        strides = (2 if config.downsample_in_first_stage else 1, *(2 for _ in config.hidden_sizes[1:]))
        shapes = zip(sizes, sizes[1:], strides, config.depths, strict=False)
        self.encoder = Stages(*(_Stage(inputs, outputs, stride, depth, config) for inputs, outputs, stride, depth in shapes))
        reduction = 4 * math.prod(strides)
        self.feature_shape = (sizes[-1], -(-height // reduction), -(-width // reduction))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, 3), 0-255, to a feature map (B, C, h, w)."""
        features: Tensor = self.encoder(self.embedder(self.scale(images)))
        return features
