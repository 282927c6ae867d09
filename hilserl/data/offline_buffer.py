"""Build the offline buffer once: every frame decoded once, stored as uint8 in memory-mapped files.

A buffer is a folder of `.npy` files, a `manifest.json` written last, and `model_input.png`, which shows
what the policy sees. Its name is the hash of everything that went in: the dataset's content, the
preprocessor, the conversion's settings and the code. A hit is believed only after the files on disk were
compared with the manifest.

Rows are frames, in the dataset's order. A row is a usable transition when it is terminated or has a next
row; the last frame of a truncated episode has no next observation and is left out (counted in the manifest).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

import hilserl.schema
from hilserl.config.models import TrainConfig
from hilserl.data import convert, dataset, decode, normalize, preprocess
from hilserl.data.convert import JointConverter, PolicySteps, convert_steps, place
from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_camera
from hilserl.data.manifest import FORMAT_VERSION, MANIFEST, OfflineBufferManifest, changed_inputs, verify_offline_buffer
from hilserl.data.normalize import StateNormalizer
from hilserl.data.picture import write_model_input
from hilserl.data.preprocess import Preprocessor
from hilserl.data.validation import validate_dataset
from hilserl.errors import CacheError, DatasetError, TrainingError
from hilserl.files import atomic_directory, canonical_json, content_hash, file_hash, file_lock, require_free_space, source_hash, write_json
from hilserl.progress import Progress, publish
from hilserl.schema import IMAGE_PREFIX, state_components

__all__ = [
    "STAGE",
    "OfflineBuffer",
    "OfflineBufferManifest",
    "build_offline_buffer",
    "get_or_build",
    "offline_buffer_folder",
    "offline_buffer_inputs",
    "offline_buffer_key",
    "verify_offline_buffer",
]

STAGE = "build-offline-buffer"
PICTURE = "model_input.png"
_PREFIX = "offline-buffer-"
_PUBLISH_EVERY_S = 0.2
_COLUMNS = ("state", "action", "reward", "terminated", "truncated", "has_next", "episode_index")


def offline_buffer_inputs(config: TrainConfig, root: Path, converter: JointConverter | None = None) -> dict[str, Any]:
    """Collect everything that decides a buffer's content, as plain JSON values; reads the whole dataset to hash it."""
    preprocessor, source = Preprocessor.from_config(config), Dataset.open(root)
    inputs = {
        "format_version": FORMAT_VERSION,
        "code": source_hash(convert, dataset, decode, normalize, preprocess, hilserl.schema, sys.modules[__name__]),
        "dataset": source.content_hash(),
        "preprocessor": preprocessor.to_dict(),
        "conversion": {
            "reward_from": config.dataset.reward_from,
            "done_from": config.dataset.done_from,
            "action_from": config.dataset.action_from,
            "allow_constant": list(config.observation.allow_constant),
        },
        "kinematics": converter.version if converter and convert.needs_kinematics(config, source) else None,
    }
    return json.loads(canonical_json(inputs))  # lists for tuples, as a manifest on disk has them


def offline_buffer_key(config: TrainConfig, root: Path, converter: JointConverter | None = None) -> str:
    """Hash `offline_buffer_inputs`."""
    return content_hash(offline_buffer_inputs(config, root, converter))


def offline_buffer_folder(cache_folder: Path, key: str) -> Path:
    """Return where the buffer of `key` belongs."""
    return cache_folder / f"{_PREFIX}{key}"


def build_offline_buffer(config: TrainConfig, root: Path, folder: Path, converter: JointConverter | None = None) -> OfflineBufferManifest:
    """Validate, convert and decode the dataset at `root` into `folder`, which appears complete or not at all.

    Publishes `Progress("build-offline-buffer")` in frames.

    Raises:
        DatasetError: The dataset cannot be used as configured, or a video is damaged.
        CacheError: Not enough space on the disk.
    """
    started = time.perf_counter()
    inputs = offline_buffer_inputs(config, root, converter)
    validate_dataset(config, root).raise_if_stopped()
    source = Dataset.open(root)
    steps = convert_steps(config, source, converter)
    preprocessor = Preprocessor.from_config(config)
    normalizer = StateNormalizer.fit(steps.state, state_components(config), config.observation.allow_constant)
    rows = len(steps.reward)
    image_bytes = sum(rows * int(np.prod(view.resize)) * 3 for view in preprocessor.views.values())
    needed = image_bytes + sum(getattr(steps, name).nbytes for name in _COLUMNS)
    require_free_space(folder.parent, int(needed * 1.05) + (1 << 20), f"the offline buffer of {rows} frames")
    with atomic_directory(folder) as temporary:
        for name in _COLUMNS:
            np.save(temporary / f"{name}.npy", getattr(steps, name), allow_pickle=False)
        first_frames = _decode_images(source, preprocessor, temporary, rows)
        write_model_input(temporary / PICTURE, first_frames)
        seconds = time.perf_counter() - started
        manifest = _manifest(inputs, steps, normalizer, temporary, seconds, rows * len(preprocessor.views))
        write_json(temporary / MANIFEST, manifest.to_dict())
    return OfflineBufferManifest.read(folder)


