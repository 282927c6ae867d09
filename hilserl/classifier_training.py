"""Train a success classifier once: found again by the content of its datasets, labels, recipe and code.

A folder of `HILSERL_HOME/classifiers/<key>` holds `classifier/` (the artefact that is registered and that the actor loads),
`report.html`, `report.md` and `figures.json`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.preprocess import CameraView
from hilserl.errors import CheckpointError, ConfigError, ServiceError
from hilserl.files import atomic_directory, content_hash, file_hash, file_lock, home, source_hash, write_atomically, write_json
from hilserl.reward.manifest import ClassifierManifest, classifier_version
from hilserl.tracking.registry import CANDIDATE, CHAMPION, Version, fetch, find_or_none, register, set_alias, set_tags

logger = logging.getLogger(__name__)

STAGE = "train-classifier"
ARTEFACT, PAGE, MARKDOWN, FIGURES = "classifier", "report.html", "report.md", "figures.json"


@dataclass(frozen=True)
class ClassifierRequest:
    """What is asked for.

    Attributes:
        config: Its `classifier` section is the recipe; cameras, crops and sizes come from it.
        datasets: Folders.
        disagreements: Folders of labelled frames on which person and classifier disagreed.
    """

    config: TrainConfig
    datasets: tuple[Path, ...]
    disagreements: tuple[Path, ...] = ()

    @classmethod
    def of(cls, config: TrainConfig, datasets: Sequence[Path] = (), disagreements: Sequence[Path] = ()) -> ClassifierRequest:
        """Take the datasets that are named, or those of `classifier.datasets`.

        Raises:
            ConfigError: There are none.
        """
        chosen = tuple(datasets) or config.classifier.datasets
        if not chosen:
            raise ConfigError("no dataset to learn success from: name folders, or set `classifier.datasets`.")
        return cls(config, chosen, tuple(disagreements))

    @property
    def views(self) -> dict[str, CameraView]:
        """Crop and size of each camera that it looks at: `classifier.images`, or what the policy sees."""
        views = {}
        for name, image in (self.config.classifier.images or self.config.observation.images).items():
            camera = self.config.robot.cameras[name]
            native = (camera.height, camera.width)
            views[name] = CameraView(native, image.crop or (0, 0, *native), image.resize)
        if not views:
            raise ConfigError("the success classifier has no camera to look at: set `classifier.images`, or `observation.images`.")
        return views


def classifier_inputs(request: ClassifierRequest) -> dict[str, Any]:
    """Return everything that decides the result, by name.

    Raises:
        DatasetError: A dataset cannot be opened.
    """
    from hilserl.report import classifier as page
    from hilserl.reward import augmentation, calibration, classifier, debounce, fit, hard_examples, labelled, metrics, network, train
    from hilserl.reward.labels import labels_file

    datasets = []
    for root in request.datasets:
        labels = labels_file(root)
        datasets.append([Dataset.open(root).content_hash(), file_hash(labels) if labels.is_file() else None])
    modules = (
        augmentation,
        calibration,
        classifier,
        debounce,
        fit,
        hard_examples,
        labelled,
        metrics,
        network,
        train,
        page,
        sys.modules[__name__],
    )
    return {
        "code": source_hash(*modules),
        "datasets": datasets,
        "disagreements": hard_examples.hard_examples_hash(request.disagreements),
        "recipe": request.config.classifier.model_dump(mode="json", exclude={"datasets", "images"}),
        "views": {name: [view.native, view.crop, view.resize] for name, view in sorted(request.views.items())},
    }


def classifier_folder(request: ClassifierRequest) -> Path:
    """Return where the result is kept."""
    return home() / "classifiers" / content_hash(classifier_inputs(request))


def verify_classifier(folder: Path) -> list[str]:
    """Say why the folder cannot be used; empty when it can."""
    if not folder.is_dir():
        return [f"{folder.name} does not exist yet"]
    missing = [f"{name} is missing" for name in (PAGE, MARKDOWN, FIGURES) if not (folder / name).is_file()]
    try:
        ClassifierManifest.read(folder / ARTEFACT)
        version = json.loads((folder / FIGURES).read_text())["version"] if not missing else None
        damaged = [] if version == classifier_version(folder / ARTEFACT) else ["the classifier is not the one of its figures"]
    except (CheckpointError, OSError, ValueError, KeyError) as error:
        return [*missing, str(error)]
    return [*missing, *damaged]


def get_or_train(request: ClassifierRequest) -> Path:
    """Return the folder of the trained classifier, training it if it is not there, whole.

    Raises:
        HilserlError: As `hilserl.reward.train.train_classifier`.
    """
    folder = classifier_folder(request)
    with file_lock(folder.with_name(f"{folder.name}.lock")):
        if verify_classifier(folder):
            train_into(request, folder)
    return folder


def train_into(request: ClassifierRequest, folder: Path) -> dict[str, Any]:
    """Train, judge and describe a classifier; `folder` appears whole, and what was there before goes. Returns the figures."""
    from hilserl.report.classifier import classifier_markdown, write_classifier_page
    from hilserl.reward.comparison import compare_versions
    from hilserl.reward.train import train_classifier

    trained = train_classifier(request.datasets, request.views, request.config.classifier, disagreements=request.disagreements)
    name, comparison = registered_name(request.config), None
    try:
        champion = _champion(request.config)
    except ServiceError as error:
        logger.warning("The new classifier is not compared with the champion: %s", error)
        champion = None
    with atomic_directory(folder) as temporary:
        trained.classifier.save(temporary / ARTEFACT)
        write_classifier_page(trained, temporary / PAGE, folder=folder / ARTEFACT)
        markdown = classifier_markdown(trained, folder / PAGE)
        if champion is not None:
            from hilserl.reward.classifier import SuccessClassifier

            old = SuccessClassifier.load(fetch(champion.uri, config=request.config.tracking))
            comparison = compare_versions(trained.classifier, old, trained.split.validation, trained.hard)
            markdown += f"\n## Beside {champion.uri}\n\n{comparison.markdown}\n"
        write_atomically(temporary / MARKDOWN, markdown.encode())
        figures = figures_of(trained) | {"model": name, "comparison": comparison.to_dict() if comparison else None}
        figures["compared_with"] = champion.uri if champion else None
        write_json(temporary / FIGURES, figures)
    return figures


def figures_of(trained: Any) -> dict[str, Any]:
    """Return what is reported of a classifier, as JSON values."""
    metrics, classifier = trained.validation, trained.classifier
    failed = metrics.episodes.false_positives + metrics.episodes.true_negatives
    return {
        "version": classifier.version,
        "schema_hash": classifier.schema_hash,
        "balanced_accuracy": metrics.frames.balanced_accuracy,
        "episodes_right": metrics.episodes.right,
        "episodes": metrics.episodes.total,
        "failed_episodes": failed,
        "wrongly_rewarded": metrics.episodes.false_positives,
        "missed": metrics.episodes.false_negatives,
        "early": metrics.early,
        "flickers": metrics.flickers,
        "calibration_error": classifier.training["calibration_error"],
        "brier": classifier.training["brier"],
        "threshold": classifier.threshold,
        "hold_frames": classifier.hold_frames,
        "remarks": list(trained.remarks),
    }


def registered_name(config: TrainConfig) -> str:
    """Return the name of this task's classifiers in the registry."""
    return f"hilserl-{config.task.type}-classifier"


