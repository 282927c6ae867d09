"""HIL-SERL's ImageNet ResNet-10, as its users know it from the Hub (`helper2424/resnet10`, `lerobot/resnet10`).

There its code is remote code. The same network in plain torch, with the same names: the embedding has
padding 3 on all sides; everything else pads as JAX does ("SAME": the odd pixel at the bottom and right);
group normalisation with 4 groups, epsilon 1e-5; one block per stage, and a 1x1 shortcut where the number
of channels changes. Sources: github.com/helper2424/resnet10 (`resnet_10/modeling_resnet.py`, its
conversion and its check against JAX) and rail-berkeley/hil-serl (`serl_launcher/vision/resnet_v1.py`).
Pixels are scaled with ImageNet's mean and deviation, as in both.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from hilserl.config.vision import ResNetConfig
from hilserl.vision.encoder import Encoder
from hilserl.vision.pixels import ImageNetScaling
from hilserl.vision.resnet import ACTIVATIONS, Stages

_GROUPS = 4


def _pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad (B, C, H, W) so that the output has ceil(size / stride) pixels a side; an odd pixel goes to the bottom and right."""
    padding: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding, value=value) if any(padding) else x


class _SameConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(_pad_same(x, self.kernel, self.stride))
        return result


class _GroupNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(_GROUPS, channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.group_norm(x)
        return result


class _SamePool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(_pad_same(x, 3, 2, value=-float("inf")), 3, 2)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = _SameConvolution(inputs, outputs, 3, stride)
        self.norm1 = _GroupNorm(outputs)
        self.conv2 = _SameConvolution(outputs, outputs, 3, 1)
        self.norm2 = _GroupNorm(outputs)
        self.activation = ACTIVATIONS[activation]()
        self.shortcut: nn.Sequential | None = None
        if inputs != outputs:
            self.shortcut = nn.Sequential(_SameConvolution(inputs, outputs, 1, stride), _GroupNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        result: Tensor = self.activation(y + (x if self.shortcut is None else self.shortcut(x)))
        return result


class HilSerlResNet(Encoder):
    """ResNet-10 with group normalisation, up to its last feature map, ImageNet scaling included."""

    def __init__(self, config: ResNetConfig, height: int, width: int) -> None:
        super().__init__()
        self.scale = ImageNetScaling()
        sizes = (config.embedding_size, *config.hidden_sizes)
        self.embedder = nn.Sequential(
            nn.Conv2d(3, sizes[0], 7, 2, padding=3, bias=False), _GroupNorm(sizes[0]), ACTIVATIONS[config.hidden_act](), _SamePool()
        )
        blocks = [
            _Block(inputs, outputs, 2 if stage else 1, config.hidden_act)
            for stage, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
        ]
        self.encoder = Stages(*blocks)
        reduction = 4 * 2 ** (len(blocks) - 1)
        self.feature_shape = (sizes[-1], -(-height // reduction), -(-width // reduction))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, 3), 0-255, to a feature map (B, C, h, w)."""
        features: Tensor = self.encoder(self.embedder(self.scale(images)))
        return features
