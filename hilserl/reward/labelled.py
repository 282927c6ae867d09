"""Episodes whose frames are marked as success or not: where they come from, and how they are divided."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilserl.data.dataset import DONE_KEY, REWARD_KEY, Dataset
from hilserl.data.decode import decode_camera
from hilserl.data.fingerprint import fingerprint
from hilserl.data.preprocess import CameraView
from hilserl.errors import DatasetError, TrainingError
from hilserl.schema import IMAGE_PREFIX

# Without a configuration: the whole picture, its longer side no more than this.
_LONGER_SIDE_PX = 128


@dataclass(frozen=True, eq=False)
class LabelledEpisode:
    """One episode of a dataset.

    Attributes:
        dataset: Where it lies.
        position: Its place in the episode table.
        index: Its number.
        content: Hash of its pictures and rows but the marks, the same wherever the episode lies.
        success: Frames that are marked as success, bool, shape (T,).
    """

    dataset: Dataset
    position: int
    index: int
    content: str
    success: np.ndarray

    @property
    def name(self) -> str:
        """Name it for people."""
        return f"{self.dataset.root} episode {self.index}"


@dataclass(frozen=True)
class Labelled:
    """What there is to learn from.

    Attributes:
        episodes: All different.
        copies: Names of the episodes that were left out, since they are there already.
        datasets: Folder and content hash of each dataset, as JSON values.
    """

    episodes: tuple[LabelledEpisode, ...]
    copies: tuple[str, ...]
    datasets: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Split:
    """Episodes to learn from, and episodes that are only asked afterwards."""

    train: tuple[LabelledEpisode, ...]
    validation: tuple[LabelledEpisode, ...]


def success_labels(dataset: Dataset) -> np.ndarray:
    """Return which frames are marked as success: `next.reward` above 0; bool, shape (T,).

    Raises:
        DatasetError: There is no such column, or it holds no numbers.
    """
    fix = f"`hilserl dataset mark-success {dataset.root} --from ranges.csv --into NEW_FOLDER` writes it."
    if REWARD_KEY not in dataset.frames.columns:
        raise DatasetError(f"{dataset.root}: no `{REWARD_KEY}` column, so nothing says which frames are successes. {fix}")
    reward = dataset.column(REWARD_KEY)
    if reward.ndim != 1 or not np.isfinite(reward.astype(np.float64)).all():
        raise DatasetError(f"{dataset.root}: `{REWARD_KEY}` must be one finite number a frame. {fix}")
    return reward.astype(np.float64) > 0


def episode_contents(dataset: Dataset) -> tuple[str, ...]:
    """Identify each episode by pictures and rows, whether and however its successes are marked."""
    unmarked = Dataset(dataset.root, dataset.info)
    unmarked.__dict__["frames"] = dataset.frames.drop(REWARD_KEY, DONE_KEY, strict=False)  # as `Dataset.select` makes a view
    return fingerprint(unmarked).episodes


def labelled_episodes(datasets: Sequence[Dataset]) -> Labelled:
    """List the episodes of all datasets, each once: a copy on the other side of the split would be a leak.

    Raises:
        DatasetError: Frames are not marked, or a file cannot be read.
    """
    found: dict[str, LabelledEpisode] = {}
    copies, facts = [], []
    for dataset in datasets:
        labels, contents = success_labels(dataset), episode_contents(dataset)
        facts.append({"root": str(dataset.root), "content": dataset.content_hash()})
        for position, content in enumerate(contents):
            episode = dataset.episodes[position]
            labelled = LabelledEpisode(dataset, position, episode.index, content, labels[episode.start : episode.stop])
            if content in found:
                copies.append(f"{labelled.name} is a copy of {found[content].name}")
            else:
                found[content] = labelled
    return Labelled(tuple(found.values()), tuple(copies), tuple(facts))


def split_by_episode(episodes: Sequence[LabelledEpisode], share: float, seed: int) -> Split:
    """Divide whole episodes: neighbouring frames are nearly the same picture, and on both sides they would test memory.

    Successful and failed episodes are divided separately, so that both sides have successes.

    Args:
        episodes: All different.
        share: Of the episodes held back.
        seed: Of the draw.

    Raises:
        TrainingError: One side would lack successes or failures; says what to add.
    """
    generator = np.random.default_rng(seed)
    successful = [place for place, episode in enumerate(episodes) if episode.success.any()]
    failed = [place for place, episode in enumerate(episodes) if not episode.success.any()]
    counts = f"{len(successful)} of {len(episodes)} episodes contain a success"
    if len(successful) < 2:
        raise TrainingError(
            f"{counts}, and two are needed, one to learn from and one to ask: record more, or mark the frames of success with "
            "`hilserl dataset mark-success DATASET --from ranges.csv --into NEW_FOLDER`."
        )
    held: set[int] = set()
    for places in (successful, failed):
        if len(places) > 1:
            held |= set(generator.permutation(places)[: min(len(places) - 1, max(1, round(share * len(places))))].tolist())
    split = Split(
        tuple(episode for place, episode in enumerate(episodes) if place not in held),
        tuple(episode for place, episode in enumerate(episodes) if place in held),
    )
    for name, side in (("learn from", split.train), ("ask", split.validation)):
        if all(episode.success.all() for episode in side):
            raise TrainingError(
                f"{counts}, and the {len(side)} to {name} show nothing but success: what is not success cannot be learned from them. "
                "Record failed episodes, or mark only the frames in which the task is done."
            )
    return split


def whole_views(datasets: Sequence[Dataset]) -> dict[str, CameraView]:
    """Choose whole pictures, shrunk, of every camera that all datasets have."""
    shared = set.intersection(*({key for key in dataset.camera_keys} for dataset in datasets))
    if not shared:
        raise DatasetError(f"{', '.join(str(dataset.root) for dataset in datasets)}: no camera that all of them have")
    views = {}
    for key in sorted(shared):
        height, width = datasets[0].shape(key)[:2]
        scale = min(1.0, _LONGER_SIDE_PX / max(height, width))
        views[key.removeprefix(IMAGE_PREFIX)] = CameraView(
            (height, width), (0, 0, height, width), (max(1, round(height * scale)), max(1, round(width * scale)))
        )
    return views


def require_views(datasets: Sequence[Dataset], views: Mapping[str, CameraView]) -> None:
    """Refuse datasets that lack a camera or have it at another size.

    Raises:
        DatasetError: Names dataset, camera and sizes.
    """
    for dataset in datasets:
        for camera, view in views.items():
            key = IMAGE_PREFIX + camera
            if key not in dataset.camera_keys:
                known = [key.removeprefix(IMAGE_PREFIX) for key in dataset.camera_keys]
                raise DatasetError(f"{dataset.root}: the success classifier looks at camera `{camera}`, the dataset has {known}")
            if dataset.shape(key)[:2] != view.native:
                height, width = dataset.shape(key)[:2]
                raise DatasetError(
                    f"{dataset.root}: camera `{camera}` is {height}x{width} px, the success classifier looks at {view.native[0]}x"
                    f"{view.native[1]}. Use datasets of one size, or state that size under `robot.cameras` of the configuration."
                )


def seen_images(
    episodes: Iterable[LabelledEpisode], views: Mapping[str, CameraView], on_frames: Callable[[int], None]
) -> list[dict[str, np.ndarray]]:
    """Decode episodes in threads, as the classifier sees them; uint8, shape (T, H, W, 3), by camera.

    Args:
        episodes: What to decode.
        views: Crop and resize of each camera.
        on_frames: Called with the number of frames done since the last call, from those threads.

    Raises:
        DatasetError: A video is missing or damaged; names episode and frame.
    """

    def decode(episode: LabelledEpisode) -> dict[str, np.ndarray]:
        alone = episode.dataset.select([episode.position])
        images = {}
        for camera, view in views.items():
            key = IMAGE_PREFIX + camera
            images[camera] = np.empty((len(episode.success), *view.resize, 3), np.uint8)
            for row, frame in decode_camera(alone, key):
                images[camera][row] = view.apply(frame, key)
        on_frames(len(episode.success))
        return images

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode") as pool:
        return list(pool.map(decode, episodes))


def open_datasets(roots: Sequence[Path]) -> list[Dataset]:
    """Open datasets.

    Raises:
        DatasetError: One cannot be opened, or none was named.
    """
    if not roots:
        raise DatasetError("no dataset was named")
    return [Dataset.open(root) for root in roots]
