"""What a pretrained vision network is, so that any host can build it without the files it came from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hilserl.config.base import Count, Model


class ResNetConfig(Model):
    """Sizes of a ResNet, by the names of a Hugging Face `config.json`, and which weights it has."""

    model_type: Literal["resnet", "resnet10"] = Field(
        description="`resnet`: transformers' ResNetModel, with batch normalisation; `resnet10`: HIL-SERL's, with group normalisation"
    )
    embedding_size: Count
    hidden_sizes: Annotated[tuple[Count, ...], Field(min_length=1)]
    depths: Annotated[tuple[Count, ...], Field(min_length=1)]
    layer_type: Literal["basic", "bottleneck"] = "basic"
    hidden_act: Literal["relu", "gelu", "silu", "selu"] = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file of the weights")
