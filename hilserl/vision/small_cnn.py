"""The small convolutional encoder: an image to keypoints and a guess of where the object is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hilserl.vision.encoder import Encoder


class SpatialSoftmax(nn.Module):
    """Expected image coordinates of each channel's activation (Levine et al. 2016, arXiv 1504.00702)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("grid", torch.stack((columns.flatten(), rows.flatten()), 1), persistent=False)
        self.grid: Tensor

    def forward(self, maps: Tensor) -> Tensor:
        """Map activations (B, C, H, W) to keypoints (B, 2C) in [-1, 1], x then y."""
        weights = maps.flatten(2).softmax(-1)
        return (weights @ self.grid).flatten(1)


class SmallCnn(Encoder):
    """Three convolutions, spatial softmax, and a head that predicts named labels.

    The features are the keypoints followed by the head's prediction, all of order one. Pretraining
    fits the head (see `hilserl.pretraining`); trained end to end, the head is just two more layers.
    """

    def __init__(self, height: int, width: int, *, channels: int = 32, num_labels: int = 6) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            # Stride 3 at once: four times cheaper on a CPU than stride 2, and the softmax still resolves fractions of a cell.
            nn.Conv2d(3, channels // 2, 6, stride=3),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3),
        )
        with torch.no_grad():
            shape = self.convolutions(torch.zeros(1, 3, height, width)).shape
        self.keypoints = SpatialSoftmax(shape[2], shape[3])
        self.head = nn.Sequential(nn.Linear(2 * channels, 128), nn.ReLU(), nn.Linear(128, num_labels))
        self.feature_shape = (2 * channels + num_labels,)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, C), 0-255, to features (B, F)."""
        keypoints, labels = self.keypoints_and_labels(images)
        return torch.cat((keypoints, labels), 1)

    def keypoints_and_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return keypoints (B, 2C) and predicted labels (B, L) of uint8 images (B, H, W, 3)."""
        pixels = images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
        keypoints = self.keypoints(self.convolutions(pixels))
        return keypoints, self.head(keypoints)
