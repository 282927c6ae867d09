"""LeRobot's convolutions, for a policy that LeRobot can load and for comparisons."""

from __future__ import annotations

from torch import Tensor, nn

from hilserl.errors import ConfigError
from hilserl.vision.encoder import Encoder
from hilserl.vision.pixels import ImageNetScaling

HIDDEN_DIM = 32  # LeRobot's default of `image_encoder_hidden_dim`
SMALLEST_PX = 39  # leaves one pixel of the map
_KERNELS = (7, 5, 3, 3)


class LeRobotCnn(Encoder):
    """The four convolutions of LeRobot 0.6.1's `DefaultImageEncoder`, names and initialisation included.

    Pixels are scaled with ImageNet's mean and deviation, as LeRobot's preprocessor does with
    `VISUAL: MEAN_STD` and its default statistics.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        if min(height, width) < SMALLEST_PX:
            raise ConfigError(
                f"`encoder.type: lerobot_cnn` halves an image four times and needs {SMALLEST_PX} px or more; this one is {height}x{width}. "
                "Raise `resize`, or set `encoder.type: cnn`."
            )
        self.scale = ImageNetScaling()
        layers: list[nn.Module] = []
        channels = 3
        for kernel in _KERNELS:
            layers += [nn.Conv2d(channels, HIDDEN_DIM, kernel, stride=2), nn.ReLU()]
            channels = HIDDEN_DIM
        self.image_enc_layers = nn.Sequential(*layers)
        self.feature_shape = (HIDDEN_DIM, _remaining(height), _remaining(width))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, H, W, 3), 0-255, to a feature map (B, 32, h, w)."""
        features: Tensor = self.image_enc_layers(self.scale(images))
        return features


def _remaining(size: int) -> int:
    for kernel in _KERNELS:
        size = (size - kernel) // 2 + 1
    return size
