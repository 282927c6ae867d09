"""The video of an evaluation: several episodes side by side, each framed in the colour of its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from hilserl.schema import IMAGE_PREFIX

Picture = NDArray[np.uint8]

_HELD = 5  # pictures for which the end of the longest episode is shown
_FRAME = 4  # px
_GOOD, _BAD = (24, 121, 78), (180, 35, 24)
_WIDEST = 1280  # px of the whole mosaic
_MOST_PICTURES = 1200  # of one episode


class Reel:
    """Pictures of one episode."""

    def __init__(self, shrink: int) -> None:
        """Keep every `shrink`-th pixel."""
        self.pictures: list[Picture] = []
        self.success: bool | None = None
        self._shrink = shrink

    def add(self, environment: Any, observation: Mapping[str, np.ndarray]) -> None:
        """Take a picture: the environment's front view, with the policy's cameras in its corner; without one, the cameras."""
        if len(self.pictures) < _MOST_PICTURES:
            self.pictures.append(_shrunk(_picture(environment, observation), self._shrink))

    def end(self, environment: Any, observation: Mapping[str, np.ndarray], *, success: bool) -> None:
        """Take the last picture."""
        self.add(environment, observation)
        self.success = success


class Film:
    """Episodes side by side, as H.264 (or MPEG-4 where that is missing).

    Args:
        file: Video file.
        fps: Pictures a second.
        count: How many episodes there will be.
    """

    def __init__(self, file: Path, fps: float, count: int) -> None:
        self.file = file
        self.reels: list[Reel] = []
        self._fps = fps
        self._columns = math.ceil(math.sqrt(count))
        self._shrink = max(1, math.ceil(self._columns * 256 / _WIDEST))

    def reel(self) -> Reel:
        """Begin an episode."""
        self.reels.append(Reel(self._shrink))
        return self.reels[-1]

    def write(self) -> Path | None:
        """Write the video; None where nothing was filmed."""
        reels = [reel for reel in self.reels if reel.pictures]
        if not reels:
            return None
        self.file.parent.mkdir(parents=True, exist_ok=True)
        columns = min(self._columns, len(reels))
        with av.open(str(self.file), "w") as container:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            stream = container.add_stream(codec, rate=Fraction(self._fps).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            for number in range(max(len(reel.pictures) for reel in reels) + _HELD):
                picture = _tiled([_at(reel, number) for reel in reels], columns)
                if not number:
                    stream.height, stream.width = picture.shape[:2]
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        return self.file


def compose_picture(front: Picture, observation: Mapping[str, np.ndarray]) -> Picture:
    """Set each camera's frame (H, W, 3) into the lower left of the front view; even height and width."""
    picture = front[: front.shape[0] // 2 * 2, : front.shape[1] // 2 * 2].copy()
    left = 4
    for key, frame in observation.items():
        if key.startswith(IMAGE_PREFIX):
            height, width = frame.shape[:2]
            if left + width + 4 > picture.shape[1] or height + 8 > picture.shape[0]:
                continue
            top = picture.shape[0] - height - 4
            picture[top - 2 : top + height + 2, left - 2 : left + width + 2] = 255
            picture[top : top + height, left : left + width] = frame
            left += width + 8
    return picture


def has_cameras(observation_keys: list[str]) -> bool:
    """Whether an observation has pictures of its own."""
    return any(key.startswith(IMAGE_PREFIX) for key in observation_keys)


def _picture(environment: Any, observation: Mapping[str, np.ndarray]) -> Picture:
    if getattr(environment, "render_mode", None) == "rgb_array":
        return compose_picture(environment.render(), observation)
    frames = [frame for key, frame in sorted(observation.items()) if key.startswith(IMAGE_PREFIX)]
    height = max(frame.shape[0] for frame in frames)
    return np.concatenate([np.pad(frame, ((0, height - frame.shape[0]), (0, 0), (0, 0))) for frame in frames], axis=1)


def _shrunk(picture: Picture, factor: int) -> Picture:
    even = picture[::factor, ::factor]
    return even[: even.shape[0] // 2 * 2, : even.shape[1] // 2 * 2].copy()


def _at(reel: Reel, number: int) -> Picture:
    """Return one picture of an episode; after its end the last one, framed."""
    if number < len(reel.pictures) - 1:
        return reel.pictures[number]
    picture = reel.pictures[-1].copy()
    if reel.success is not None:
        color = np.array(_GOOD if reel.success else _BAD, np.uint8)
        for edge in (np.s_[:_FRAME], np.s_[-_FRAME:], np.s_[:, :_FRAME], np.s_[:, -_FRAME:]):
            picture[edge] = color
    return picture


def _tiled(pictures: list[Picture], columns: int) -> Picture:
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    rows = math.ceil(len(pictures) / columns)
    whole = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * height, number % columns * width
        whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole
