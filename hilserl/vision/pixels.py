"""Scaling of pixels, inside the encoder, so that nobody can forget or repeat it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Of ImageNet's RGB pixels in [0, 1]: what torchvision, transformers, HIL-SERL and LeRobot (`use_imagenet_stats`) take.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageNetScaling(nn.Module):
    """(pixel / 255 - mean) / std per channel, in one multiplication and addition."""

    def __init__(self) -> None:
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("factor", (1.0 / (255.0 * std)).float(), persistent=False)
        self.register_buffer("offset", (-mean / std).float(), persistent=False)
        self.factor: Tensor
        self.offset: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, 3), 0-255, to float32 (B, 3, H, W), in memory still channels last."""
        return torch.addcmul(self.offset, images.permute(0, 3, 1, 2).float(), self.factor)
