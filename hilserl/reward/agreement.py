"""Let a classifier judge a dataset, episode by episode, and compare with what is marked in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hilserl.data.dataset import REWARD_KEY, Dataset
from hilserl.data.decode import decode_camera
from hilserl.progress import Progress, publish
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.debounce import Verdict
from hilserl.reward.labelled import episode_contents, require_views, success_labels
from hilserl.schema import IMAGE_PREFIX

STAGE = "judge-dataset"
Known = Literal["trained on", "held out", "new"]


@dataclass(frozen=True, eq=False)
class JudgedEpisode:
    """One episode and its verdict.

    Attributes:
        index: Its number in the dataset.
        verdict: What the classifier says.
        marked: Frames marked as success, bool, shape (T,); None where the dataset does not say.
        known: Whether the classifier learned from this very episode: then agreement proves nothing.
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
    marked = success_labels(dataset) if REWARD_KEY in dataset.frames.columns else None
    contents = episode_contents(dataset)
    known: dict[str, Known] = {
        **{episode["content"]: "held out" for episode in classifier.training.get("episodes", {}).get("validation", [])},
        **{episode["content"]: "trained on" for episode in classifier.training.get("episodes", {}).get("train", [])},
    }
    for position, episode in enumerate(dataset.episodes):
        alone = dataset.select([position])
        views = [((camera, frame.image) for frame in decode_camera(alone, IMAGE_PREFIX + camera)) for camera in classifier.cameras]
        verdict = classifier.judge(dict(pairs) for pairs in zip(*views, strict=True))
        publish(Progress(STAGE, done=position + 1, total=len(dataset.episodes), unit="episodes", message="judging"))
        yield JudgedEpisode(
            episode.index,
            verdict,
            None if marked is None else marked[episode.start : episode.stop],
            known.get(contents[position], "new"),
        )
