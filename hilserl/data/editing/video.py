"""Move episodes between video files by copying packets: no pixel changes, and nothing is encoded.

LeRobot's own `delete_episodes` and `split_dataset` encode what is left of a file again (measured with
0.6.1: up to 15 of 255 grey levels off, and as slow as recording). Here the packets of an episode are
copied from the keyframe before its first frame on. A recording starts every episode with a keyframe; where
a trimmed one starts between two, the frames before it stay in the file and `from_timestamp` points past them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import av
import numpy as np

from hilserl.errors import DatasetError

_TOLERANCE_PERIODS = 0.25
_MEGABYTE = 1024 * 1024
_CHUNK_FILES = 1000


class VideoPlace(NamedTuple):
    """Where an episode lies: `videos/<key>/chunk-<chunk>/file-<file>.mp4`, from and to in seconds."""

    chunk: int
    file: int
    from_s: float
    to_s: float


class _Packets(NamedTuple):
    """What the packets of a file say, in the order of the file: shape (P,) each."""

    pts: np.ndarray
    dts: np.ndarray
    is_key: np.ndarray


class Span(NamedTuple):
    """Frames of one episode in a source file.

    Attributes:
        path: Video file.
        start_s: Time of the first wanted frame [s].
        frames: How many.
        fps: Frames per second.
        where: Names the episode in an error.
    """

    path: Path
    start_s: float
    frames: int
    fps: float
    where: str


class SourceVideos:
    """Source files, opened one at a time."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._container: Any = None
        self._packets: _Packets | None = None

    def open(self, path: Path) -> tuple[Any, Any, _Packets]:
        """Return container, video stream and packet table of a file.

        Raises:
            DatasetError: It is missing or damaged.
        """
        if path != self._path:
            self.close()
            try:
                self._container = av.open(str(path))
                stream = self._container.streams.video[0]
                rows = [(p.pts, p.dts, p.is_keyframe) for p in self._container.demux(stream) if p.pts is not None and p.dts is not None]
            except (av.error.FFmpegError, OSError, IndexError) as error:
                self.close()
                raise DatasetError(f"{path}: the video cannot be read ({error}). Restore the file, or drop its episodes.") from error
            pts, dts, is_key = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0, int),) * 3
            self._path, self._packets = path, _Packets(pts, dts, is_key.astype(bool))
        assert self._packets is not None
        return self._container, self._container.streams.video[0], self._packets

    def frame_times(self, span: Span) -> tuple[np.ndarray, int]:
        """Return the time stamps of a span's frames, in ticks of the stream, and the place of the keyframe before them.

        Raises:
            DatasetError: The file lacks one of the frames.
        """
        _, stream, packets = self.open(span.path)
        tick_s = float(stream.time_base)
        order = np.sort(packets.pts)
        wanted_s = span.start_s + np.arange(span.frames) / span.fps
        places = np.searchsorted(order * tick_s, wanted_s - _TOLERANCE_PERIODS / span.fps)
        found = places < len(order)
        found[found] &= np.abs(order[places[found]] * tick_s - wanted_s[found]) <= _TOLERANCE_PERIODS / span.fps
        if not found.all():
            frame = int(np.argmin(found))
            raise DatasetError(
                f"{span.path}: {span.where} frame {frame}: no picture at {wanted_s[frame]:.3f} s. "
                "The video is truncated, or the episode table wrong: run `hilserl validate` on the dataset, and drop the episode."
            )
        times = order[places]
        keys = np.flatnonzero(packets.is_key & (packets.pts <= times[0]))
        if not len(keys):
            raise DatasetError(f"{span.path}: {span.where}: no keyframe before its first picture; the video is damaged. Drop the episode.")
        return times, int(keys[np.argmax(packets.pts[keys])])

    def pictures(self, span: Span, wanted: list[int]) -> list[np.ndarray]:
        """Decode some frames of a span, given by number in ascending order: uint8 RGB, shape (H, W, 3) each."""
        times, key = self.frame_times(span)
        container, stream, packets = self.open(span.path)
        targets = {int(times[number]) for number in wanted}
        container.seek(int(packets.pts[key]), stream=stream)
        pictures = {}
        try:
            for frame in container.decode(stream):
                if frame.pts in targets:
                    pictures[frame.pts] = frame.to_ndarray(format="rgb24")
                if (frame.pts is not None and frame.pts >= times[-1]) or len(pictures) == len(targets):
                    break
        except av.error.FFmpegError as error:
            raise DatasetError(f"{span.path}: {span.where} cannot be decoded ({error}). Drop the episode.") from error
        if len(pictures) < len(targets):
            raise DatasetError(f"{span.path}: {span.where}: {len(targets) - len(pictures)} pictures cannot be decoded. Drop the episode.")
        return [pictures[pts] for pts in sorted(pictures)]

    def close(self) -> None:
        """Close the file that is open."""
        if self._container is not None:
            self._container.close()
        self._path = self._container = self._packets = None


