"""Checkpoints of the learner: one folder each, renamed into place when complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hilserl.errors import CheckpointError
from hilserl.files import atomic_directory, file_hash, write_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """The learning state at one moment.

    Attributes:
        tensors: Networks, targets, optimisers, temperature and torch's generator.
        state: Counters and numpy's generator, JSON-serialisable.
    """

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


class CheckpointFolder:
    """Keeps the newest few checkpoints; the newest complete one is never removed first."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, checkpoint: Checkpoint, environment_steps: int) -> Path:
        """Write a checkpoint; on any failure the previous ones are untouched.

        Raises:
            CacheError: The disk is full.
        """
        target = self._folder / f"{environment_steps:09d}"
        with atomic_directory(target) as temporary:
            save_file(dict(checkpoint.tensors), temporary / "learner.safetensors")
            write_json(
                temporary / "state.json",
                {
                    "format_version": FORMAT_VERSION,
                    "sha256": file_hash(temporary / "learner.safetensors"),
                    "state": dict(checkpoint.state),
                },
            )
        for old in self._complete()[: -self._keep]:
            shutil.rmtree(old)
        return target

    def load_newest(self) -> Checkpoint | None:
        """Read the newest checkpoint that is intact; None when there is none at all.

        Raises:
            CheckpointError: Checkpoints exist, and none of them can be read.
        """
        problems = []
        for folder in reversed(self._complete()):
            try:
                return _load(folder)
            except CheckpointError as error:
                problems.append(str(error))
        if problems:
            raise CheckpointError("\n".join(problems) + "\nStart a new run with `--fresh`, or restore the folder.")
        return None

    def _complete(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.name.isdigit())


def _load(folder: Path) -> Checkpoint:
    try:
        header = json.loads((folder / "state.json").read_text())
        if header["format_version"] != FORMAT_VERSION:
            raise CheckpointError(f"{folder}: format version {header['format_version']}, this program reads {FORMAT_VERSION}.")
        if file_hash(folder / "learner.safetensors") != header["sha256"]:
            raise CheckpointError(f"{folder / 'learner.safetensors'}: the content does not match its checksum.")
        return Checkpoint(load_file(folder / "learner.safetensors"), header["state"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error!r}).") from None
