"""What a classifier folder says about itself. Free of torch, so that anything may look before the network is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hilserl.config.vision import ResNetConfig
from hilserl.data.preprocess import CameraView
from hilserl.errors import CheckpointError, ConfigError
from hilserl.files import content_hash, file_hash
from hilserl.intervals import wilson_interval
from hilserl.reward.metrics import Confusion, Metrics

FORMAT_VERSION = 2
MANIFEST = "classifier.json"
WEIGHTS = "model.safetensors"
USELESS = 0.75
"""Balanced accuracy on held-out frames below which a classifier does not know success; guessing reaches 0.5."""

PAYS_FOR_FAILURES = 0.05
"""Share of failed episodes that it rewards, known with 95 % confidence to be more, above which it teaches failing."""

_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class ClassifierManifest(BaseModel):
    """Content of `classifier.json`.

    Attributes:
        format_version: Of the folder.
        sha256: Of the weights.
        cameras: How each camera's native frame becomes the network's image; the network takes them sorted by name.
        channels: Channels of the convolutions.
        hidden: Width of the projection.
        resnet: Sizes of the pretrained network behind each camera; None: the small convolutions.
        state: Numbers of `observation.state` that it reads too, such as `ee_pos.z`.
        schema_hash: Of what it looks at: compared with what the environment shows.
        threshold: Probability from which a frame looks like success.
        hold_frames: Frames in a row that must look like success before it counts, and unlike it before it ends.
        training: Where it comes from and how good it was, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    sha256: str
    cameras: dict[str, CameraView] = Field(min_length=1)
    channels: Count
    hidden: Count
    resnet: ResNetConfig | None = None
    state: tuple[str, ...] = ()
    schema_hash: str
    threshold: Share
    hold_frames: Count
    training: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of `folder`, and compare the weights with it.

        Raises:
            CheckpointError: A file is missing, damaged, replaced or of another format.
        """
        file = folder / MANIFEST
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder}: no such folder. `hilserl classifier train DATASET --into {folder}` makes a success classifier."
            )
        try:
            value = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{file}: cannot be read ({error}). A success classifier is a folder with {MANIFEST} and {WEIGHTS}."
            ) from None
        found = value.get("format_version") if isinstance(value, dict) else None
        if found != FORMAT_VERSION:
            raise CheckpointError(f"{file}: format version {found}, this program reads {FORMAT_VERSION}. Train the classifier again.")
        try:
            manifest = cls.model_validate(value)
        except (ValidationError, ConfigError) as error:
            raise CheckpointError(f"{file}: damaged ({error}). Train the classifier again.") from None
        try:
            same = file_hash(folder / WEIGHTS) == manifest.sha256
        except OSError as error:
            raise CheckpointError(f"{folder / WEIGHTS}: cannot be read ({error}). Train the classifier again.") from None
        if manifest.schema_hash != schema_hash(manifest.cameras, manifest.state):
            raise CheckpointError(f"{file}: cameras or state were changed since it was trained. Train the classifier again.")
        if not same:
            raise CheckpointError(
                f"{folder / WEIGHTS}: the content does not match its checksum: it was damaged or replaced. Train the classifier again."
            )
        return manifest


def held_out_metrics(training: Mapping[str, Any]) -> Metrics | None:
    """Return how good a classifier was on what it had never seen, from `training`; None where that does not say."""
    try:
        said = training["validation"]
        frames, episodes = (Confusion(**{name: int(said[part][name]) for name in _COUNTS}) for part in ("frames", "episodes"))
        metrics = Metrics(frames, episodes, int(said["early"]), int(said["flickers"]))
    except (KeyError, TypeError, ValueError):
        return None
    return metrics if metrics.frames.total else None


def rewarded_failures(metrics: Metrics) -> tuple[int, int, float]:
    """Return how many held-out episodes were rewarded of those that failed, how many failed, and which share it is at least (95 %)."""
    rewarded = metrics.episodes.false_positives
    failed = rewarded + metrics.episodes.true_negatives
    return rewarded, failed, wilson_interval(rewarded, failed)[0] if failed else 0.0


def schema_hash(cameras: Mapping[str, CameraView], state: Sequence[str]) -> str:
    """Identify what a classifier looks at: cameras with native size, crop and size, and the numbers of the state."""
    return content_hash({"cameras": {name: asdict(cameras[name]) for name in sorted(cameras)}, "state": list(state)})


def classifier_version(folder: Path) -> str:
    """Identify a classifier by the content of both of its files, wherever they lie."""
    return content_hash([file_hash(folder / MANIFEST), file_hash(folder / WEIGHTS)])
