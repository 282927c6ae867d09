"""What every vision encoder is, and one encoder per camera."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Encoder(nn.Module):
    """Maps uint8 images (B, H, W, C), 0-255, to features: (B, F), or a map (B, C, H, W).

    Attributes:
        feature_shape: Of one image's features: (F,) or (C, H, W).
    """

    feature_shape: tuple[int, ...]

    def forward(self, images: Tensor) -> Tensor:
        """Encode uint8 images (B, H, W, C)."""
        raise NotImplementedError


class Vision(nn.Module):
    """One encoder per camera, trained with the critic; identity on features that come precomputed."""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode the cameras that have an encoder here; pass the others' features through."""
        return {name: self.encoders[name](image) if name in self.encoders else image for name, image in images.items()}
