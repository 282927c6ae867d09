"""What a person said of the frames of a dataset: which of them show success.

A JSON file beside the dataset, never in it, so that nothing a person recorded is ever written to. An episode is
known by its content, not by its number: where it moved, its labels move with it; where its pictures or rows
changed, its labels are refused, and its neighbours keep theirs.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from hilserl.data.dataset import DONE_KEY, REWARD_KEY, Dataset
from hilserl.data.fingerprint import fingerprint
from hilserl.errors import DatasetError
from hilserl.files import write_json

FORMAT_VERSION = 1
SUFFIX = ".labels.json"
Range = tuple[int, int]
State = Literal["unseen", "success", "failure", "changed"]


@dataclass(frozen=True)
class EpisodeLabel:
    """What a person said of one episode.

    Attributes:
        index: Its number when it was labelled, for people.
        content: Hash of its pictures and rows but the marks.
        frames: How many it has.
        success: Frames that show success, ascending, disjoint ranges [start, stop); none: seen, and a failure.
        by: Who said so.
        at: When, ISO 8601 in UTC.
    """

    index: int
    content: str
    frames: int
    success: tuple[Range, ...]
    by: str
    at: str

    @property
    def is_failure(self) -> bool:
        """Whether the episode was seen and shows no success."""
        return not self.success

    def mask(self) -> np.ndarray:
        """Return which frames show success, bool, shape (T,)."""
        marked = np.zeros(self.frames, bool)
        for start, stop in self.success:
            marked[start:stop] = True
        return marked


class Labels:
    """The labels of one dataset, as it is now.

    Attributes:
        path: File beside the dataset.
        contents: Content of each episode by its number, in the order of the episode table.
        frames: Number of frames of each episode.
    """

    def __init__(self, path: Path, dataset: Path, contents: Mapping[int, str], frames: Mapping[int, int]) -> None:
        """Begin without labels; `Labels.load` is the usual way in.

        Args:
            path: File beside the dataset.
            dataset: Its folder, for messages.
            contents: Content of each episode by its number.
            frames: Number of frames of each episode.
        """
        self.path, self.contents, self.frames = path, dict(contents), dict(frames)
        self._dataset = dataset
        self._labels: dict[str, EpisodeLabel] = {}

    @classmethod
    def load(cls, dataset: Dataset, path: Path | None = None) -> Self:
        """Read the labels of a dataset; there may be none yet.

        Args:
            dataset: As it is now.
            path: File; by default `labels_file(dataset.root)`.

        Raises:
            DatasetError: The file is damaged or of another version, or the dataset cannot be read.
        """
        path = path or labels_file(dataset.root)
        contents = {episode.index: content for episode, content in zip(dataset.episodes, episode_contents(dataset), strict=True)}
        labels = cls(path, dataset.root, contents, {episode.index: episode.length for episode in dataset.episodes})
        labels._labels = {label.content: label for label in _read(path)} if path.exists() else {}
        return labels

    @property
    def episodes(self) -> tuple[int, ...]:
        """Numbers of all episodes, in the dataset's order."""
        return tuple(self.contents)

    @property
    def changed(self) -> dict[int, str]:
        """Why labels are refused, by episode: it was labelled with another content than it has."""
        places = {content: index for index, content in self.contents.items()}
        if any(places.get(label.content, label.index) != label.index for label in self._labels.values()):
            return {}  # episodes were numbered anew, so an episode without a label is just that
        reasons: dict[int, str] = {}
        for label in self._labels.values():
            content = self.contents.get(label.index)
            if label.content in places or content is None or content in self._labels:
                continue
            now = self.frames[label.index]
            was = f"{label.frames} frames, it has {now}" if label.frames != now else "other content"
            reasons[label.index] = (
                f"{self._dataset}: episode {label.index} was labelled by {label.by} on {label.at[:10]} with {was}: its pictures or rows "
                f"changed since. Label it again with `hilserl label {self._dataset}`, or restore the episode."
            )
        return reasons

    def get(self, episode: int) -> EpisodeLabel | None:
        """Return what was said of an episode, or None where nothing was.

        Raises:
            DatasetError: There is no such episode, or it changed since it was labelled.
        """
        if episode not in self.contents:
            raise DatasetError(f"{self._dataset}: no episode {episode}; it has {min(self.contents)} to {max(self.contents)}.")
        label = self._labels.get(self.contents[episode])
        if label is None and (reason := self.changed.get(episode)):
            raise DatasetError(reason)
        return label

    def state(self, episode: int) -> State:
        """Say how far an episode is."""
        if episode in self.changed:
            return "changed"
        label = self.get(episode)
        return "unseen" if label is None else "failure" if label.is_failure else "success"

    def success(self, episode: int) -> np.ndarray | None:
        """Return which frames of an episode show success, bool, shape (T,); None where nobody has said.

        Raises:
            DatasetError: There is no such episode, or it changed since it was labelled.
        """
        label = self.get(episode)
        return None if label is None else label.mask()

    def set(self, episode: int, success: Sequence[Range], by: str | None = None) -> EpisodeLabel:
        """Say which frames of an episode show success; none: it is a failure. `save` keeps it.

        Args:
            episode: Its number.
            success: Ranges [start, stop) in frames, in any order; those that touch become one.
            by: Who says so; by default the user of this machine.

        Raises:
            DatasetError: There is no such episode or frame.
        """
        if episode not in self.contents:
            raise DatasetError(f"{self._dataset}: no episode {episode}; it has {min(self.contents)} to {max(self.contents)}.")
        frames = self.frames[episode]
        for start, stop in success:
            if not 0 <= start < stop <= frames:
                raise DatasetError(f"{self._dataset}: episode {episode} has frames 0 to {frames - 1}; [{start}, {stop}) is not among them.")
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        label = EpisodeLabel(episode, self.contents[episode], frames, _joined(success), by or _user(), now)
        self.clear(episode)
        self._labels[label.content] = label
        return label

    def clear(self, episode: int) -> None:
        """Forget what was said of an episode, also of what it was before it changed. `save` keeps it so."""
        stale = set(self.changed) & {episode}
        self._labels = {
            content: label
            for content, label in self._labels.items()
            if content != self.contents[episode] and not (label.index in stale and content not in self.contents.values())
        }

    def save(self) -> Path:
        """Write the file, whole or not at all; labels of episodes that the dataset lacks now are kept."""
        labels = sorted(self._labels.values(), key=lambda label: (label.index, label.content))
        rows = [
            {
                "episode": label.index,
                "verdict": "failure" if label.is_failure else "success",
                "success": [list(span) for span in label.success],
                "frames": label.frames,
                "content": label.content,
                "by": label.by,
                "at": label.at,
            }
            for label in labels
        ]
        write_json(self.path, {"version": FORMAT_VERSION, "dataset": self._dataset.resolve().name, "episodes": rows})
        return self.path


