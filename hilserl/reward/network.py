"""The network of the success classifier: pictures of all cameras to one logit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hilserl.errors import ConfigError
from hilserl.vision.small_cnn import SpatialSoftmax

SMALLEST_PX = 24


class _Encoder(nn.Module):
    """Where each channel is active (spatial softmax), and how much: success may be a place, or a thing that appears."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, channels // 2, 6, stride=3),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3),
        )
        with torch.no_grad():
            shape = self.convolutions(torch.zeros(1, 3, height, width)).shape
        self.keypoints = SpatialSoftmax(shape[2], shape[3])
        self.feature_dim = 4 * channels

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, 3) to features (B, 4C)."""
        maps = self.convolutions(images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0))
        return torch.cat((self.keypoints(maps), maps.amax((2, 3)), maps.mean((2, 3))), 1)


class SuccessNetwork(nn.Module):
    """One encoder a camera, a projection and a head; all of it is trained.

    Args:
        cameras: Height and width of each camera's image [px]; at least 24.
        channels: Channels of the convolutions.
        hidden: Width of the projection.

    Raises:
        ConfigError: An image is too small for the convolutions.
    """

    def __init__(self, cameras: Mapping[str, tuple[int, int]], *, channels: int = 32, hidden: int = 64) -> None:
        super().__init__()
        self.cameras = tuple(sorted(cameras))
        self.channels, self.hidden = channels, hidden
        for camera, size in cameras.items():
            if min(size) < SMALLEST_PX:
                raise ConfigError(f"camera `{camera}`: images of {size[0]}x{size[1]} px; the success classifier needs {SMALLEST_PX} a side")
        # A list, since the name of a camera may hold a dot, which torch's named modules may not.
        self.encoders = nn.ModuleList(_Encoder(*cameras[camera], channels) for camera in self.cameras)
        self.projection = nn.Sequential(nn.Linear(4 * channels * len(self.cameras), hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.head = nn.Linear(hidden, 1)

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Map uint8 images (B, H, W, 3) by camera to the logit of success, (B,)."""
        features = [encoder(images[camera]) for camera, encoder in zip(self.cameras, self.encoders, strict=True)]
        return self.head(self.projection(torch.cat(features, 1)))[:, 0]
