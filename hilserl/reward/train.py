"""Train a success classifier from marked datasets, and say honestly how good it is.

Episodes are divided in three, whole. It learns from the first; last epoch, calibration and threshold are chosen on the
second; what is reported is of the third, which decided nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.classifier import Recipe
from hilserl.data.preprocess import CameraView
from hilserl.errors import TrainingError
from hilserl.progress import Progress, publish
from hilserl.reward.calibration import fit_platt, reliability
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.debounce import Verdict, debounce
from hilserl.reward.fit import STAGE, Seen, fit, on_threads, probabilities_of
from hilserl.reward.hard_examples import hard_examples
from hilserl.reward.labelled import (
    Labelled,
    LabelledEpisode,
    Split,
    labelled_episodes,
    open_datasets,
    require_views,
    seen_images,
    seen_state,
    split_in_three,
    state_names,
    whole_views,
)
from hilserl.reward.manifest import PAYS_FOR_FAILURES, USELESS, rewarded_failures
from hilserl.reward.metrics import Metrics, measure

__all__ = ["HOLD_FRAMES", "STAGE", "HeldOut", "Recipe", "TrainedClassifier", "choose_threshold", "train_classifier"]

DEFAULT_THRESHOLD = 0.5
HOLD_FRAMES = 3
_CANDIDATES = (*np.round(np.arange(0.05, 0.96, 0.05), 2), 0.97, 0.98, 0.99, 0.995, 0.999, 0.9999)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One episode that decided nothing, and what is said of it.

    Attributes:
        episode: Which.
        seen: As the network saw it.
        verdict: What the classifier says.
    """

    episode: LabelledEpisode
    seen: Seen
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A classifier, not yet saved.

    Attributes:
        classifier: What was trained.
        split: The episodes it learned from, was chosen on, and was asked about.
        validation: Quality on the episodes that decided nothing.
        remarks: What a person should know before trusting it.
        held_out: Those episodes, one by one.
        hard: Frames of disagreements that decided nothing either.
    """

    classifier: SuccessClassifier
    split: Split
    validation: Metrics
    remarks: tuple[str, ...]
    held_out: tuple[HeldOut, ...]
    hard: tuple[Seen, ...] = ()


def train_classifier(
    roots: Sequence[Path],
    views: Mapping[str, CameraView] | None = None,
    recipe: Recipe | None = None,
    *,
    labels: Path | None = None,
    disagreements: Sequence[Path] = (),
) -> TrainedClassifier:
    """Train on datasets whose successes are labelled (`hilserl label`) or marked. Publishes `Progress("train-classifier")`.

    Args:
        roots: Folders of the datasets.
        views: Crop and resize by camera; None: whole pictures of all cameras, shrunk.
        recipe: How to train.
        labels: File of the labels, where there is one dataset and it is not beside it.
        disagreements: Folders of labelled frames on which person and classifier disagreed, to learn from too.

    Raises:
        DatasetError: Frames are not marked, cameras differ, or a video is damaged.
        TrainingError: Too few successes or failures to learn from, choose on and ask; or the training diverged.
    """
    recipe = recipe or Recipe()
    datasets = open_datasets(roots)
    views = dict(views or whole_views(datasets))
    require_views(datasets, views)
    state = state_names(datasets, recipe.state)
    hard = hard_examples(disagreements, views, recipe.seed, state)
    labelled = labelled_episodes(datasets, labels)
    try:
        split = split_in_three(labelled.episodes, recipe.validation_share, recipe.choice_share, recipe.seed)
    except TrainingError as error:
        if not (labelled.unlabelled or labelled.copies):
            raise
        raise TrainingError(
            f"{error} Left out: {len(labelled.unlabelled)} episodes that nobody labelled, {len(labelled.copies)} copies of others."
        ) from error
    hold_frames = recipe.hold_frames or min(HOLD_FRAMES, _usual_success(split.train))
    seen = _decoded((*split.train, *split.choice, *split.validation), views, state)
    first, second = len(split.train), len(split.train) + len(split.choice)
    learn, choose, ask = seen[:first], seen[first:second], seen[second:]
    with on_threads(recipe.threads):
        fitted = fit([*learn, *hard.learn], choose, views, recipe)
        network = fitted.network
        network.calibrate(*_calibration([probabilities_of(network, each) for each in choose], [each.success for each in choose]))
        threshold = choose_threshold(
            [probabilities_of(network, each) for each in choose],
            [each.success for each in choose],
            hold_frames,
            false_positive_rate=recipe.false_positive_rate,
        )
        told = [probabilities_of(network, each) for each in ask]
    truth = [each.success for each in ask]
    verdicts = _verdicts(told, threshold, hold_frames)
    metrics = measure(verdicts, truth, threshold)
    chosen = measure(
        _verdicts([probabilities_of(network, each) for each in choose], threshold, hold_frames),
        [each.success for each in choose],
        threshold,
    )
    remarks = _remarks(labelled, split, metrics, chosen, hold_frames, recipe)
    if hard.unlabelled:
        remarks += (f"{hard.unlabelled} frames of disagreements are not labelled yet: `hilserl label --disagreements FOLDER`",)
    claims = reliability(np.concatenate(told), np.concatenate(truth))
    training = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": recipe.seed,
        "recipe": recipe.model_dump(mode="json", exclude={"datasets", "images"}),
        "datasets": list(labelled.datasets),
        "episodes": {"train": _facts(split.train), "choice": _facts(split.choice), "validation": _facts(split.validation)},
        "disagreements": {
            "learned": sum(len(each.success) for each in hard.learn),
            "held_out": sum(len(each.success) for each in hard.held_out),
        },
        "epochs": fitted.epoch,
        "choice_loss": fitted.loss,
        "validation": metrics.to_dict(),
        "calibration_error": claims.error,
        "brier": claims.brier,
        "chosen_on_choice": ["epochs", "calibration", "threshold"],
        "remarks": list(remarks),
    }
    classifier = SuccessClassifier(network, views, threshold=threshold, hold_frames=hold_frames, training=training, state=state)
    held_out = tuple(HeldOut(*each) for each in zip(split.validation, ask, verdicts, strict=True))
    return TrainedClassifier(classifier, split, metrics, remarks, held_out, hard.held_out)


def choose_threshold(
    told: Sequence[np.ndarray], truth: Sequence[np.ndarray], hold_frames: int, *, false_positive_rate: float = 0.5
) -> float:
    """Choose the threshold that judges most episodes right, then most frames: 0.5 unless another is better.

    Only those count with which no larger share than `false_positive_rate` of the frames without success looks like one, nor of the
    episodes is rewarded that failed, or before it was time; if there is none, the strictest is taken.

    Args:
        told: Probability of each frame, shape (T,) an episode.
        truth: Frames that are success, bool, shape (T,) an episode.
        hold_frames: Of the debounce.
        false_positive_rate: The largest that is accepted.
    """
    scores: dict[float, tuple[float, float]] = {}
    for candidate in map(float, _CANDIDATES):
        metrics = measure(_verdicts(told, candidate, hold_frames), truth, candidate)
        wrong_frames = 1.0 - (metrics.frames.specificity or 0.0) if metrics.frames.specificity is not None else 0.0
        wrong_episodes = (metrics.episodes.false_positives + metrics.early) / max(1, metrics.episodes.total)
        if max(wrong_frames, wrong_episodes) <= false_positive_rate:
            scores[candidate] = (metrics.episodes.right - metrics.early, round(metrics.frames.balanced_accuracy, 4))
    if not scores:
        return float(_CANDIDATES[-1])
    best = max(scores.values())
    if scores.get(DEFAULT_THRESHOLD) == best:
        return DEFAULT_THRESHOLD
    equal = [candidate for candidate, value in scores.items() if value == best]
    return equal[len(equal) // 2]


def _calibration(told: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> tuple[float, float]:
    probability = np.concatenate(told).astype(np.float64).clip(1e-12, 1 - 1e-7)
    return fit_platt(np.log(probability / (1 - probability)), np.concatenate(truth))


def _verdicts(told: Sequence[np.ndarray], threshold: float, hold_frames: int) -> list[Verdict]:
    return [Verdict(probability, *debounce(probability >= threshold, hold_frames)) for probability in told]


def _decoded(episodes: Sequence[LabelledEpisode], views: Mapping[str, CameraView], state: Sequence[str]) -> list[Seen]:
    total, lock = sum(len(episode.success) for episode in episodes), threading.Lock()
    done = 0

    def count(frames: int) -> None:
        nonlocal done
        with lock:
            done += frames
            publish(Progress(STAGE, done=done, total=total, unit="frames", message="decoding"))

    images = seen_images(episodes, views, count)
    return [Seen(seen, seen_state(episode, state), episode.success) for seen, episode in zip(images, episodes, strict=True)]


def _usual_success(episodes: Sequence[LabelledEpisode]) -> int:
    """Return what nine of ten successes last at least [frames]: per episode its longest row of marked frames."""
    lengths = []
    for episode in episodes:
        if episode.success.any():
            edges = np.flatnonzero(np.diff(episode.success.astype(np.int8), prepend=0, append=0))
            lengths.append(int((edges[1::2] - edges[::2]).max()))
    return int(np.quantile(lengths, 0.1, method="lower"))


def _remarks(labelled: Labelled, split: Split, metrics: Metrics, chosen: Metrics, hold_frames: int, recipe: Recipe) -> tuple[str, ...]:
    remarks = []
    if labelled.copies:
        remarks.append(f"{len(labelled.copies)} episodes were left out as copies of others: {'; '.join(labelled.copies[:3])}")
    if labelled.unlabelled:
        remarks.append(
            f"{len(labelled.unlabelled)} episodes were left out, since nobody labelled them: {'; '.join(labelled.unlabelled[:3])}"
        )
    if (balanced := metrics.frames.balanced_accuracy) < USELESS:
        remarks.append(
            f"it does not know success: balanced accuracy {balanced:.0%} on held-out frames, guessing reaches 50 %. "
            "Does the camera see it? Mark more frames, or change the crop"
        )
    reached = 1.0 - (chosen.frames.specificity if chosen.frames.specificity is not None else 1.0)
    if reached > recipe.false_positive_rate or chosen.episodes.false_positives:
        remarks.append(
            f"no threshold keeps false successes at {recipe.false_positive_rate:.1%}: the strictest leaves {reached:.1%} of the frames and "
            f"{chosen.episodes.false_positives} of the failed episodes to choose on. Record more episodes that only look like success"
        )
    rewarded, failed, at_least = rewarded_failures(metrics)
    if rewarded:
        verdict = "it pays for failures: nothing may learn from it" if at_least > PAYS_FOR_FAILURES else "more failed episodes would tell"
        remarks.append(
            f"it rewards {rewarded} of {failed} held-out episodes that failed ({rewarded / failed:.0%}, at least {at_least:.1%} with 95 % "
            f"confidence; the aim is {recipe.false_positive_rate:.1%}): {verdict}. Record and mark more that only look like success"
        )
    if metrics.early:
        remarks.append(f"{metrics.early} held-out episodes were called successful before their first marked frame")
    if all(episode.success.any() for episode in split.validation):
        remarks.append("no held-out episode failed, so nothing is known of false successes but from single frames: add failed episodes")
    if len(split.validation) < 10:
        remarks.append(f"{len(split.validation)} held-out episodes say little: the interval behind the figure is wide")
    if hold_frames == 1:
        remarks.append(
            "hold_frames is 1: one frame decides and nothing is debounced, since successes are marked as single frames. Mark longer ranges"
        )
    return tuple(remarks)


def _facts(episodes: Sequence[LabelledEpisode]) -> list[dict[str, Any]]:
    return [
        {
            "dataset": str(episode.dataset.root),
            "episode": episode.index,
            "content": episode.content,
            "frames": len(episode.success),
            "positives": int(episode.success.sum()),
        }
        for episode in episodes
    ]
