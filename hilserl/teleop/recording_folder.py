"""Where demonstrations gather: each episode is a dataset of its own the moment it ends, and all become one at the end.

So a kill at any moment loses the episode that is being recorded and no other. What is there already is never written to: with new
episodes it becomes a new dataset, which takes the old one's place in the end.

    demos/            the dataset
    .demos.parts/     finished episodes that are not in it yet: 000000/, 000001/, ...
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilserl.data.dataset import Dataset
from hilserl.data.editing.episodes import merge_datasets
from hilserl.errors import DatasetError
from hilserl.files import fsync_directory


class RecordingFolder:
    """One dataset in the making; one process at a time (`file_lock` is the caller's).

    Attributes:
        root: Folder of the dataset.
    """

    def __init__(self, root: Path, features: Mapping[str, Mapping[str, Any]], fps: float, *, resume: bool) -> None:
        """Look at what is there; nothing is changed but what an interrupted `finish` left undone.

        Args:
            root: Folder of the dataset.
            features: What will be recorded.
            fps: Frames per second.
            resume: Add to what is there.

        Raises:
            DatasetError: There is something, and `resume` was not said; or it is another kind of recording.
        """
        self.root = root
        self._parts, self._new, self._done, self._old = (
            root.with_name(f".{root.name}.{suffix}") for suffix in ("parts", "new", "done", "old")
        )
        self._recover()
        if not resume and (root.exists() or self._finished()):
            kept = (
                f"{root} exists" if root.exists() else f"{len(self._finished())} episodes of an interrupted recording are in {self._parts}"
            )
            raise DatasetError(f"{kept}: recording never overwrites. Add `--resume` to go on with it, or name another folder.")
        for there in (root, *self._finished()):
            if there.exists():
                _require_same_kind(there, features, fps)

    @property
    def episodes(self) -> int:
        """Episodes that are safe, in the dataset and beside it."""
        return (_count(self.root) if self.root.exists() else 0) + len(self._finished())

    def next_episode(self) -> Path:
        """Return the folder for one more episode, which does not exist yet."""
        self._parts.mkdir(parents=True, exist_ok=True)
        last = max((int(part.name) for part in self._finished()), default=-1)
        return self._parts / f"{last + 1:06d}"

    def finish(self) -> None:
        """Make one dataset of all episodes; nothing to do where there is no new one."""
        parts = self._finished()
        if not parts:
            return
        if len(parts) == 1 and not self.root.exists():
            parts[0].rename(self._new)
        else:
            merge_datasets([*([self.root] if self.root.exists() else []), *parts], self._new)
        self._parts.rename(self._done)  # from here on, the new dataset counts
        self._recover()

    def _recover(self) -> None:
        """Finish an interrupted `finish`, or undo it where the new dataset was not complete."""
        if self._done.exists():
            if self._new.exists():
                if self.root.exists():
                    self.root.rename(self._old)
                self._new.rename(self.root)
                fsync_directory(self.root.parent)
            shutil.rmtree(self._old, ignore_errors=True)
            shutil.rmtree(self._done)
        elif self._new.exists():
            if any(self._finished()) or self.root.exists():
                shutil.rmtree(self._new)  # a copy
            else:
                self._parts.mkdir(parents=True, exist_ok=True)
                self._new.rename(self._parts / "000000")  # the only episode there was
        for unfinished in self._parts.glob(".*.tmp"):
            shutil.rmtree(unfinished)

    def _finished(self) -> list[Path]:
        return sorted(part for part in self._parts.glob("*") if part.name.isdigit())


def _count(root: Path) -> int:
    return int(Dataset.open(root).info["total_episodes"])


def _require_same_kind(there: Path, features: Mapping[str, Mapping[str, Any]], fps: float) -> None:
    """Refuse to add to a recording with other features or another rate, before an hour is spent on it.

    Raises:
        DatasetError: Names the difference.
    """
    dataset = Dataset.open(there)
    found = {key: value for key, value in dataset.features.items() if key in features or key.startswith(("observation.", "action"))}
    wrong = [f"`{key}` is in one of them only" for key in sorted(found.keys() ^ features.keys())]
    for key in sorted(found.keys() & features.keys()):
        mine, its = features[key], found[key]
        if (mine["dtype"], list(mine["shape"]), mine["names"]) != (its["dtype"], list(its["shape"]), its["names"]):
            was, now = (f"{feature['dtype']} {list(feature['shape'])} {feature['names']}" for feature in (its, mine))
            wrong.append(f"`{key}` is {was}, now {now}")
    if float(dataset.info["fps"]) != float(fps):
        wrong.append(f"it has {dataset.info['fps']} frames per second, now {fps:g}")
    if wrong:
        raise DatasetError(f"{there}: what is there was recorded otherwise: {'; '.join(wrong)}. Record into another folder.")