def get_or_build(
    config: TrainConfig, root: Path, cache_folder: Path, converter: JointConverter | None = None
) -> tuple[OfflineBufferManifest, bool, str]:
    """Return the buffer for these inputs, built if it is not there or no longer what its manifest says.

    One process builds at a time; the others wait and then use what it built.

    Returns:
        The manifest, whether it was there already, and why or why not.
    """
    inputs = offline_buffer_inputs(config, root, converter)
    key = content_hash(inputs)
    folder = offline_buffer_folder(cache_folder, key)
    with file_lock(cache_folder / f".{folder.name}.lock"):
        reasons = verify_offline_buffer(folder, key, inputs)
        if not reasons:
            return OfflineBufferManifest.read(folder), True, f"{folder.name}: verified on disk"
        reason = "; ".join(reasons) if folder.exists() else _why_new(cache_folder, inputs)
        publish(Progress(STAGE, message=f"building: {reason}"))
        return build_offline_buffer(config, root, folder, converter), False, reason


@dataclass(frozen=True, eq=False)
class OfflineBuffer:
    """A buffer opened for reading; arrays are memory-mapped, read-only, N rows.

    Attributes:
        manifest: What it holds.
        images: uint8, shape (N, H, W, 3), by image key with prefix.
        state: float32, shape (N, S), physical units.
        action: float32, shape (N, A), in [-1, 1].
        reward: float32, shape (N,).
        terminated: bool, shape (N,).
        truncated: bool, shape (N,).
        has_next: bool, shape (N,).
        episode_index: int64, shape (N,).
    """

    manifest: OfflineBufferManifest
    images: Mapping[str, np.ndarray]
    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    has_next: np.ndarray
    episode_index: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a buffer that `get_or_build` or `verify_offline_buffer` found good.

        Raises:
            CacheError: The manifest or a file is missing or has another shape.
        """
        manifest = OfflineBufferManifest.read(folder)
        arrays = {}
        for name in manifest.files:
            if not name.endswith(".npy"):
                continue
            try:
                arrays[name.removesuffix(".npy")] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise CacheError(f"{folder / name}: {error}. Delete the folder to rebuild it.") from error
        if any(len(array) != manifest.rows for array in arrays.values()):
            raise CacheError(f"{folder}: files have { ({n: len(a) for n, a in arrays.items()}) } rows, the manifest {manifest.rows}")
        images = {name: array for name, array in arrays.items() if name.startswith(IMAGE_PREFIX)}
        return cls(manifest, images, **{name: arrays[name] for name in _COLUMNS})

    @property
    def normalizer(self) -> StateNormalizer:
        """Scaling of the state, fitted on all rows."""
        return StateNormalizer.from_dict(self.manifest.normalizer)

    @property
    def transition_rows(self) -> np.ndarray:
        """Rows that are usable transitions, int64, ascending."""
        return np.flatnonzero(self.terminated | self.has_next)

    @property
    def next_rows(self) -> np.ndarray:
        """Row of the next observation of every transition, int64; a terminated one names itself (never bootstrapped)."""
        rows = self.transition_rows
        return np.where(self.has_next[rows], rows + 1, rows)


def _decode_images(source: Dataset, preprocessor: Preprocessor, folder: Path, rows: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decode all cameras into `folder`; return the first frame of each, raw and as the policy sees it."""
    first_frames: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    total, done, published = rows * len(preprocessor.views), 0, 0.0
    for camera, view in preprocessor.views.items():
        key = IMAGE_PREFIX + camera
        images = np.lib.format.open_memmap(folder / f"{key}.npy", mode="w+", dtype=np.uint8, shape=(rows, *view.resize, 3))
        for row, frame in decode_camera(source, key):
            try:
                images[row] = preprocessor.image(camera, frame)
            except TrainingError as error:
                raise DatasetError(f"{source.root}: {place(source, row)}: {error}") from error
            if row == 0:
                first_frames[camera] = (frame, images[0].copy())
            done += 1
            if time.monotonic() - published >= _PUBLISH_EVERY_S or done == total:
                published = time.monotonic()
                publish(Progress(STAGE, done, total, "frames", f"decoding {camera}"))
        images.flush()
        del images
    return first_frames


def _manifest(
    inputs: Mapping[str, Any], steps: PolicySteps, normalizer: StateNormalizer, folder: Path, seconds: float, decoded: int
) -> OfflineBufferManifest:
    files: dict[str, dict[str, Any]] = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in sorted(folder.iterdir())
    }
    usable = int((steps.terminated | steps.has_next).sum())
    residual = steps.residual_m
    return OfflineBufferManifest(
        format_version=FORMAT_VERSION,
        key=content_hash(inputs),
        inputs=inputs,
        files=files,
        rows=len(steps.reward),
        transitions=usable,
        dropped=len(steps.reward) - usable,
        episodes=len(np.unique(steps.episode_index)),
        positives_per_episode=tuple(steps.positives_per_episode().values()),
        normalizer=normalizer.to_dict(),
        clipped_steps=steps.clipped_steps,
        residual_m=None if residual is None else {"mean": float(residual.mean()), "max": float(residual.max())},
        size_bytes=sum(file["bytes"] for file in files.values()),
        seconds=round(seconds, 3),
        frames_per_s=round(decoded / seconds, 1),
        folder=folder,
    )


def _why_new(cache_folder: Path, inputs: Mapping[str, Any]) -> str:
    """Say what is different from the most similar buffer in the cache, the newest of several."""
    known = []
    for path in cache_folder.glob(f"{_PREFIX}*/{MANIFEST}"):
        try:
            manifest = OfflineBufferManifest.read(path.parent)
        except CacheError:
            continue  # Another format or damaged: it says nothing about these inputs.
        known.append((len(changed_inputs(manifest.inputs, inputs)), -path.stat().st_mtime, manifest))
    if not known:
        return "no buffer yet"
    nearest = min(known, key=lambda entry: entry[:2])[2]
    return f"compared with {nearest.folder.name}: " + "; ".join(changed_inputs(nearest.inputs, inputs))
