"""What speaks against the success classifier that a configuration names; free of torch, so that it is asked before anything is done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import CameraView
from hilserl.errors import CheckpointError, ConfigError
from hilserl.reward.manifest import PAYS_FOR_FAILURES, USELESS, ClassifierManifest, held_out_metrics, rewarded_failures
from hilserl.schema import STATE_KEY, policy_schema
from hilserl.tracking.registry import fetch, find, is_model_uri

logger = logging.getLogger(__name__)


def resolve_success(config: TrainConfig) -> TrainConfig:
    """Name the version of a registered classifier that an alias means now: a run that goes on tomorrow is judged by the same.

    Raises:
        ServiceError: It is not in the registry, or that cannot be reached.
    """
    named = config.task.success.classifier
    if named is None or not is_model_uri(named):
        return config
    success = config.task.success.model_copy(update={"classifier": find(named, config=config.tracking).uri})
    return config.model_copy(update={"task": config.task.model_copy(update={"success": success})})


def check_classifier(config: TrainConfig) -> Path | None:
    """Return the folder of the classifier that judges, if it fits and knows success; None where none does.

    Raises:
        CheckpointError: It is missing or damaged.
        ConfigError: It looks at something else than this environment shows, or does not know success.
        ServiceError: It is not in the registry, or that cannot be reached.
    """
    named = config.task.success.classifier
    if named is None or config.success_by != "classifier":
        return None
    folder = fetch(named, config=config.tracking) if is_model_uri(named) else Path(named).expanduser()
    try:
        manifest = ClassifierManifest.read(folder)
    except CheckpointError as error:
        raise CheckpointError(f"task.success.classifier: {error}") from error
    if problems := misfits(manifest.cameras, manifest.state, config):
        raise ConfigError(
            f"task.success.classifier {named} (schema {manifest.schema_hash}) does not fit this environment: {'; '.join(problems)}."
        )
    metrics = held_out_metrics(manifest.training)
    if metrics and metrics.frames.balanced_accuracy < USELESS and not config.task.success.accept_poor_classifier:
        raise ConfigError(
            f"task.success.classifier {named} does not know success: balanced accuracy {metrics.frames.balanced_accuracy:.0%} on held-out "
            f"frames, {USELESS:.0%} is the least, guessing reaches 50 %. It would pay for failures. Label more episodes (`hilserl label`) "
            "and train it again (`hilserl classifier train`), or set `task.success.accept_poor_classifier: true` if you insist."
        )
    rewarded, failed, at_least = rewarded_failures(metrics) if metrics else (0, 0, 0.0)
    if at_least > PAYS_FOR_FAILURES and not config.task.success.accept_poor_classifier:
        raise ConfigError(
            f"task.success.classifier {named} pays for failures: it rewards {rewarded} of {failed} held-out episodes that failed, which is "
            f"more than {PAYS_FOR_FAILURES:.0%} with 95 % confidence. Record and label more episodes that only look like success, and "
            "train it again (`hilserl classifier train`), or set `task.success.accept_poor_classifier: true` if you insist."
        )
    return folder


def say_who_judges(training: Mapping[str, Any], version: str) -> None:
    """Log which classifier judges, and how good it was; warn where that is not known, or was poor."""
    metrics = held_out_metrics(training)
    if metrics is None:
        logger.warning(
            "Success classifier %s judges, and nothing says how good it is: train it with `hilserl classifier train`, which asks it "
            "about episodes that it never saw",
            version,
        )
        return
    frames, episodes = metrics.frames, metrics.episodes
    logger.log(
        logging.WARNING if frames.balanced_accuracy < USELESS else logging.INFO,
        "Success classifier %s judges. Held out: balanced accuracy %.0f %% of frames; %d of %d episodes right, %d failures called a "
        "success, %d successes called too early",
        version, 100 * frames.balanced_accuracy, episodes.right, episodes.total, episodes.false_positives, metrics.early,
    )  # fmt: skip
    for remark in training.get("remarks", ()):
        logger.info("It said after its training: %s", remark)


def misfits(views: Mapping[str, CameraView], state: Sequence[str], config: TrainConfig) -> list[str]:
    """Say what a classifier looks at that this environment does not show, or shows otherwise; empty where it fits.

    Args:
        views: How it sees each camera.
        state: Numbers of `observation.state` that it reads.
        config: Of the environment.
    """
    problems = []
    for camera, view in sorted(views.items()):
        if camera not in config.robot.cameras:
            problems.append(
                f"it looks at camera `{camera}`, the robot has {sorted(config.robot.cameras)}: add it, or train a classifier for those"
            )
            continue
        native = config.robot.cameras[camera].height, config.robot.cameras[camera].width
        if native != view.native:
            problems.append(
                f"camera `{camera}` delivers {native[0]}x{native[1]} px (height x width), learned from {view.native[0]}x{view.native[1]}: "
                "record at that size, or train it again"
            )
            continue
        image = config.observation.images.get(camera)
        crop = (image.crop or (0, 0, *native)) if image is not None else view.crop
        if crop != view.crop and not config.task.success.other_crop:
            problems.append(
                f"it sees the crop {list(view.crop)} [top, left, height, width] of camera `{camera}`, the policy {list(crop)}: train it "
                "with `--config` of this configuration, or set `task.success.other_crop: true` if that is meant"
            )
    if missing := sorted(set(state) - set(state_names(config))):
        problems.append(f"it reads `{missing[0]}` of the state, and observation.state is {list(config.observation.state)}")
    return problems


def state_names(config: TrainConfig) -> tuple[str, ...]:
    """Name the numbers of `observation.state`, in order."""
    return policy_schema(config).observation[STATE_KEY].names
