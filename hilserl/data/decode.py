"""Decode each video file once, in order.

LeRobot's loader seeks and decodes two or three times a frame; reading a file from start to end is the
limit of the hardware. PyAV is always there; torchcodec is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from hilserl.data.dataset import Dataset
from hilserl.errors import DatasetError

# A frame belongs to a time stamp when it is nearer to it than a quarter of a period: never ambiguous.
_TOLERANCE_PERIODS = 0.25


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
    """Decode every frame of every episode of one camera, each file once from its start.

    Frames come in the order of the files, which is that of the episodes unless the dataset was edited;
    `row` says where each belongs.

    Args:
        dataset: Where to read.
        key: Image key, with prefix.

    Raises:
        DatasetError: A file is missing or damaged, or lacks a frame; names episode and frame.
    """
    files: dict[Path, list[_Expected]] = {}
    for episode in dataset.episodes:
        span = episode.videos[key]
        files.setdefault(span.path, []).extend(
            _Expected(span.start_s + frame / dataset.fps, episode.start + frame, episode.index, frame) for frame in range(episode.length)
        )
    for path, expected in files.items():
        yield from _decode_file(dataset.root / path, sorted(expected), _TOLERANCE_PERIODS / dataset.fps)


def _decode_file(path: Path, expected: list[_Expected], tolerance_s: float) -> Iterator[DecodedFrame]:
    if not path.is_file():
        raise DatasetError(f"{path}: the video is missing; it holds episode {expected[0].episode}. Restore the file, or drop its episodes.")
    position = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                time_s = float(frame.pts * stream.time_base)
                while position < len(expected) and abs(expected[position].time_s - time_s) <= tolerance_s:
                    if frame.is_corrupt:
                        raise _damaged(path, expected, position, "the frame is damaged")
                    yield DecodedFrame(expected[position].row, frame.to_ndarray(format="rgb24"))
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
        "The file is truncated or damaged, or the dataset was not finalised: restore it, or drop the episodes from there on."
    )
