"""From a kind of encoder to its network, without weights: the same for learner, actor and a saved policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from hilserl.config.vision import ResNetConfig
from hilserl.vision.encoder import Encoder
from hilserl.vision.lerobot_cnn import LeRobotCnn
from hilserl.vision.pretrained import build_network
from hilserl.vision.small_cnn import SmallCnn

EncoderType = Literal["sim_pretrained", "cnn", "lerobot_cnn", "pretrained"]


def build_encoder(kind: EncoderType, network: ResNetConfig | None, height: int, width: int) -> Encoder:
    """Build an untrained encoder.

    Args:
        kind: `encoder.type` of the configuration.
        network: Sizes of a `pretrained` one.
        height: Of the policy's image [px].
        width: Of the policy's image [px].

    Raises:
        ConfigError: The image is too small for it.
    """
    if kind == "pretrained":
        assert network is not None, "a pretrained encoder needs its sizes"
        return build_network(network, height, width)
    return LeRobotCnn(height, width) if kind == "lerobot_cnn" else SmallCnn(height, width)


def feature_shapes(kind: EncoderType, network: ResNetConfig | None, cameras: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's features, by camera, given (height, width) [px] by camera; allocates nothing."""
    with torch.device("meta"):
        return {name: build_encoder(kind, network, *size).feature_shape for name, size in cameras.items()}
