"""Let a classifier judge a dataset, episode by episode, and compare with what is marked in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hilserl.data.dataset import REWARD_KEY, Dataset
from hilserl.data.decode import decode_cameras
from hilserl.errors import DatasetError
from hilserl.progress import Progress, publish
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.debounce import Verdict
from hilserl.reward.labelled import require_views, success_labels
from hilserl.reward.labels import Labels, episode_contents, labels_file
from hilserl.schema import STATE_KEY

STAGE = "judge-dataset"
Known = Literal["trained on", "held out", "new"]


@dataclass(frozen=True, eq=False)
class JudgedEpisode:
    """One episode and its verdict.

    Attributes:
        index: Its number in the dataset.
        verdict: What the classifier says.
        marked: Frames marked as success, bool, shape (T,); None where the dataset does not say.
        known: Whether the classifier learned from this very episode, or was chosen on it: then agreement proves nothing.
    """

    index: int
    verdict: Verdict
    marked: np.ndarray | None
    known: Known

    @property
    def agreement(self) -> float | None:
        """Share of frames on which the debounced verdict is as marked."""
        return None if self.marked is None else float((self.verdict.success == self.marked).mean())


def judge_dataset(classifier: SuccessClassifier, root: Path) -> Iterator[JudgedEpisode]:
    """Judge every episode. Publishes `Progress("judge-dataset")` in episodes.

    Raises:
        DatasetError: A camera is missing or of another size, or a video is damaged.
    """
    dataset = Dataset.open(root)
    require_views([dataset], classifier.views)
    contents, labels = episode_contents(dataset), Labels.load(dataset) if labels_file(dataset.root).is_file() else None
    column = success_labels(dataset) if labels is None and REWARD_KEY in dataset.frames.columns else None
    parts = classifier.training.get("episodes", {})
    known: dict[str, Known] = {
        **{episode["content"]: "held out" for episode in parts.get("validation", [])},
        **{episode["content"]: "trained on" for episode in [*parts.get("choice", []), *parts.get("train", [])]},
    }
    for position, episode in enumerate(dataset.episodes):
        verdict = classifier.judge(frames_of(dataset, position, classifier))
        marked = None if column is None else column[episode.start : episode.stop]
        publish(Progress(STAGE, done=position + 1, total=len(dataset.episodes), unit="episodes", message="judging"))
        yield JudgedEpisode(
            episode.index,
            verdict,
            labels.success(episode.index) if labels is not None else marked,
            known.get(contents[position], "new"),
        )


def frames_of(dataset: Dataset, position: int, classifier: SuccessClassifier) -> Iterator[dict[str, np.ndarray]]:
    """Yield what a classifier looks at of one episode, frame by frame: native frames by camera, and its numbers of the state.

    Raises:
        DatasetError: The dataset does not name a number of the state, or a video is damaged.
    """
    alone = dataset.select([position])
    frames = decode_cameras(alone, classifier.cameras)
    if not classifier.state:
        yield from frames
        return
    names = dataset.names(STATE_KEY) or ()
    if missing := sorted(set(classifier.state) - set(names)):
        raise DatasetError(f"{dataset.root}: the success classifier reads `{missing[0]}`, which the dataset's {STATE_KEY} does not name")
    rows = alone.column(STATE_KEY)[:, [names.index(name) for name in classifier.state]]
    for images, row in zip(frames, rows, strict=True):
        yield {**images, STATE_KEY: row}