def labels_file(root: Path) -> Path:
    """Return where the labels of the dataset at `root` lie: beside it."""
    root = root.resolve()
    return root.with_name(root.name + SUFFIX)


def episode_contents(dataset: Dataset) -> tuple[str, ...]:
    """Identify each episode by pictures and rows, whether and however its successes are marked."""
    unmarked = Dataset(dataset.root, dataset.info)
    unmarked.__dict__["frames"] = dataset.frames.drop(REWARD_KEY, DONE_KEY, strict=False)  # as `Dataset.select` makes a view
    return fingerprint(unmarked).episodes


def _joined(ranges: Sequence[Range]) -> tuple[Range, ...]:
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)


def _read(path: Path) -> list[EpisodeLabel]:
    """Read labels; a file that a person or another program damaged is refused, never half believed."""
    fix = "It is written by `hilserl label`: restore it, or move it away to label anew."
    try:
        value: Any = json.loads(path.read_text())
        version = value["version"]
        if version != FORMAT_VERSION:
            raise DatasetError(f"{path}: labels of format {version}, this reads {FORMAT_VERSION}. Update hilserl, or move the file away.")
        found = [_label(path, row) for row in value["episodes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: no readable labels ({type(error).__name__}: {error}). {fix}") from error
    for label in found:
        if any(not 0 <= start < stop <= label.frames for start, stop in label.success):
            raise DatasetError(f"{path}: episode {label.index} has {label.frames} frames and success at {list(label.success)}. {fix}")
    return found


def _label(path: Path, row: Any) -> EpisodeLabel:
    """Read what was said of one episode.

    Raises:
        DatasetError: A value is of another type than `save` writes, or the verdict contradicts the ranges.
    """
    episode = row["episode"]

    def check(is_right: bool, name: str, allowed: str) -> None:
        if not is_right:
            raise DatasetError(f"{path}: episode {episode!r}: `{name}` is {row[name]!r}; {allowed} is allowed. Correct it.")

    def is_count(number: Any) -> bool:
        return type(number) is int and number >= 0

    check(is_count(episode), "episode", "its number, without quotes,")
    check(is_count(row["frames"]), "frames", "their number, without quotes,")
    spans = row["success"]
    is_spans = isinstance(spans, list) and all(isinstance(span, list) and len(span) == 2 and all(map(is_count, span)) for span in spans)
    check(is_spans, "success", "a list of ranges [start, stop) in frames")
    for name in ("content", "by", "at"):
        check(isinstance(row[name], str), name, "text")
    if "verdict" in row:
        check(row["verdict"] in ("success", "failure"), "verdict", "`success` or `failure`")
        fits = "success" if spans else "failure"
        check(row["verdict"] == fits, "verdict", f"with `success: {spans}` only `{fits}`")
    return EpisodeLabel(
        episode, row["content"], row["frames"], _joined([(start, stop) for start, stop in spans]), row["by"], row["at"]
    )  # fmt: skip


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user's number, as in a container
        return "unknown"
