"""One dataset and its labels, while somebody labels it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.data.dataset import REWARD_KEY, Dataset
from hilserl.errors import DatasetError
from hilserl.files import file_lock, home
from hilserl.labelling.frames import EpisodeFrames
from hilserl.reward.labels import Labels, Range, labels_file
from hilserl.schema import IMAGE_PREFIX


class LabellingSession:
    """What the page shows of a dataset, and what it says of it. Every change is on disk before it is answered.

    Attributes:
        dataset: What is labelled; never written to.
        labels: What was said so far.
        frames: Its pictures.
        by: Who labels.
    """

    def __init__(self, root: Path, file: Path | None = None, by: str | None = None) -> None:
        """Open a dataset and what was said of it before.

        Args:
            root: Folder of the dataset.
            file: Of the labels; by default beside the dataset.
            by: Who labels; by default the user of this machine.

        Raises:
            DatasetError: There is no dataset or no video in it, or the labels are damaged or would lie inside the dataset.
        """
        self.dataset = Dataset.open(root)
        self._positions = {episode.index: position for position, episode in enumerate(self.dataset.episodes)}
        videos = {key for episode in self.dataset.episodes for key in episode.videos}
        self.cameras = [key for key in self.dataset.camera_keys if key in videos]
        if not self.cameras:
            raise DatasetError(f"{root}: no camera with video, so there is nothing to look at.")
        file = file or labels_file(root)
        if root.resolve() in file.resolve().parents:
            raise DatasetError(f"{file}: labels are never written into the dataset. Give `--labels` a file outside of {root}.")
        self.labels = Labels.load(self.dataset, file)
        self.frames = EpisodeFrames(self.dataset)
        self.by = by
        self._files = _stamp(self.dataset)

    def alone(self) -> AbstractContextManager[None]:
        """Hold the labels for this process, as `alone`."""
        return alone(self.labels.path)

    def describe(self) -> dict[str, Any]:
        """Say everything the page needs to begin."""
        marked = self._marked()
        return {
            "name": self.dataset.root.resolve().name,
            "root": str(self.dataset.root),
            "file": str(self.labels.path),
            "fps": self.dataset.fps,
            "cameras": [{"key": key, "name": key.removeprefix(IMAGE_PREFIX)} for key in self.cameras],
            "episodes": [self.episode(index) | {"marked": marked.get(index)} for index in self.labels.episodes],
            "next": self.next_unseen(),
        }

    def episode(self, index: int) -> dict[str, Any]:
        """Say what is known of one episode."""
        state = self.labels.state(index)
        label = None if state == "changed" else self.labels.get(index)
        said = {"success": [list(span) for span in label.success], "by": label.by, "at": label.at} if label else {"success": []}
        return {
            "index": index,
            "frames": self.labels.frames[index],
            "state": state,
            "reason": self.labels.changed.get(index, ""),
            **said,
        }

    def next_unseen(self) -> int | None:
        """Return the first episode that is still to be labelled, in order; None when all are."""
        return next((index for index in self.labels.episodes if self.labels.state(index) in ("unseen", "changed")), None)

    def summary(self) -> str:
        """Say how far the labels are."""
        states = [self.labels.state(index) for index in self.labels.episodes]
        done = states.count("success") + states.count("failure")
        return (
            f"{self.labels.path}: {done} of {len(states)} episodes labelled, "
            f"{states.count('success')} with success, {states.count('failure')} failed"
        )

    def position(self, index: int) -> int:
        """Return the place of an episode in the episode table.

        Raises:
            DatasetError: There is no such episode.
        """
        if index not in self._positions:
            raise DatasetError(f"{self.dataset.root}: no episode {index}.")
        return self._positions[index]

    def say(self, index: int, success: Sequence[Range]) -> dict[str, Any]:
        """Keep what a person says of an episode.

        Raises:
            DatasetError: There is no such episode or frame, or the dataset's files changed since the page was opened.
        """
        self._require_same()
        self.labels.set(index, success, self.by)
        self.labels.save()
        return self.episode(index)

    def forget(self, index: int) -> dict[str, Any]:
        """Make an episode unseen again.

        Raises:
            DatasetError: As `say`.
        """
        self._require_same()
        self.labels.clear(index)
        self.labels.save()
        return self.episode(index)

    def _require_same(self) -> None:
        if _stamp(self.dataset) != self._files:
            raise DatasetError(
                f"{self.dataset.root}: its files changed while it was labelled, so what you see may not be what is there. "
                "Nothing was written; what you said before is kept. End `hilserl label` and start it again."
            )

    def _marked(self) -> dict[int, list[Range]]:
        """Return success as the dataset itself says it, where it does."""
        if REWARD_KEY not in self.dataset.frames.columns:
            return {}
        reward = self.dataset.column(REWARD_KEY)
        return {e.index: ranges_of(reward[e.start : e.stop] > 0) for e in self.dataset.episodes} if reward.ndim == 1 else {}


@contextmanager
def alone(labels: Path) -> Iterator[None]:
    """Hold a file of labels for this process.

    Raises:
        DatasetError: Somebody else labels it now.
    """
    name = hashlib.sha256(str(labels.resolve()).encode()).hexdigest()[:16]
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(home() / "labelling" / f"{name}.lock", timeout_s=0.2))
        except TimeoutError:
            raise DatasetError(f"{labels}: another `hilserl label` has it open. Use its page, or end it first.") from None
        yield


def ranges_of(mask: np.ndarray) -> list[Range]:
    """Return the true runs of a bool array, shape (T,), as ranges [start, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _stamp(dataset: Dataset) -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and times of all files: they tell of a change without reading anything."""
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in dataset.files())