def register_classifier(request: ClassifierRequest, folder: Path, *, run_id: str | None = None, promote: bool = False) -> Version:
    """Register a trained classifier as `candidate`; with `promote`, make it `champion` if it may replace the one that is.

    Raises:
        CheckpointError: It may not; says why.
        ServiceError: The registry cannot be used.
    """
    config, figures = request.config, json.loads((folder / FIGURES).read_text())
    name = registered_name(config)
    shown = ("version", "schema_hash", "balanced_accuracy", "wrongly_rewarded", "failed_episodes", "threshold", "hold_frames")
    tags = {f"hilserl.{key}": str(figures[key]) for key in shown}
    description = (folder / MARKDOWN).read_text()
    version = register(name, folder / ARTEFACT, run_id=run_id, tags=tags, description=description, config=config.tracking)
    set_alias(name, CANDIDATE, version.version, config=config.tracking)
    if promote:
        promote_classifier(request, folder, version)
    return version


def promote_classifier(request: ClassifierRequest, folder: Path, version: Version) -> None:
    """Make a candidate the champion, if nothing speaks against it on the episodes and the disagreements that it did not learn from.

    Raises:
        CheckpointError: It may not replace the champion, or was compared with another one.
        ServiceError: The registry cannot be used.
    """
    config, name = request.config, registered_name(request.config)
    champion = _champion(config)
    figures = json.loads((folder / FIGURES).read_text())
    if champion is not None and champion.version != version.version:
        if figures["compared_with"] != champion.uri:
            train_into(request, folder)  # another champion since: the comparison is made anew, and so is the same classifier
            figures = json.loads((folder / FIGURES).read_text())
        comparison: Mapping[str, Any] = figures["comparison"]
        if not comparison["may_replace"]:
            raise CheckpointError(
                f"{version.uri} stays a candidate and does not replace {champion.uri}: {'; '.join(comparison['against'])}. "
                f"Its report: {folder / PAGE}"
            )
    set_tags(version, {"hilserl.promoted_over": champion.uri if champion else "nothing"}, config=config.tracking)
    set_alias(name, CHAMPION, version.version, config=config.tracking)


def _champion(config: TrainConfig) -> Version | None:
    """Return the classifier that judges now, if there is one."""
    if not config.tracking.enable:
        return None
    return find_or_none(f"models:/{registered_name(config)}@{CHAMPION}", config=config.tracking)
