"""Episodes whose frames are marked as success or not: where they come from, and how they are divided."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilserl.data.dataset import REWARD_KEY, Dataset
from hilserl.data.decode import decode_camera
from hilserl.data.preprocess import CameraView
from hilserl.errors import DatasetError, TrainingError
from hilserl.files import file_hash
from hilserl.reward.labels import Labels, episode_contents, labels_file
from hilserl.schema import IMAGE_PREFIX, STATE_KEY

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
        unlabelled: Names of the episodes that were left out, since nobody said whether they succeed.
        datasets: Folder and content hash of each dataset, as JSON values.
    """

    episodes: tuple[LabelledEpisode, ...]
    copies: tuple[str, ...]
    unlabelled: tuple[str, ...]
    datasets: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Split:
    """Episodes to learn from, to choose epoch, calibration and threshold on, and that are only asked afterwards."""

    train: tuple[LabelledEpisode, ...]
    validation: tuple[LabelledEpisode, ...]
    choice: tuple[LabelledEpisode, ...] = ()


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


def labelled_episodes(datasets: Sequence[Dataset], labels: Path | None = None) -> Labelled:
    """List the episodes of all datasets, each once: a copy on the other side of the split would be a leak.

    Labels beside a dataset (`hilserl label`) count in place of its own `next.reward`; episodes that they leave open are left out.

    Args:
        datasets: Opened.
        labels: File of the labels of the only dataset; None: the one beside each, if there is one.

    Raises:
        DatasetError: Frames are not marked, an episode changed since it was labelled, or a file cannot be read.
    """
    if labels is not None and len(datasets) != 1:
        raise DatasetError(
            f"{labels}: one file of labels goes with one dataset; {len(datasets)} were named. Keep labels beside each dataset."
        )
    found: dict[str, LabelledEpisode] = {}
    copies, unlabelled, facts = [], [], []
    for dataset in datasets:
        file = labels or labels_file(dataset.root)
        marks = Labels.load(dataset, file) if file.is_file() or labels is not None else None
        column = success_labels(dataset) if marks is None else None
        fact = {"root": str(dataset.root), "content": dataset.content_hash()}
        facts.append(fact if marks is None else fact | {"labels": file_hash(file) if file.is_file() else ""})
        for position, content in enumerate(episode_contents(dataset)):
            episode = dataset.episodes[position]
            success = marks.success(episode.index) if marks is not None else None
            if column is not None:
                success = column[episode.start : episode.stop]
            if success is None:
                unlabelled.append(f"{dataset.root} episode {episode.index}")
                continue
            labelled = LabelledEpisode(dataset, position, episode.index, content, success)
            if content in found:
                copies.append(f"{labelled.name} is a copy of {found[content].name}")
            else:
                found[content] = labelled
    return Labelled(tuple(found.values()), tuple(copies), tuple(unlabelled), tuple(facts))


def state_names(datasets: Sequence[Dataset], components: Sequence[str]) -> tuple[str, ...]:
    """Return the numbers of `observation.state` that belong to some components, such as `ee_pos`, in the dataset's order.

    Raises:
        DatasetError: A dataset does not name them.
    """
    wanted: tuple[str, ...] | None = None
    for dataset in datasets if components else ():
        names = dataset.names(STATE_KEY) if STATE_KEY in dataset.features else None
        found = tuple(name for name in names or () if name.partition(".")[0] in components)
        if {name.partition(".")[0] for name in found} != set(components) or (wanted is not None and found != wanted):
            raise DatasetError(
                f"{dataset.root}: `classifier.state` wants {list(components)}; its {STATE_KEY} is {list(names or ())}. Leave it out, or "
                "use datasets that name these alike."
            )
        wanted = found
    return wanted or ()


def seen_state(episode: LabelledEpisode, names: Sequence[str]) -> np.ndarray:
    """Return numbers of the state of each frame, float32, shape (T, S); S is 0 where none are wanted."""
    if not names:
        return np.zeros((len(episode.success), 0), np.float32)
    known = episode.dataset.names(STATE_KEY) or ()
    rows = episode.dataset.episodes[episode.position]
    state = episode.dataset.column(STATE_KEY)[rows.start : rows.stop]
    return state[:, [known.index(name) for name in names]].astype(np.float32)


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
            f"{counts}, and two are needed, one to learn from and one to ask: record more, or say which frames show success with "
            "`hilserl label DATASET`, or from a table with `hilserl dataset mark-success DATASET --from ranges.csv --into NEW_FOLDER`."
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


def split_in_three(episodes: Sequence[LabelledEpisode], validation_share: float, choice_share: float, seed: int) -> Split:
    """Divide whole episodes: first those that only are asked, then, of the others, those to choose on.

    Raises:
        TrainingError: One part would lack successes or failures; says what to add.
    """
    outer = split_by_episode(episodes, validation_share, seed)
    if sum(bool(episode.success.any()) for episode in outer.train) < 2:
        count = sum(bool(episode.success.any()) for episode in episodes)
        raise TrainingError(
            f"{count} of {len(episodes)} episodes contain a success, and three are needed: to learn from, to choose the threshold on, and "
            "to ask afterwards. Record more, or label more with `hilserl label DATASET`."
        )
    inner = split_by_episode(outer.train, choice_share, seed + 1)
    return Split(inner.train, outer.validation, inner.validation)


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
