"""How a success classifier is trained: `hilserl classifier train`, and the flow `reward-classifier/train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hilserl.config.base import Model
from hilserl.config.environment import ImageConfig
from hilserl.config.learning import EncoderConfig

Share = Annotated[float, Field(ge=0, le=0.9)]


class Augmentation(Model):
    """What of a picture is changed at random while learning, since it does not decide success."""

    shift_px: Annotated[int, Field(ge=0, le=16, description="Largest shift, up, down and aside [px]")] = 4
    brightness: Annotated[float, Field(ge=0, le=1, description="Largest change of brightness, as a share of white")] = 0.12
    contrast: Annotated[float, Field(ge=0, le=1, description="Largest change of contrast, as a share")] = 0.3
    colour: Annotated[float, Field(ge=0, le=1, description="Largest change of each colour's strength, as a share")] = 0.15
    noise: Annotated[float, Field(ge=0, le=0.2, description="Deviation of a sensor's noise, as a share of white")] = 0.01


class Recipe(Model):
    """How a success classifier learns. `false_positive_rate` is what the threshold is chosen for."""

    datasets: tuple[Path, ...] = Field((), description="Folders of datasets whose successful frames are marked")
    images: dict[str, ImageConfig] = Field(
        default_factory=dict, description="Cameras that it looks at, with crop and size; empty: those of the policy (`observation.images`)"
    )
    state: tuple[str, ...] = Field((), description="Components of observation.state that it reads too, such as ee_pos; usually none")
    backbone: Literal["cnn", "pretrained"] = Field(
        "cnn", description="`cnn`: a small network from scratch; `pretrained`: a ResNet of a local folder (`model`)"
    )
    model: str | None = Field(None, description="`pretrained`: as `encoder.model`: a folder with config.json and model.safetensors")
    revision: str | None = Field(None, description="`pretrained`: commit of a repository, as `encoder.revision`")
    freeze: bool = Field(False, description="`pretrained`: keep its weights; the projection and the head behind it are trained in any case")
    channels: Annotated[int, Field(ge=8, le=256, description="`cnn`: channels of the convolutions")] = 32
    hidden: Annotated[int, Field(ge=8, le=1024, description="Width of the projection")] = 64
    false_positive_rate: Annotated[
        float, Field(gt=0, lt=0.5, description="Share of frames without success that may look like one, and of episodes wrongly rewarded")
    ] = 0.005
    hold_frames: Annotated[int, Field(ge=1, le=50)] | None = Field(
        None, description="Frames in a row that must agree before the verdict changes; None: 3, or fewer where marked successes are shorter"
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Of split, weights, order and augmentation")] = 0
    validation_share: Annotated[float, Field(gt=0, le=0.9, description="Of the episodes held back to report on, and for nothing else")] = (
        0.25
    )
    choice_share: Annotated[
        float, Field(gt=0, le=0.9, description="Of the other episodes, those on which last epoch, calibration and threshold are chosen")
    ] = 0.25
    max_epochs: Annotated[int, Field(ge=1, le=10_000)] = 40
    patience: Annotated[int, Field(ge=1, le=10_000, description="Epochs without a better loss after which it stops")] = 8
    threads: Annotated[int, Field(ge=1, le=64, description="Cores that it trains on; equal seeds and threads give equal weights")] = 1
    epoch_frames: Annotated[int, Field(ge=64, description="Pictures an epoch, at most")] = 2048
    augmentation: Augmentation = Field(default_factory=Augmentation)

    @model_validator(mode="after")
    def _model_goes_with_pretrained(self) -> Self:
        if (self.backbone == "pretrained") != (self.model is not None):
            raise ValueError("classifier.backbone `pretrained` and classifier.model go together: name both, or neither")
        if self.model is not None:
            self.encoder()
        return self

    def encoder(self) -> EncoderConfig:
        """Return the pretrained backbone as an encoder's configuration."""
        return EncoderConfig(type="pretrained", model=self.model, revision=self.revision, freeze=self.freeze)
