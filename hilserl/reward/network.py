"""The network of the success classifier: pictures of all cameras, and the state where wanted, to one logit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hilserl.config.vision import ResNetConfig
from hilserl.errors import ConfigError
from hilserl.vision.encoder import Encoder
from hilserl.vision.pretrained import build_network
from hilserl.vision.small_cnn import SpatialSoftmax

SMALLEST_PX = 24
_SAMPLED = 4
_SMALLEST_DEVIATION = 4.0  # of a picture's pixels, 0 to 255: what is flatter is not stretched any further


class _Convolutions(Encoder):
    """Three convolutions over a picture whose own brightness and contrast are taken out, colour by colour."""

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
            self.feature_shape = tuple(self.convolutions(torch.zeros(1, 3, height, width)).shape[1:])

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, 3) to a feature map (B, C, h, w)."""
        sample = images[:, ::_SAMPLED, ::_SAMPLED].flatten(1, 2).float()  # (B, N, 3): every pixel would take longer than to convolve them
        deviation, mean = torch.std_mean(sample, 1)
        gain = deviation.clamp_min(_SMALLEST_DEVIATION).reciprocal()
        pixels = torch.addcmul((-mean * gain)[..., None, None], images.permute(0, 3, 1, 2).float(), gain[..., None, None])
        maps: Tensor = self.convolutions(pixels)
        return maps


class _Pooled(nn.Module):
    """Where each channel is active (spatial softmax), and how much: success may be a place, or a thing that appears."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        channels, height, width = encoder.feature_shape
        self.encoder = encoder
        self.keypoints = SpatialSoftmax(height, width)
        self.feature_dim: int = 4 * channels

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, 3) to features (B, 4C)."""
        maps = self.encoder(images)
        return torch.cat((self.keypoints(maps), maps.amax((2, 3)), maps.mean((2, 3))), 1)


class SuccessNetwork(nn.Module):
    """One encoder a camera, a projection and a head.

    Args:
        cameras: Height and width of each camera's image [px]; at least 24.
        channels: Channels of the convolutions.
        hidden: Width of the projection.
        resnet: Sizes of the ResNet that each encoder is instead of the convolutions; its weights are loaded by who trains or reads it.
        state_size: How many numbers of the state it reads too.

    Raises:
        ConfigError: An image is too small for the convolutions.
    """

    def __init__(
        self,
        cameras: Mapping[str, tuple[int, int]],
        *,
        channels: int = 32,
        hidden: int = 64,
        resnet: ResNetConfig | None = None,
        state_size: int = 0,
    ) -> None:
        super().__init__()
        self.cameras = tuple(sorted(cameras))
        self.channels, self.hidden, self.resnet, self.state_size = channels, hidden, resnet, state_size
        for camera, size in cameras.items():
            if min(size) < SMALLEST_PX:
                raise ConfigError(f"camera `{camera}`: images of {size[0]}x{size[1]} px; the success classifier needs {SMALLEST_PX} a side")
        # A list, since the name of a camera may hold a dot, which torch's named modules may not.
        encoders = [
            _Pooled(_Convolutions(*cameras[camera], channels) if resnet is None else build_network(resnet, *cameras[camera]))
            for camera in self.cameras
        ]
        self.encoders = nn.ModuleList(encoders)
        features = sum(encoder.feature_dim for encoder in encoders) + state_size
        self.projection = nn.Sequential(nn.Linear(features, hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.head = nn.Linear(hidden, 1)
        if state_size:
            self.register_buffer("state_mean", torch.zeros(state_size))
            self.register_buffer("state_deviation", torch.ones(state_size))
        self.state_mean: Tensor
        self.state_deviation: Tensor

    def forward(self, images: Mapping[str, Tensor], state: Tensor | None = None) -> Tensor:
        """Map uint8 images (B, H, W, 3) by camera, and the state (B, S) where it is read, to the logit of success, (B,)."""
        return self.judge(self.features(images), state)

    def features(self, images: Mapping[str, Tensor]) -> Tensor:
        """Map uint8 images (B, H, W, 3) by camera to what the encoders see, (B, F)."""
        return torch.cat([encoder(images[camera]) for camera, encoder in zip(self.cameras, self.encoders, strict=True)], 1)

    def judge(self, features: Tensor, state: Tensor | None = None) -> Tensor:
        """Map features (B, F), and the state (B, S) where it is read, to the logit of success, (B,)."""
        if self.state_size:
            assert state is not None, "this network reads the state"
            features = torch.cat((features, (state - self.state_mean) / self.state_deviation), 1)
        return self.head(self.projection(features))[:, 0]

    def load_encoders(self, encoders: Mapping[str, Encoder]) -> None:
        """Take the weights of pretrained encoders, by camera."""
        for camera, pooled in zip(self.cameras, self.encoders, strict=True):
            assert isinstance(pooled, _Pooled)
            pooled.encoder.load_state_dict(encoders[camera].state_dict())

    @torch.no_grad()
    def calibrate(self, scale: float, offset: float) -> None:
        """Turn each logit z into `scale * z + offset` for good: whoever has the weights has the calibrated probability."""
        self.head.weight.mul_(scale)
        self.head.bias.mul_(scale).add_(offset)
