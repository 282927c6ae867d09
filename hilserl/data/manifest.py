"""What an offline buffer on disk claims to be, and whether it still is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from hilserl.errors import CacheError
from hilserl.files import file_hash

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class OfflineBufferManifest:
    """What a buffer holds and what it was made from.

    Attributes:
        format_version: Of the files.
        key: Hash of `inputs`.
        inputs: Everything that decides the content, by name.
        files: Size and SHA-256 by file name.
        rows: Frames stored.
        transitions: Rows that are usable transitions.
        dropped: Last frames of truncated episodes, which have no next observation.
        episodes: Number of episodes.
        positives_per_episode: Rewarded steps of each episode, in order.
        normalizer: `StateNormalizer.to_dict()` of all states.
        clipped_steps: Converted actions that were clipped to [-1, 1].
        residual_m: Mean and largest tool position error of converted actions [m]; None where none were converted.
        size_bytes: Of all files.
        seconds: What building took.
        frames_per_s: Decoded frames (all cameras) per second of building.
        folder: Where it lies on this machine; not stored.
    """

    format_version: int
    key: str
    inputs: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    rows: int
    transitions: int
    dropped: int
    episodes: int
    positives_per_episode: tuple[int, ...]
    normalizer: Mapping[str, Any]
    clipped_steps: int
    residual_m: Mapping[str, float] | None
    size_bytes: int
    seconds: float
    frames_per_s: float
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest in `folder`.

        Raises:
            CacheError: There is none, or it is not one of this format.
        """
        try:
            value = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise CacheError(
                f"{folder}: no readable {MANIFEST} ({type(error).__name__}: {error}). Delete the folder to rebuild it."
            ) from error
        if value.get("format_version") != FORMAT_VERSION:
            raise CacheError(
                f"{folder}: format {value.get('format_version')!r}, this version reads {FORMAT_VERSION}. Delete it to rebuild it."
            )
        value["positives_per_episode"] = tuple(value["positives_per_episode"])
        return cls(**value, folder=folder)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, without the folder."""
        value = asdict(self)
        del value["folder"]
        return value


def verify_offline_buffer(folder: Path, key: str, inputs: Mapping[str, Any] | None = None) -> list[str]:
    """Compare a buffer on disk with its manifest and with what is wanted.

    Args:
        folder: The buffer.
        key: What it must have been built from.
        inputs: The inputs behind `key`; with them the reasons name which input changed.

    Returns:
        Why it cannot be used, one sentence each; empty when it can.
    """
    if not folder.is_dir():
        return [f"{folder.name} does not exist"]
    try:
        manifest = OfflineBufferManifest.read(folder)
    except CacheError as error:
        return [str(error)]
    if manifest.key != key:
        return changed_inputs(manifest.inputs, inputs) if inputs else [f"it was built from other inputs (key {manifest.key}, wanted {key})"]
    reasons = []
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            reasons.append(f"{name} is missing")
        elif path.stat().st_size != expected["bytes"]:
            reasons.append(f"{name} has {path.stat().st_size} bytes, was written with {expected['bytes']}")
        elif file_hash(path) != expected["sha256"]:
            reasons.append(f"{name} has other content than was written (SHA-256 differs)")
    return reasons


def changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the inputs that differ, one sentence each."""
    names = {"code": "the code", "dataset": "the dataset's content", "kinematics": "the kinematics", "format_version": "the format"}
    reasons = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            reasons.append(f"{name} changed in {', '.join(keys)}")
        else:
            reasons.append(f"{names.get(name, name)} changed ({str(old)[:12]} → {str(new)[:12]})")
    return reasons
