"""Decode chosen frames or a stretch of a video file, and tell what could not be decoded instead of stopping there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

# Every eighth pixel each way tells whether two frames show the same, and whether they show anything.
_STRIDE = 8
_ERRORS = (av.error.FFmpegError, ValueError, EOFError)


@dataclass
class Frames:
    """Frames that were decoded.

    Attributes:
        time_s: Presentation time of each [s].
        change: Largest difference of brightness to the frame before, over the pixels looked at [0-255]; NaN for the first.
        contrast: Standard deviation of the brightness [0-255].
        errors: What the decoder said, with the time it was at [s].
    """

    time_s: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)
    contrast: list[float] = field(default_factory=list)
    errors: list[tuple[float, str]] = field(default_factory=list)
    _before: np.ndarray | None = None

    def add(self, time_s: float, frame: Any) -> None:
        """Note one frame."""
        plane = frame.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height : _STRIDE, : frame.width : _STRIDE]
        self.time_s.append(time_s)
        luma = luma.astype(np.int16)  # a copy: the decoder reuses its buffer
        self.contrast.append(float(luma.std()))
        self.change.append(float("nan") if self._before is None else float(np.abs(luma - self._before).max()))
        self._before = luma

    def extend(self, others: Frames) -> None:
        """Add the frames of another stretch of the same file."""
        self.time_s += others.time_s
        self.change += others.change
        self.contrast += others.contrast
        self.errors += others.errors


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file and its first video stream, for one thread, with a decoder that reports what it notices.

    Raises:
        av.error.FFmpegError: It is no video, or was cut off.
        ValueError: It holds no picture.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("the file holds no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        yield container, stream


def decode_at(path: Path, times_s: Sequence[float], tolerance_s: float) -> tuple[Frames, list[int]]:
    """Seek to single frames.

    Args:
        path: Video file.
        times_s: Times of the frames, in increasing order [s].
        tolerance_s: How far a frame may be from its time [s].

    Returns:
        The frames that were decoded, and the positions in `times_s` of those that were not.
    """
    frames, missing = Frames(), []
    with open_video(path) as (container, stream):
        for position, wanted in enumerate(times_s):
            found = False
            try:
                container.seek(max(0, int(wanted / stream.time_base) - 1), stream=stream)
                for frame in container.decode(stream):
                    time_s = float(frame.pts * stream.time_base) if frame.pts is not None else -1.0
                    if abs(time_s - wanted) <= tolerance_s and not frame.is_corrupt:
                        frames.add(time_s, frame)
                        found = True
                    if time_s >= wanted - tolerance_s:
                        break
            except _ERRORS as error:
                frames.errors.append((wanted, said(error)))
            if not found:
                missing.append(position)
    return frames, missing


def decode_between(path: Path, first_s: float, end_s: float, decoded: Callable[[int], None]) -> Frames:
    """Decode every frame from `first_s` up to `end_s` [s], going on after damage; `decoded` is told how many are done."""
    frames, since = Frames(), 0
    with open_video(path) as (container, stream):
        try:
            if first_s > 0:
                container.seek(int(first_s / stream.time_base), stream=stream)
            for packet in container.demux(stream):
                late = False
                try:
                    for frame in packet.decode():
                        time_s = float(frame.pts * stream.time_base) if frame.pts is not None else -1.0
                        late |= time_s >= end_s
                        if first_s <= time_s < end_s and not frame.is_corrupt:
                            frames.add(time_s, frame)
                            since += 1
                except _ERRORS as error:
                    at = float(packet.pts * stream.time_base) if packet.pts is not None else first_s
                    frames.errors.append((at, said(error)))
                if since >= 100:
                    decoded(since)
                    since = 0
                if late:
                    break
        except _ERRORS as error:
            frames.errors.append((frames.time_s[-1] if frames.time_s else first_s, said(error)))
    decoded(since)
    return frames


def said(error: Exception) -> str:
    """Return what the decoder said, without its error number."""
    return str(getattr(error, "strerror", None) or error)


def top_level_boxes(path: Path) -> list[str]:
    """List the top-level boxes of an MP4 file; one that was never finalised has no `moov`."""
    boxes: list[str] = []
    position, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while position + 8 <= size and len(boxes) < 100:
            file.seek(position)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            boxes.append(header[4:8].decode("latin-1"))
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                break
            position += length
    return boxes
