"""What an offline buffer on disk claims to be, and whether it still is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from hilserl.data.shards import RECORD, ShardRecord, shard_folder
from hilserl.errors import CacheError
from hilserl.hash_memo import HashMemo

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
SHARDS = "shards"
_VERIFIED = ".verified.json"


@dataclass(frozen=True)
class SourceRecord:
    """One dataset of a buffer.

    Attributes:
        root: Its folder when the buffer was built.
        weight: How often a transition of it is drawn, relative to 1.
        role: What it shows, as configured.
        episodes: Indices of the episodes taken.
        shards: Keys of its shards, in order.
        rows: Control steps.
    """

    root: str
    weight: float
    role: str
    episodes: tuple[int, ...]
    shards: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class OfflineBufferManifest:
    """What a buffer holds and what it was made from.

    Attributes:
        format_version: Of the files.
        key: Hash of `inputs`.
        inputs: Everything that decides the content, by name.
        sources: The datasets, in order.
        shards: Records of the shards by key.
        rows: Control steps stored.
        transitions: Rows that are usable transitions.
        dropped: Rows that are no transition: last steps of truncated episodes, and steps after a classifier's success.
        episodes: Number of episodes.
        positives_per_episode: Rewarded steps of each episode, in order.
        roles: Rows by role: demonstration, correction, failure.
        normalizer: `StateNormalizer.to_dict()` of all states.
        clipped_steps: Converted actions that were clipped to [-1, 1].
        residual_m: Mean and largest tool position error of converted actions [m]; None where none were converted.
        size_bytes: Of all files but the manifest.
        converted_shards: Shards that this build converted.
        reused_shards: Shards that were there already.
        seconds: What building took.
        frames_per_s: Recorded frames converted per second of building; 0 where all were there.
        folder: Where it lies on this machine; not stored.
    """

    format_version: int
    key: str
    inputs: Mapping[str, Any]
    sources: tuple[SourceRecord, ...]
    shards: Mapping[str, ShardRecord]
    rows: int
    transitions: int
    dropped: int
    episodes: int
    positives_per_episode: tuple[int, ...]
    roles: Mapping[str, int]
    normalizer: Mapping[str, Any]
    clipped_steps: int
    residual_m: Mapping[str, float] | None
    size_bytes: int
    converted_shards: int
    reused_shards: int
    seconds: float
    frames_per_s: float
    folder: Path

    @property
    def shard_store(self) -> Path:
        """Folder that holds the shards, beside the buffers that share them."""
        return self.folder.parent / SHARDS

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
        sources = tuple(
            SourceRecord(**{**source, "episodes": tuple(source["episodes"]), "shards": tuple(source["shards"])})
            for source in value["sources"]
        )
        shards = {key: ShardRecord.from_dict(record) for key, record in value["shards"].items()}
        positives = tuple(value["positives_per_episode"])
        return cls(**{**value, "sources": sources, "shards": shards, "positives_per_episode": positives}, folder=folder)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, without the folder."""
        value = asdict(self)
        del value["folder"]
        return value

    def summary(self) -> dict[str, Any]:
        """Return the numbers worth showing, without the lists of shards and inputs."""
        value = self.to_dict()
        return {name: value[name] for name in value if name not in ("inputs", "shards", "sources")}


def verify_offline_buffer(folder: Path, key: str, inputs: Mapping[str, Any] | None = None) -> list[str]:
    """Compare a buffer on disk with its manifest and with what is wanted.

    Files whose size and times are those of the last verification are not read again; after a restart of
    the machine every file is.

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
    memo = verified_memo(folder.parent)
    reasons = [reason for record in manifest.shards.values() for reason in verify_shard(manifest.shard_store, record, memo)]
    memo.save()
    return reasons


def verified_memo(cache_folder: Path) -> HashMemo:
    """Return the memory of which files under `cache_folder` were compared with their hashes since the machine started."""
    return HashMemo(cache_folder / _VERIFIED, this_boot_only=True)


def verify_shard(store: Path, record: ShardRecord, memo: HashMemo) -> list[str]:
    """Compare a shard's files with its record; one sentence for each that differs."""
    folder, reasons = shard_folder(store, record.key), []
    if not (folder / RECORD).is_file():
        return [f"{folder.name} is missing"]
    for name, expected in record.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            reasons.append(f"{folder.name}/{name} is missing")
            continue
        if size != expected["bytes"]:
            reasons.append(f"{folder.name}/{name} has {size} bytes, was written with {expected['bytes']}")
        elif memo.sha256(path) != expected["sha256"]:
            reasons.append(f"{folder.name}/{name} has other content than was written (SHA-256 differs)")
    return reasons


def is_whole(store: Path, key: str, memo: HashMemo) -> bool:
    """Tell whether a shard is there, as it was written."""
    try:
        return not verify_shard(store, ShardRecord.read(shard_folder(store, key)), memo)
    except CacheError:
        return False


def changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the inputs that differ, one sentence each."""
    names = {"code": "the code", "datasets": "the datasets' content", "kinematics": "the kinematics", "format_version": "the format"}
    reasons = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            reasons.append(f"{name} changed in {', '.join(keys)}")
        elif isinstance(old, list):
            reasons.append(f"{names.get(name, name)} changed")
        else:
            reasons.append(f"{names.get(name, name)} changed ({str(old)[:12]} → {str(new)[:12]})")
    return reasons
