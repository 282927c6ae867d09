"""Train a success classifier from marked datasets, and say honestly how good it is.

Stopping epoch and threshold are chosen on the held-out episodes, so their figures are a little kind; a dataset
that was never shown to the training, given to `judge_dataset`, has the last word.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from hilserl.data.augment import SHIFT_PX, ShiftableImages
from hilserl.data.preprocess import CameraView
from hilserl.errors import TrainingError
from hilserl.progress import Progress, publish
from hilserl.reward.classifier import SuccessClassifier, probabilities
from hilserl.reward.debounce import Verdict, debounce
from hilserl.reward.labelled import (
    Labelled,
    LabelledEpisode,
    Split,
    labelled_episodes,
    open_datasets,
    require_views,
    seen_images,
    split_by_episode,
    whole_views,
)
from hilserl.reward.metrics import Metrics, measure
from hilserl.reward.network import SuccessNetwork

STAGE = "train-classifier"
DEFAULT_THRESHOLD = 0.5
HOLD_FRAMES = 3
_BATCH = 64
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-4
# An epoch is at most this many pictures, so that large datasets report and stop as often as small ones.
_EPOCH_FRAMES = 2048
_USELESS = 0.75
# Below this validation loss nothing is left to learn; going on only makes it more certain of itself.
_LEARNED = 0.02
_CANDIDATES = np.round(np.arange(0.05, 0.96, 0.05), 2)

Images = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        seed: Of split, weights, order and shifts.
        validation_share: Of the episodes held back.
        max_epochs: Longest training.
        patience: Epochs without a better validation loss after which it stops.
        hold_frames: See `SuccessClassifier`; None: 3, or fewer where marked successes are shorter.
    """

    seed: int = 0
    validation_share: float = 0.25
    max_epochs: int = 40
    patience: int = 8
    hold_frames: int | None = None


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A classifier, not yet saved.

    Attributes:
        classifier: What was trained.
        split: The episodes it learned from and was asked about.
        validation: Quality on the held-out episodes.
        remarks: What a person should know before trusting it.
    """

    classifier: SuccessClassifier
    split: Split
    validation: Metrics
    remarks: tuple[str, ...]


def train_classifier(
    roots: Sequence[Path], views: Mapping[str, CameraView] | None = None, recipe: Recipe | None = None
) -> TrainedClassifier:
    """Train on datasets whose successful frames have `next.reward` above 0. Publishes `Progress("train-classifier")`.

    Args:
        roots: Folders of the datasets.
        views: Crop and resize by camera; None: whole pictures of all cameras, shrunk.
        recipe: How to train.

    Raises:
        DatasetError: Frames are not marked, cameras differ, or a video is damaged.
        TrainingError: Too few successes or failures to learn from and to ask; or the training diverged.
    """
    recipe = recipe or Recipe()
    datasets = open_datasets(roots)
    views = dict(views or whole_views(datasets))
    require_views(datasets, views)
    labelled = labelled_episodes(datasets)
    split = split_by_episode(labelled.episodes, recipe.validation_share, recipe.seed)
    hold_frames = recipe.hold_frames or min(HOLD_FRAMES, _shortest_success(split.train))
    train, validation = _decoded(split, views)
    with _one_thread():
        network, epochs, loss = _fit(split, train, validation, views, recipe)
        told = [probabilities_of(network, images) for images in validation]
    truth = [episode.success for episode in split.validation]
    threshold = choose_threshold(told, truth, hold_frames)
    metrics = measure(_verdicts(told, threshold, hold_frames), truth, threshold)
    remarks = _remarks(labelled, split, metrics, hold_frames)
    training = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": recipe.seed,
        "datasets": list(labelled.datasets),
        "episodes": {"train": _facts(split.train), "validation": _facts(split.validation)},
        "epochs": epochs,
        "validation_loss": loss,
        "validation": metrics.to_dict(),
        "chosen_on_validation": ["epochs", "threshold"],
        "remarks": list(remarks),
    }
    classifier = SuccessClassifier(network, views, threshold=threshold, hold_frames=hold_frames, training=training)
    return TrainedClassifier(classifier, split, metrics, remarks)


def choose_threshold(told: Sequence[np.ndarray], truth: Sequence[np.ndarray], hold_frames: int) -> float:
    """Choose the threshold that judges most episodes right, then most frames: 0.5 unless another is better.

    Args:
        told: Probability of each frame, shape (T,) an episode.
        truth: Frames that are success, bool, shape (T,) an episode.
        hold_frames: Of the debounce.
    """

    def score(threshold: float) -> tuple[float, float]:
        metrics = measure(_verdicts(told, threshold, hold_frames), truth, threshold)
        return metrics.episodes.right - metrics.early, round(metrics.frames.balanced_accuracy, 4)

    scores = {float(candidate): score(float(candidate)) for candidate in _CANDIDATES}
    best = max(scores.values())
    if scores[DEFAULT_THRESHOLD] == best:
        return DEFAULT_THRESHOLD
    equal = [candidate for candidate, value in scores.items() if value == best]
    return equal[len(equal) // 2]


def probabilities_of(network: SuccessNetwork, images: Images) -> np.ndarray:
    """Return the probability of each frame of one episode as the network sees it, float32, shape (T,)."""
    count = len(next(iter(images.values())))
    batches = [{camera: torch.from_numpy(i[start : start + _BATCH]) for camera, i in images.items()} for start in range(0, count, _BATCH)]
    return np.concatenate([probabilities(network, batch) for batch in batches])


def _verdicts(told: Sequence[np.ndarray], threshold: float, hold_frames: int) -> list[Verdict]:
    return [Verdict(probability, *debounce(probability >= threshold, hold_frames)) for probability in told]


def _decoded(split: Split, views: Mapping[str, CameraView]) -> tuple[list[Images], list[Images]]:
    episodes = (*split.train, *split.validation)
    total, lock = sum(len(episode.success) for episode in episodes), threading.Lock()
    done = 0

    def count(frames: int) -> None:
        nonlocal done
        with lock:
            done += frames
            publish(Progress(STAGE, done=done, total=total, unit="frames", message="decoding"))

    images = seen_images(episodes, views, count)
    return images[: len(split.train)], images[len(split.train) :]


def _fit(
    split: Split, train: list[Images], validation: list[Images], views: Mapping[str, CameraView], recipe: Recipe
) -> tuple[SuccessNetwork, int, float]:
    """Train the whole network; returns it as it was at its lowest validation loss, that epoch, and that loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = SuccessNetwork({camera: view.resize for camera, view in views.items()})
    generator = np.random.default_rng(recipe.seed)
    labels = np.concatenate([episode.success for episode in split.train])
    held = torch.from_numpy(np.concatenate([episode.success for episode in split.validation]).astype(np.float32))
    # A rare success weighs as much as all the failures around it.
    weight = torch.tensor((~labels).sum() / labels.sum(), dtype=torch.float32)
    draw = _shiftable(train, views)
    optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    best, best_epoch, best_loss = copy.deepcopy(network.state_dict()), 0, float("inf")
    for epoch in range(1, recipe.max_epochs + 1):
        network.train()
        order = generator.permutation(len(labels))[:_EPOCH_FRAMES]
        for rows in np.array_split(order, max(1, len(order) // _BATCH)):
            logits = network(draw(rows, generator))
            loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels[rows].astype(np.float32)), pos_weight=weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        network.eval()
        told = torch.from_numpy(np.concatenate([probabilities_of(network, images) for images in validation]))
        held_loss = float(F.binary_cross_entropy(told, held, weight=torch.where(held > 0, weight, 1.0)))
        if not np.isfinite(held_loss):
            raise TrainingError(f"training the success classifier diverged in epoch {epoch}: its loss is {held_loss}. Change the seed.")
        if held_loss < best_loss:
            best, best_epoch, best_loss = copy.deepcopy(network.state_dict()), epoch, held_loss
        values = {"train_loss": float(loss.detach()), "validation_loss": held_loss}
        publish(Progress(STAGE, done=epoch, total=recipe.max_epochs, unit="epochs", message="training", values=values))
        if best_loss < _LEARNED or epoch - best_epoch >= recipe.patience:
            break
    network.load_state_dict(best)
    return network, best_epoch, best_loss


def _shiftable(
    train: list[Images], views: Mapping[str, CameraView]
) -> Callable[[np.ndarray, np.random.Generator], dict[str, torch.Tensor]]:
    """Store the training images so that batches are drawn randomly shifted."""
    stores = {}
    for camera, view in views.items():
        count = sum(len(images[camera]) for images in train)
        stores[camera] = ShiftableImages(count, (*view.resize, 3), SHIFT_PX)
        row = 0
        for images in train:
            for image in images.pop(camera):
                stores[camera][row] = image
                row += 1

    def draw(rows: np.ndarray, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        return {camera: torch.from_numpy(store.randomly_shifted(rows, generator)) for camera, store in stores.items()}

    return draw


def _shortest_success(episodes: Sequence[LabelledEpisode]) -> int:
    """Return the length of the shortest success: per episode its longest row of marked frames."""
    lengths = []
    for episode in episodes:
        if episode.success.any():
            edges = np.flatnonzero(np.diff(episode.success.astype(np.int8), prepend=0, append=0))
            lengths.append(int((edges[1::2] - edges[::2]).max()))
    return min(lengths)


def _remarks(labelled: Labelled, split: Split, metrics: Metrics, hold_frames: int) -> tuple[str, ...]:
    remarks = []
    if labelled.copies:
        remarks.append(f"{len(labelled.copies)} episodes were left out as copies of others: {'; '.join(labelled.copies[:3])}")
    if (balanced := metrics.frames.balanced_accuracy) < _USELESS:
        remarks.append(
            f"it does not know success: balanced accuracy {balanced:.0%} on held-out frames, guessing reaches 50 %. "
            "Does the camera see it? Mark more frames, or change the crop"
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: networks this small gain nothing from more, and the same seed gives the same weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
