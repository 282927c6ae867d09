"""Decode video in order, each wanted frame once.

LeRobot's loader seeks and decodes two or three times a frame; reading a file from start to end is the
limit of the hardware. PyAV is always there; torchcodec is not needed. PyAV releases the GIL while it
decodes, so threads use every core; each decoder itself is single-threaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from hilserl.data.dataset import Dataset
from hilserl.errors import DatasetError
from hilserl.schema import IMAGE_PREFIX

# A frame belongs to a time stamp when it is nearer to it than a quarter of a period: never ambiguous.
_TOLERANCE_PERIODS = 0.25
# Nearer than this, decoding on is faster than seeking.
_SEEK_BEYOND_S = 2.0


class DecodedFrame(NamedTuple):
    """One frame: its row in `Dataset.frames`, and uint8 RGB, shape (height, width, 3)."""

    row: int
    image: np.ndarray


class _Expected(NamedTuple):
    time_s: float
    row: int
    episode: int
    frame: int


def decode_camera(dataset: Dataset, key: str) -> Iterator[DecodedFrame]:
    """Decode every frame of every episode of one camera, each file once.

    Frames come in the order of the files, which is that of the episodes unless the dataset was edited;
    `row` says where each belongs.

    Args:
        dataset: Where to read.
        key: Image key, with prefix.

    Raises:
        DatasetError: A file is missing or damaged, or lacks a frame; names episode and frame.
    """
    for row, frame in decode_frames(dataset, key):
        yield DecodedFrame(row, rgb(frame))


def decode_cameras(dataset: Dataset, cameras: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """Decode several cameras side by side: for every frame what each saw, uint8 (H, W, 3), by its name without prefix.

    Raises:
        DatasetError: A file is missing or damaged, or lacks a frame; names episode and frame.
    """
    decoders = [decode_camera(dataset, IMAGE_PREFIX + camera) for camera in cameras]
    for frames in zip(*decoders, strict=True):
        yield {camera: frame.image for camera, frame in zip(cameras, frames, strict=True)}


def decode_frames(dataset: Dataset, key: str, frames: Mapping[int, np.ndarray] | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode wanted frames of one camera, as the decoder gives them, with their rows in `dataset.frames`.

    Args:
        dataset: Where to read.
        key: Image key, with prefix.
        frames: Wanted frames by episode index, ascending; None: all frames of all episodes.

    Raises:
        DatasetError: As `decode_camera`.
    """
    files: dict[Path, list[_Expected]] = {}
    for episode in dataset.episodes:
        span = episode.videos[key]
        wanted = range(episode.length) if frames is None else frames[episode.index].tolist()
        files.setdefault(span.path, []).extend(
            _Expected(span.start_s + frame / dataset.fps, episode.start + frame, episode.index, frame) for frame in wanted
        )
    for path, expected in files.items():
        yield from _decode_file(dataset.root / path, sorted(expected), _TOLERANCE_PERIODS / dataset.fps)


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as uint8 RGB, shape (height, width, 3)."""
    return frame.to_ndarray(format="rgb24")


def _decode_file(path: Path, expected: list[_Expected], tolerance_s: float) -> Iterator[tuple[int, av.VideoFrame]]:
    if not expected:
        return
    if not path.is_file():
        raise DatasetError(
            f"{path}: the video is missing; it holds episode {expected[0].episode}. Restore the file, "
            f"or leave its episodes out: dataset: {{exclude_episodes: {sorted({e.episode for e in expected})}}}"
        )
    position = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            base = float(stream.time_base or 0)
            if expected[0].time_s > _SEEK_BEYOND_S:
                container.seek(max(0, int((expected[0].time_s - tolerance_s) / base)), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                time_s = frame.pts * base
                while position < len(expected) and abs(expected[position].time_s - time_s) <= tolerance_s:
                    if frame.is_corrupt:
                        raise _damaged(path, expected, position, "the frame is damaged")
                    yield expected[position].row, frame
                    position += 1
                if position == len(expected):
                    return
                if time_s > expected[position].time_s + tolerance_s:
                    raise _damaged(
                        path, expected, position, f"no frame at {expected[position].time_s:.3f} s, the next is at {time_s:.3f} s"
                    )
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise _damaged(path, expected, position, f"{type(error).__name__}: {error}") from error
    raise _damaged(path, expected, position, f"the video ends {len(expected) - position} of {len(expected)} frames early")


def _damaged(path: Path, expected: list[_Expected], position: int, what: str) -> DatasetError:
    at = expected[min(position, len(expected) - 1)]
    return DatasetError(
        f"{path}: cannot decode episode {at.episode} frame {at.frame}: {what}. "
        "The file is truncated or damaged, or the dataset was not finalised: restore it, "
        f"or leave the episode out: dataset: {{exclude_episodes: [{at.episode}]}}"
    )
