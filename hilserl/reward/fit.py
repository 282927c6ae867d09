"""Fit the network: the whole of it, or, behind a frozen backbone, projection and head."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hilserl.config.classifier import Recipe
from hilserl.data.augment import ShiftableImages
from hilserl.data.preprocess import CameraView
from hilserl.errors import TrainingError
from hilserl.progress import Progress, publish
from hilserl.reward.augmentation import relit
from hilserl.reward.classifier import probabilities
from hilserl.reward.network import SuccessNetwork
from hilserl.vision.pretrained import load_pretrained, with_network

STAGE = "train-classifier"
_BATCH = 64
_LEARNING_RATE = 1e-3
_PRETRAINED_RATE = 1e-4
_WEIGHT_DECAY = 1e-4
# Below this loss nothing is left to learn; going on only makes it more certain of itself.
_LEARNED = 0.02
_SMALLEST_DEVIATION = 1e-6
_LARGEST_DECAY = 0.99
_VIEWS = 4  # of each picture, in other lights and places, whose features a frozen backbone computes once

Images = dict[str, np.ndarray]
Draw = Callable[[np.ndarray, np.random.Generator], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Seen:
    """One episode as the network sees it.

    Attributes:
        images: uint8, shape (T, H, W, 3), by camera.
        state: Numbers of the state that are read, float32, shape (T, S); S may be 0.
        success: Frames that are marked, bool, shape (T,).
    """

    images: Images
    state: np.ndarray
    success: np.ndarray


@dataclass(frozen=True, eq=False)
class Fitted:
    """The network as it was at its lowest loss on the episodes to choose on.

    Attributes:
        network: Not calibrated.
        epoch: Of the lowest loss, counted from 1.
        loss: That loss.
    """

    network: SuccessNetwork
    epoch: int
    loss: float


def fit(train: Sequence[Seen], choice: Sequence[Seen], views: Mapping[str, CameraView], recipe: Recipe) -> Fitted:
    """Train; the pictures of `train` are taken out of it, to hold them in memory once.

    Raises:
        TrainingError: The loss is not finite.
    """
    generator = np.random.default_rng(recipe.seed)
    network = _build(train, views, recipe)
    labels = np.concatenate([episode.success for episode in train]).astype(np.float32)
    states = torch.from_numpy(np.concatenate([episode.state for episode in train]))
    held = torch.from_numpy(np.concatenate([episode.success for episode in choice]).astype(np.float32))
    # A rare success weighs as much as all the failures around it.
    weight = torch.tensor((labels == 0).sum() / labels.sum(), dtype=torch.float32)
    draw = shiftable([episode.images for episode in train], views, recipe)
    features = _frozen_features(network, draw, len(labels), generator) if network.resnet is not None and recipe.freeze else None
    optimizer = torch.optim.AdamW(_parameters(network, recipe), weight_decay=_WEIGHT_DECAY)
    batches = max(1, min(len(labels), recipe.epoch_frames) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.max_epochs * batches, eta_min=0.0)
    average = copy.deepcopy(network)  # of the last weights: what is kept, since single steps on so few pictures scatter
    steps = 0
    best, best_epoch, best_loss = copy.deepcopy(network.state_dict()), 0, float("inf")
    for epoch in range(1, recipe.max_epochs + 1):
        network.train()
        order = generator.permutation(len(labels))[: recipe.epoch_frames]
        for rows in np.array_split(order, batches):
            state = states[rows] if network.state_size else None
            if features is None:
                logits = network(draw(rows, generator), state)
            else:
                logits = network.judge(features[torch.from_numpy(generator.integers(0, len(features), len(rows))), rows], state)
            loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels[rows]), pos_weight=weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            steps += 1
            _move(average, network, min(_LARGEST_DECAY, steps / (steps + 10)))
        average.eval()
        told = torch.from_numpy(np.concatenate([probabilities_of(average, episode) for episode in choice]))
        held_loss = float(F.binary_cross_entropy(told, held, weight=torch.where(held > 0, weight, 1.0)))
        if not np.isfinite(held_loss):
            raise TrainingError(f"training the success classifier diverged in epoch {epoch}: its loss is {held_loss}. Change the seed.")
        if held_loss < best_loss:
            best, best_epoch, best_loss = copy.deepcopy(average.state_dict()), epoch, held_loss
        values = {"train_loss": float(loss.detach()), "validation_loss": held_loss}
        publish(Progress(STAGE, done=epoch, total=recipe.max_epochs, unit="epochs", message="training", values=values))
        if best_loss < _LEARNED or epoch - best_epoch >= recipe.patience:
            break
    network.load_state_dict(best)
    return Fitted(network.eval(), best_epoch, best_loss)


def probabilities_of(network: SuccessNetwork, episode: Seen) -> np.ndarray:
    """Return the probability of each frame of one episode, float32, shape (T,)."""
    parts = []
    for start in range(0, len(episode.success), _BATCH):
        batch = {camera: torch.from_numpy(images[start : start + _BATCH]) for camera, images in episode.images.items()}
        state = torch.from_numpy(episode.state[start : start + _BATCH]) if network.state_size else None
        parts.append(probabilities(network, batch, state))
    return np.concatenate(parts)


def shiftable(train: Sequence[Images], views: Mapping[str, CameraView], recipe: Recipe) -> Draw:
    """Store the training images so that batches are drawn shifted, and each camera's in other light."""
    stores = {}
    for camera, view in views.items():
        count = sum(len(images[camera]) for images in train)
        stores[camera] = ShiftableImages(count, (*view.resize, 3), recipe.augmentation.shift_px)
        row = 0
        for images in train:
            for image in images.pop(camera):
                stores[camera][row] = image
                row += 1

    def draw(rows: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        return {
            camera: torch.from_numpy(relit(store.randomly_shifted(rows, generator), recipe.augmentation, generator))
            for camera, store in stores.items()
        }

    return draw


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute on so many cores: with as many as before, the same seed gives the same weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _move(average: SuccessNetwork, network: SuccessNetwork, decay: float) -> None:
    """Move an average of weights a little towards the present ones."""
    theirs = dict(network.named_parameters())
    for name, mine in average.named_parameters():
        mine.lerp_(theirs[name], 1 - decay)


def _build(train: Sequence[Seen], views: Mapping[str, CameraView], recipe: Recipe) -> SuccessNetwork:
    sizes = {camera: view.resize for camera, view in views.items()}
    pretrained = with_network(recipe.encoder()) if recipe.backbone == "pretrained" else None
    states = np.concatenate([episode.state for episode in train])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = SuccessNetwork(
            sizes,
            channels=recipe.channels,
            hidden=recipe.hidden,
            resnet=pretrained.network if pretrained else None,
            state_size=states.shape[1],
        )
    if pretrained is not None:
        encoders = load_pretrained(pretrained, sizes)
        network.load_encoders(encoders)
    if network.state_size:
        network.state_mean.copy_(torch.from_numpy(states.mean(0)))
        network.state_deviation.copy_(torch.from_numpy(states.std(0).clip(_SMALLEST_DEVIATION)))
    return network


def _parameters(network: SuccessNetwork, recipe: Recipe) -> list[dict[str, object]]:
    """Choose what is trained, and how fast."""
    behind = [*network.projection.parameters(), *network.head.parameters()]
    groups: list[dict[str, object]] = [{"params": behind, "lr": _LEARNING_RATE}]
    if network.resnet is None:
        groups.append({"params": list(network.encoders.parameters()), "lr": _LEARNING_RATE})
    elif not recipe.freeze:
        groups.append({"params": list(network.encoders.parameters()), "lr": _PRETRAINED_RATE})
    return groups


@torch.no_grad()
def _frozen_features(network: SuccessNetwork, draw: Draw, count: int, generator: np.random.Generator) -> Tensor:
    """Compute what a frozen backbone sees of some views of each picture, once; shape (views, N, F)."""
    found, total = [], _VIEWS * count
    for view in range(_VIEWS):
        parts = []
        for start in range(0, count, _BATCH):
            rows = np.arange(start, min(start + _BATCH, count))
            parts.append(network.features(draw(rows, generator)))
            publish(Progress(STAGE, done=view * count + int(rows[-1]) + 1, total=total, unit="features", message="computing"))
        found.append(torch.cat(parts))
    return torch.stack(found)
