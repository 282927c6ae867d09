"""Labelled frames on which person and classifier disagreed, as something to learn from and to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilserl.data.preprocess import CameraView
from hilserl.errors import DatasetError, TrainingError
from hilserl.files import content_hash, file_hash
from hilserl.reward.disagreements import ENTRY, Disagreement, Disagreements, labels_file
from hilserl.reward.fit import Seen
from hilserl.schema import IMAGE_PREFIX

_HELD_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class HardExamples:
    """Frames by episode, divided by whole episodes.

    Attributes:
        learn: To learn from.
        held_out: That are only asked.
        unlabelled: How many frames nobody has labelled yet.
    """

    learn: tuple[Seen, ...] = ()
    held_out: tuple[Seen, ...] = ()
    unlabelled: int = 0


def hard_examples(folders: Sequence[Path], views: Mapping[str, CameraView], seed: int, state: Sequence[str] = ()) -> HardExamples:
    """Read the labelled frames of some folders; episodes of one folder are on one side of the division only.

    Raises:
        DatasetError: A folder has none, or a picture is missing.
        TrainingError: A frame is of another camera or size than the classifier is to look at.
    """
    learn: list[Seen] = []
    held: list[Seen] = []
    unlabelled = 0
    for folder in folders:
        store = Disagreements(folder)
        entries, labels = store.entries(), store.labels()
        if not entries:
            raise DatasetError(f"{folder}: no frames of disagreements. An actor with `task.success.by: classifier` collects them.")
        groups: dict[tuple[str, int], list[tuple[Disagreement, bool]]] = {}
        for entry in entries:
            success = labels.get(entry.id, entry.human_says if entry.is_truth else None)
            if success is None:
                unlabelled += 1
            else:
                groups.setdefault((entry.run, entry.episode), []).append((entry, success))
        order = np.random.default_rng(seed).permutation(len(groups))
        apart = set(order[: round(_HELD_SHARE * len(groups))].tolist())
        for place, frames in enumerate(groups.values()):
            (held if place in apart else learn).append(_seen(frames, views, state))
    return HardExamples(tuple(learn), tuple(held), unlabelled)


def hard_examples_hash(folders: Sequence[Path]) -> str:
    """Identify frames and labels, by content."""
    facts = []
    for folder in folders:
        labels = labels_file(folder)
        facts.append([file_hash(file) for file in sorted(folder.glob(f"*/{ENTRY}"))] + [file_hash(labels) if labels.is_file() else ""])
    return content_hash(facts)


def _seen(frames: Sequence[tuple[Disagreement, bool]], views: Mapping[str, CameraView], state: Sequence[str]) -> Seen:
    for entry, _ in frames:
        if missing := sorted(set(views) - set(entry.cameras)):
            raise TrainingError(
                f"{entry.folder}: has no picture of camera `{missing[0]}`, at which it is to look; it has {list(entry.cameras)}. "
                "Train for those cameras, or leave these disagreements out."
            )
        if unread := sorted(set(state) - set(entry.state)):
            raise TrainingError(
                f"{entry.folder}: does not say `{unread[0]}` of the state, since what judged it did not read that. Leave these "
                "disagreements out, or `classifier.state`."
            )
    numbers = np.array([[entry.state[name] for name in state] for entry, _ in frames], np.float32).reshape(len(frames), len(state))
    images = {
        camera: np.stack([view.apply(entry.image(camera), f"{entry.folder} {IMAGE_PREFIX}{camera}") for entry, _ in frames])
        for camera, view in views.items()
    }
    return Seen(images, numbers, np.array([success for _, success in frames], bool))