@dataclass
class VideoWriter:
    """Write the video files of one camera.

    Attributes:
        folder: `videos/<key>` of the new dataset.
        max_mb: Size at which a new file is begun [MB].
        sources: Where packets come from.
    """

    folder: Path
    max_mb: float
    sources: SourceVideos
    _output: Any = None
    _stream: Any = None
    _kind: object = None
    _number: int = -1
    _bytes: int = 0
    _next_pts: int = 0
    _last_dts: int | None = None
    files: list[Path] = field(default_factory=list)

    def add(self, span: Span) -> VideoPlace:
        """Copy the packets of one episode, and say where they are now.

        Raises:
            DatasetError: The source lacks a frame, or is damaged.
        """
        times, key = self.sources.frame_times(span)
        container, stream, packets = self.sources.open(span.path)
        # In the order of decoding whatever a frame is built from comes before it.
        last = int(np.flatnonzero(packets.pts <= times[-1])[-1])
        period = round(1 / (span.fps * float(stream.time_base)))
        self._require_file(stream)
        shift = self._next_pts - int(packets.pts[key])
        if self._last_dts is not None and packets.dts[key] + shift <= self._last_dts:
            shift += period * -(-(self._last_dts + 1 - int(packets.dts[key]) - shift) // period)
        container.seek(int(packets.pts[key]), stream=stream)
        place, wanted = None, last - key + 1
        for packet in container.demux(stream):
            if packet.pts is None or packet.dts is None:
                break
            if place is None:
                if packet.pts != packets.pts[key]:
                    continue  # the seek may land on an earlier keyframe
                place = key
            if packet.pts >= packets.pts[key]:  # pictures of an open group before the keyframe cannot be decoded, nor are they wanted
                packet.stream = self._stream
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                self._next_pts, self._last_dts = max(self._next_pts, packet.pts + period), packet.dts
                self._bytes += packet.size
                self._output.mux(packet)
            wanted -= 1
            if not wanted:
                break
        if wanted:
            raise DatasetError(f"{span.path}: {span.where}: {wanted} packets cannot be read. The video is damaged; drop the episode.")
        from_s = (int(times[0]) + shift) * float(stream.time_base)
        return VideoPlace(self._number // _CHUNK_FILES, self._number % _CHUNK_FILES, from_s, from_s + span.frames / span.fps)

    def _require_file(self, stream: Any) -> None:
        """Begin a new file where the old one is full, or cannot hold packets of this kind."""
        codec = stream.codec_context
        kind = (codec.name, codec.width, codec.height, codec.pix_fmt, codec.extradata, stream.time_base)
        if self._output is not None and kind == self._kind and self._bytes < self.max_mb * _MEGABYTE:
            return
        self.close()
        self._number += 1
        path = self.folder / f"chunk-{self._number // _CHUNK_FILES:03d}" / f"file-{self._number % _CHUNK_FILES:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._output = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._output.add_stream_from_template(stream, opaque=True)
        self._stream.time_base = stream.time_base
        self._kind, self._bytes, self._next_pts, self._last_dts = kind, 0, 0, None
        self.files.append(path)

    def close(self) -> None:
        """Finish the file that is open."""
        if self._output is not None:
            self._output.close()
        self._output = self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
