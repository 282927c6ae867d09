"""Shards: the offline buffer's content, a few episodes each, named by everything that decided it.

A shard is a folder with `columns.npy` (one structured row a control step), one `.npy` of uint8 images a
camera, and `shard.json`, written last. Shards are shared: a buffer is a list of them, so that a changed
episode costs the shards it lies in, an interrupted build goes on where it was, and two machines that
convert the same episodes write the same bytes.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from hilserl.config.models import Role, TrainConfig
from hilserl.data.convert import ROLES, PolicySteps, convert_steps, place
from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_cameras, decode_frames
from hilserl.data.frame_view import FrameView
from hilserl.data.interfaces import JointConverter, SuccessJudge
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CacheError, DatasetError, TrainingError
from hilserl.files import atomic_directory, file_hash, remove_abandoned
from hilserl.schema import IMAGE_PREFIX

FORMAT_VERSION = 1
COLUMNS = "columns.npy"
RECORD = "shard.json"
# A shard ends after an episode whose hash says so, one in `_CUT_ONE_IN`, or when it is full. The places thus
# depend on the episodes alone: inserting or changing one moves no boundary but its neighbours'.
_CUT_ONE_IN = 4
_MAX_FRAMES = 1024
_REPORT_EVERY = 32


@dataclass(frozen=True)
class ShardJob:
    """Work that can travel to another thread, process or machine.

    Attributes:
        key: Name of the shard: hash of everything that decides its content.
        config: The run's configuration, as it holds for this dataset.
        root: Folder of the dataset.
        positions: Places of the episodes in the dataset's episode table.
        frames: Recorded frames in them.
        role: What the dataset shows.
        source: Number of the dataset among the run's.
        converter: The arm's kinematics, or None where nothing is converted.
        judge: The success classifier, or None where the reward comes from elsewhere.
    """

    key: str
    config: TrainConfig
    root: Path
    positions: tuple[int, ...]
    frames: int
    role: Role
    source: int
    converter: JointConverter | None
    judge: SuccessJudge | None = None


@dataclass(frozen=True)
class ShardRecord:
    """What a shard says about itself.

    Attributes:
        format_version: Of the files.
        key: Its name.
        rows: Control steps.
        frames: Recorded frames that they were made from.
        episode_rows: Control steps of each episode, in order.
        positives: Rewarded steps of each episode, in order.
        transitions: Rows that are usable transitions.
        roles: Rows by role, in the order of `ROLES`.
        state_range: Lowest and highest value of each scalar of the state.
        action_range: The same of the action.
        clipped_steps: Steps whose motion was clipped.
        largest_motion: Largest motion along one axis before clipping, in the policy's units.
        residual_m: Sum and largest of the tool position errors [m]; None where no joints were converted.
        decoded: Images, all cameras.
        files: Size and SHA-256 by file name.
    """

    format_version: int
    key: str
    rows: int
    frames: int
    episode_rows: tuple[int, ...]
    positives: tuple[int, ...]
    transitions: int
    roles: tuple[int, ...]
    state_range: tuple[tuple[float, ...], tuple[float, ...]]
    action_range: tuple[tuple[float, ...], tuple[float, ...]]
    clipped_steps: int
    largest_motion: float
    residual_m: tuple[float, float] | None
    decoded: int
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of the shard in `folder`.

        Raises:
            CacheError: There is none, or it is of another format.
        """
        try:
            value = json.loads((folder / RECORD).read_text())
        except (OSError, ValueError) as error:
            raise CacheError(f"{folder.name}: no readable {RECORD} ({type(error).__name__})") from error
        if value.get("format_version") != FORMAT_VERSION:
            raise CacheError(f"{folder.name}: format {value.get('format_version')!r}, this version reads {FORMAT_VERSION}")
        return cls.from_dict(value)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Restore what `to_dict` returned, also after a round trip through JSON."""
        lists = {name: tuple(value[name]) for name in ("episode_rows", "positives", "roles")}
        ranges = {name: tuple(tuple(bound) for bound in value[name]) for name in ("state_range", "action_range")}
        residual = value["residual_m"]
        return cls(**{**value, **lists, **ranges, "residual_m": None if residual is None else tuple(residual)})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)


def shard_folder(store: Path, key: str) -> Path:
    """Return where the shard of `key` belongs."""
    return store / f"shard-{key}"


def group_episodes(lengths: Sequence[int], hashes: Sequence[str]) -> list[list[int]]:
    """Divide episodes, given by length and content hash, into consecutive shards; returns their places."""
    groups: list[list[int]] = [[]]
    frames = 0
    for position, (length, digest) in enumerate(zip(lengths, hashes, strict=True)):
        if groups[-1] and frames + length > _MAX_FRAMES:
            groups.append([])
            frames = 0
        groups[-1].append(position)
        frames += length
        if int(digest[:8], 16) % _CUT_ONE_IN == 0:
            groups.append([])
            frames = 0
    return [group for group in groups if group]


def convert_shard(job: ShardJob, store: Path, on_frames: Callable[[float], None] | None = None) -> ShardRecord:
    """Convert and decode the episodes of `job` into a shard in `store`, which appears complete or not at all.

    Args:
        job: What to convert.
        store: Folder of the shards.
        on_frames: Called now and then with the number of recorded frames done since the last call.

    Raises:
        DatasetError: An episode cannot be converted or decoded.
        CacheError: The disk is full.
    """
    folder = shard_folder(store, job.key)
    remove_abandoned(folder)
    dataset = Dataset.open(job.root).select(job.positions)
    judged = judge_episodes(dataset, job.judge) if job.judge else None
    steps = convert_steps(job.config, dataset, _own_converter(job.converter), job.role, judged)
    preprocessor = Preprocessor.from_config(job.config)
    report = on_frames or _ignore
    with atomic_directory(folder, durable=False) as temporary:
        np.save(temporary / COLUMNS, _table(steps), allow_pickle=False)
        share = job.frames / max(1, len(preprocessor.views))
        for camera in preprocessor.views:
            _write_images(dataset, steps, preprocessor, camera, temporary, lambda part: report(part * share))
        if not preprocessor.views:
            report(job.frames)
        record = _record(job, dataset, steps, temporary, len(preprocessor.views))
        (temporary / RECORD).write_text(json.dumps(record.to_dict(), sort_keys=True))
    return record


def judge_episodes(dataset: Dataset, judge: SuccessJudge) -> np.ndarray:
    """Let a success classifier see every frame; returns the reward of each, float32, shape (T,).

    Raises:
        DatasetError: The dataset lacks a camera that the classifier looks at.
    """
    missing = [camera for camera in judge.cameras if IMAGE_PREFIX + camera not in dataset.camera_keys]
    if missing:
        cameras = [key.removeprefix(IMAGE_PREFIX) for key in dataset.camera_keys]
        raise DatasetError(f"{dataset.root}: the success classifier looks at camera {missing}, the dataset has {cameras}")
    parts = []
    for position in range(len(dataset.episodes)):
        parts.append(judge.rewards(decode_cameras(dataset.select([position]), judge.cameras)))
    return np.concatenate(parts)


def _ignore(frames: float) -> None:
    pass


def _write_images(
    dataset: Dataset, steps: PolicySteps, preprocessor: Preprocessor, camera: str, folder: Path, report: Callable[[float], None]
) -> None:
    key, view = IMAGE_PREFIX + camera, preprocessor.views[camera]
    images = np.lib.format.open_memmap(folder / f"{key}.npy", mode="w+", dtype=np.uint8, shape=(len(steps.reward), *view.resize, 3))
    row_of = {int(frame): row for row, frame in enumerate(steps.frame_row)}
    wanted = {
        episode.index: steps.frame_row[(steps.frame_row >= episode.start) & (steps.frame_row < episode.stop)] - episode.start
        for episode in dataset.episodes
    }
    seen, done, reported = FrameView(view, key), 0, 0
    for frame_row, frame in decode_frames(dataset, key, wanted):
        try:
            images[row_of[frame_row]] = seen(frame)
        except TrainingError as error:
            raise DatasetError(f"{dataset.root}: {place(dataset, frame_row)}: {error}") from error
        done += 1
        if done - reported >= _REPORT_EVERY:
            report((done - reported) / len(steps.reward))
            reported = done
    report((done - reported) / len(steps.reward))
    del images


def _table(steps: PolicySteps) -> np.ndarray:
    """Return the columns as one structured array, shape (N,); episodes are numbered from 0 within the shard."""
    table = np.zeros(len(steps.reward), columns_dtype(steps.state.shape[1], steps.action.shape[1]))
    for name in ("state", "action", "reward", "terminated", "truncated", "has_next", "role"):
        table[name] = getattr(steps, name)
    table["episode"] = np.cumsum(np.diff(steps.episode_index, prepend=steps.episode_index[:1]) != 0)
    return table


def columns_dtype(state_dim: int, action_dim: int) -> np.dtype[Any]:
    """Describe one row of `columns.npy`."""
    return np.dtype(
        [
            ("state", np.float32, (state_dim,)),
            ("action", np.float32, (action_dim,)),
            ("reward", np.float32),
            ("episode", np.int32),
            ("terminated", np.bool_),
            ("truncated", np.bool_),
            ("has_next", np.bool_),
            ("role", np.uint8),
        ]
    )


def _record(job: ShardJob, dataset: Dataset, steps: PolicySteps, folder: Path, cameras: int) -> ShardRecord:
    lengths = [int((steps.episode_index == episode.index).sum()) for episode in dataset.episodes]
    positives = [int((steps.reward[steps.episode_index == episode.index] > 0).sum()) for episode in dataset.episodes]
    residual = steps.residual_m
    return ShardRecord(
        format_version=FORMAT_VERSION,
        key=job.key,
        rows=len(steps.reward),
        frames=job.frames,
        episode_rows=tuple(lengths),
        positives=tuple(positives),
        transitions=int((steps.terminated | steps.has_next).sum()),
        roles=tuple(int((steps.role == number).sum()) for number in range(len(ROLES))),
        state_range=_range(steps.state),
        action_range=_range(steps.action),
        clipped_steps=steps.clipped_steps,
        largest_motion=steps.largest_motion,
        residual_m=None if residual is None else (float(residual.sum()), float(residual.max())),
        decoded=len(steps.reward) * cameras,
        files={path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in sorted(folder.iterdir())},
    )


def _range(values: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(map(float, values.min(axis=0))), tuple(map(float, values.max(axis=0)))


_own = threading.local()


def _own_converter(converter: JointConverter | None) -> JointConverter | None:
    """Return this thread's own kinematics, made once: they own scratch memory."""
    if converter is None:
        return None
    known = getattr(_own, "converter", None)
    if known is None or known.version != converter.version:
        known = _own.converter = copy.copy(converter)
    return known
