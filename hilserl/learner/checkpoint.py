"""Checkpoints of the learner: one folder each, renamed into place when complete.

A checkpoint holds the learning state (tensors and counters) and the identity of the training that it
belongs to. The newest few are kept, and the one that the link `best` names.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hilserl.errors import CheckpointError
from hilserl.files import atomic_directory, file_hash, remove_abandoned, write_json

FORMAT_VERSION = 2

_NAME = re.compile(r"\d{9}(-\d+)*")
_BEST = "best"
_TENSORS, _STATE, _IDENTITY, _MANIFEST = "learner.safetensors", "state.json", "identity.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """The learning state at one moment.

    Attributes:
        tensors: Networks, targets, optimisers, temperature and torch's generator.
        state: Counters and generators, JSON-serialisable.
        identity: What the training is, as `hilserl.learner.identity.describe` made it.
        folder: Where it was read from; None for one that was not.
    """

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]
    identity: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None


class CheckpointFolder:
    """Keeps the newest few checkpoints and the best; the newest complete one is never removed first."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    @property
    def path(self) -> Path:
        """Where the checkpoints are."""
        return self._folder

    @property
    def best(self) -> Path | None:
        """The checkpoint that `best` names; None while there is none."""
        link = self._folder / _BEST
        return link.resolve() if link.exists() else None

    def save(self, checkpoint: Checkpoint, environment_steps: int, updates: int, *, is_best: bool = False) -> Path:
        """Write a checkpoint; on any failure the previous ones are untouched.

        Args:
            checkpoint: What to write.
            environment_steps: Names the folder, with `updates`.
            updates: Critic updates done.
            is_best: Let `best` name this one from now on.

        Raises:
            CacheError: The disk is full.
        """
        name = f"{environment_steps:09d}-{updates}"
        earlier = len(list(self._folder.glob(f"{name}*")))
        target = self._folder / (f"{name}-{earlier}" if earlier else name)
        with atomic_directory(target) as temporary:
            save_file(dict(checkpoint.tensors), temporary / _TENSORS)
            write_json(temporary / _STATE, {"state": dict(checkpoint.state)})
            write_json(temporary / _IDENTITY, dict(checkpoint.identity))
            files = {name: file_hash(temporary / name) for name in (_TENSORS, _STATE, _IDENTITY)}
            write_json(temporary / _MANIFEST, {"format_version": FORMAT_VERSION, "sha256": files})
        if is_best:
            self._mark_best(target)
        best = self.best
        for old in self.complete()[: -self._keep]:
            if old.resolve() != best:
                shutil.rmtree(old)
        return target

    def states(self) -> list[Mapping[str, Any]]:
        """Read the states of all that are kept, the newest first; one that cannot be read is left out."""
        found = []
        for folder in reversed(self.complete()):
            try:
                found.append(json.loads((folder / _STATE).read_text())["state"])
            except (OSError, ValueError, KeyError):
                continue
        return found

    def load_newest(self, check: Callable[[Checkpoint], None] = lambda checkpoint: None) -> Checkpoint | None:
        """Read the newest checkpoint that is intact; None when there is none at all.

        Args:
            check: Raises for a checkpoint that does not belong to this training; older ones are then not tried.

        Raises:
            CheckpointError: Checkpoints exist, and none of them can be read; or `check` refuses.
        """
        for left in self._folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            remove_abandoned(self._folder / left.name[1:].rsplit(".", 2)[0])
        problems = []
        for folder in reversed(self.complete()):
            try:
                checkpoint = load_checkpoint(folder)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            check(checkpoint)
            return checkpoint
        if problems:
            raise CheckpointError("\n".join(problems) + "\nStart a new run with `--fresh`, or restore the folder.")
        return None

    def _mark_best(self, folder: Path) -> None:
        temporary = self._folder / f".{_BEST}.link"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder.name)
        temporary.replace(self._folder / _BEST)

    def complete(self) -> list[Path]:
        """Return the folders of whole checkpoints, the oldest first."""
        if not self._folder.is_dir():
            return []
        found = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: [int(part) for part in path.name.split("-")])


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: It is damaged, or of another format.
    """
    try:
        if not (folder / _MANIFEST).exists() and (folder / _STATE).exists():
            raise CheckpointError(f"{folder}: a checkpoint of an earlier format; this program reads format {FORMAT_VERSION}.")
        manifest = json.loads((folder / _MANIFEST).read_text())
        if manifest["format_version"] != FORMAT_VERSION:
            raise CheckpointError(f"{folder}: format version {manifest['format_version']}, this program reads {FORMAT_VERSION}.")
        for name in (_TENSORS, _STATE, _IDENTITY):
            if file_hash(folder / name) != manifest["sha256"][name]:
                raise CheckpointError(f"{folder / name}: the content does not match its checksum.")
        state = json.loads((folder / _STATE).read_text())["state"]
        return Checkpoint(load_file(folder / _TENSORS), state, json.loads((folder / _IDENTITY).read_text()), folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error!r}).") from None
