"""D18: the videos hold the frames that the tables say, and they can be decoded; a sample of them, or all.

PyAV alone: it is always there, and releases the GIL while it decodes, so one thread a core is enough.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from hilserl.data.dataset import Dataset, Episode
from hilserl.data.validation.findings import Finding, exclude, few, restore_or_exclude
from hilserl.data.validation.frame_reader import Frames, decode_at, decode_between, open_video, said, top_level_boxes
from hilserl.progress import Progress, publish

CheckVideos = Literal["none", "sample", "all"]

# A frame belongs to a time stamp when it is nearer to it than a quarter of a period, as when the buffer is built.
TOLERANCE_PERIODS = 0.25
# Seeks of one camera in a sample: about a second of work.
_MAX_SEEKS = 60
# Frames that one thread decodes in one go.
_SEGMENT_FRAMES = 1000
_MAX_PLACES = 10
# Standard deviation of the brightness [0-255] below which a picture shows nothing.
_NOTHING = 2.0
_MIN_FROZEN_S = 1.0
# Compression changes an unchanged picture by less than this; a moving arm changes some pixel by more [0-255].
_SAME = 12.0


@dataclass(frozen=True)
class _File:
    """One video file, and the episodes in use that it holds, in order of time."""

    key: str
    path: Path
    episodes: tuple[Episode, ...]

    def times(self, fps: float) -> np.ndarray:
        """Time of every expected frame, in the order of the episodes [s]."""
        return np.concatenate([episode.videos[self.key].start_s + np.arange(episode.length) / fps for episode in self.episodes])

    @property
    def indices(self) -> list[int]:
        """Episodes that lie in it."""
        return [episode.index for episode in self.episodes]


def check_videos(dataset: Dataset, episodes: Sequence[Episode], keys: Iterable[str], how: CheckVideos) -> list[Finding]:
    """Check the video of every camera in `keys`.

    Args:
        dataset: Where the files are.
        episodes: Those in use.
        keys: Image keys that the policy uses, stored as video.
        how: `none`: files exist; `sample`: every file is opened, and a few frames of it and of some episodes
            decoded; `all`: every frame is.

    Returns:
        One finding for each damaged place, with file, episode and frame.
    """
    findings: list[Finding] = []
    files: list[_File] = []
    for key in keys:
        held = _files(key, episodes)
        if unknown := [episode.index for episode in episodes if key not in episode.videos]:
            message = f"the video of episodes {few(unknown)} is not checked, because the episode table does not say where it lies"
            findings.append(Finding("D18", "informs", f"`{key}`", message, title="Videos"))
        files += [file for file in held if (dataset.root / file.path).is_file()]
        if gone := [file for file in held if not (dataset.root / file.path).is_file()]:
            lost = sorted({index for file in gone for index in file.indices})
            place = str(gone[0].path) + (f" and {len(gone) - 1} more" if len(gone) > 1 else "")
            message = f"the video of episodes {few(lost)} is missing: they have no pictures to learn from"
            findings.append(Finding("D18", "stops", place, message, restore_or_exclude(lost), "A video that is missing"))
    if how == "none" or not files:
        return findings
    sound: list[_File] = []
    for file, found in zip(files, _in_threads([partial(_header, dataset, file) for file in files]), strict=True):
        findings += found
        if not found:
            sound.append(file)
    if how == "all":
        for file, frames in zip(sound, _decode_all(dataset, sound), strict=True):
            findings += _missing(dataset, file, frames) + _empty(dataset, file, frames)
    else:
        for found in _in_threads([partial(_sample, dataset, file, _episodes_to_try(file, sound)) for file in sound]):
            findings += found
    return findings


def _files(key: str, episodes: Sequence[Episode]) -> list[_File]:
    by_path: dict[Path, list[Episode]] = {}
    for episode in episodes:
        if key in episode.videos and episode.length > 0:
            by_path.setdefault(episode.videos[key].path, []).append(episode)
    return [
        _File(key, path, tuple(sorted(held, key=lambda episode: episode.videos[key].start_s))) for path, held in sorted(by_path.items())
    ]


def _in_threads[T](jobs: Sequence[Callable[[], T]], tick: Callable[[], None] = lambda: None) -> list[T]:
    """Run jobs with one thread a core; `tick` is called twice a second meanwhile, in the caller's thread."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        futures = [threads.submit(job) for job in jobs]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=0.5)
            tick()
        return [future.result() for future in futures]


def _header(dataset: Dataset, file: _File) -> list[Finding]:
    """Open one file, and compare rate, size and length with what the tables say."""
    path, fps, place = dataset.root / file.path, dataset.fps, str(file.path)
    remedy = restore_or_exclude(file.indices)
    try:
        with open_video(path) as (container, stream):
            rate, size = stream.average_rate, (stream.height, stream.width)
            length_s = float(stream.duration * stream.time_base) if stream.duration else float(container.duration or 0) / av.time_base
    except (av.error.FFmpegError, ValueError) as error:
        what = f"not a readable video ({said(error)})"
        if path.stat().st_size and "moov" not in top_level_boxes(path):
            what = f"half-written: the file has no index (`moov`), its recording was never finalised ({said(error)})"
        message = f"{what}. Episodes {few(file.indices)} have no pictures to learn from"
        return [Finding("D18", "stops", place, message, remedy, "A video that cannot be read")]
    findings = []
    if rate is not None and abs(float(rate) / fps - 1) > 0.02:
        message = f"the video runs at {float(rate):.4g} frames/s, meta/info.json says {fps:g}: rows would meet pictures of other moments"
        rate_remedy = f'{remedy}\n# or in a copy of the dataset, meta/info.json: "fps": {float(rate):.4g}, if the camera delivered that'
        findings.append(Finding("D18", "stops", place, message, rate_remedy, "Frame rate of a video"))
    declared = dataset.shape(file.key)[:2]
    if size != declared:
        message = f"frames are {size[0]}x{size[1]} (height x width), meta/info.json says {declared[0]}x{declared[1]}: crops would miss"
        shape = f'{remedy}\n# or in a copy of the dataset, meta/info.json: "{file.key}": {{"shape": [{size[0]}, {size[1]}, 3]}}'
        findings.append(Finding("D14", "stops", place, message, shape))
    findings += _shared(file, fps, place)
    times = file.times(fps)
    late = np.flatnonzero(times > length_s - (1 - TOLERANCE_PERIODS) / fps) if length_s else np.array([], int)
    if len(late):
        episode, frame = _place(file, int(late[0]))
        message = f"the video ends after {length_s:.2f} s, {len(late)} of {len(times)} frames early: they have no pictures"
        lost = sorted({_place(file, int(row))[0].index for row in late})
        where = f"{place}, episode {episode.index} frame {frame}"
        findings.append(Finding("D18", "stops", where, message, restore_or_exclude(lost), "A video that ends early"))
    return findings


def _shared(file: _File, fps: float, place: str) -> list[Finding]:
    """Find episodes that begin before the one before them ends: both would show the same pictures."""
    mixed, said_ = set[int](), list[str]()
    for before, after in zip(file.episodes, file.episodes[1:], strict=False):
        start_s, end_s = after.videos[file.key].start_s, before.videos[file.key].start_s + before.length / fps
        if start_s < end_s - 0.5 / fps:
            said_.append(f"episode {after.index} begins at {start_s:.3f} s, before the end of episode {before.index} at {end_s:.3f} s")
            mixed |= {before.index, after.index}
    if not said_:
        return []
    more = f"; and {len(said_) - _MAX_PLACES} more" if len(said_) > _MAX_PLACES else ""
    message = f"{'; '.join(said_[:_MAX_PLACES])}{more}: both would show the same pictures"
    return [Finding("D18", "stops", place, message, restore_or_exclude(sorted(mixed)), "Episodes that share pictures")]


def _place(file: _File, row: int) -> tuple[Episode, int]:
    """Return episode and frame of an expected frame of a file."""
    for episode in file.episodes:
        if row < episode.length:
            return episode, row
        row -= episode.length
    raise IndexError(row)


def _episodes_to_try(file: _File, files: Sequence[_File]) -> tuple[Episode, ...]:
    """Choose the episodes of a file whose first, middle and last frame are decoded, evenly spread."""
    same = [other for other in files if other.key == file.key]
    share = max(0, _MAX_SEEKS // 3 - len(same)) / max(1, sum(len(other.episodes) for other in same))
    count = min(len(file.episodes), round(share * len(file.episodes)))
    return tuple(file.episodes[round(i)] for i in np.linspace(0, len(file.episodes) - 1, count)) if count else ()


def _sample(dataset: Dataset, file: _File, episodes: tuple[Episode, ...]) -> list[Finding]:
    """Decode first, middle and last frame of a file, and of some of its episodes."""
    times = file.times(dataset.fps)
    offsets = dict(zip(file.indices, np.cumsum([0, *(e.length for e in file.episodes)]).tolist(), strict=False))
    rows = {0, len(times) // 2, len(times) - 1}
    for episode in episodes:
        rows |= {offsets[episode.index] + frame for frame in (0, episode.length // 2, episode.length - 1)}
    chosen = sorted(rows)
    path = dataset.root / file.path
    frames, missing = decode_at(path, [float(times[row]) for row in chosen], TOLERANCE_PERIODS / dataset.fps)
    reason = f" ({frames.errors[0][1]})" if frames.errors else ""
    findings = _damage(file, [chosen[position] for position in missing], f"frames cannot be decoded{reason}", sampled=True)
    return findings + _empty(dataset, file, frames)


def _decode_all(dataset: Dataset, files: Sequence[_File]) -> list[Frames]:
    """Decode every frame of every file, each file in stretches, and report how far it is."""
    total = sum(sum(episode.length for episode in file.episodes) for file in files)
    done, lock = [0], threading.Lock()

    def count(frames: int) -> None:
        with lock:
            done[0] += frames

    def tick() -> None:
        publish(Progress("validate-dataset", min(done[0], total), total, "frames", "decoding every frame"))

    jobs: list[Callable[[], Frames]] = []
    owners: list[int] = []
    margin_s = TOLERANCE_PERIODS / dataset.fps
    for number, file in enumerate(files):
        times = np.sort(file.times(dataset.fps))
        starts = times[::_SEGMENT_FRAMES]
        for first_s, end_s in zip(starts, [*starts[1:], times[-1] + 1 / dataset.fps], strict=True):
            jobs.append(partial(decode_between, dataset.root / file.path, float(first_s) - margin_s, float(end_s) - margin_s, count))
            owners.append(number)
    decoded = [Frames() for _ in files]
    for owner, part in zip(owners, _in_threads(jobs, tick), strict=True):
        decoded[owner].extend(part)
    return decoded


def _missing(dataset: Dataset, file: _File, frames: Frames) -> list[Finding]:
    """Find the expected frames that were not decoded."""
    fps = dataset.fps
    wanted, seen = file.times(fps), np.sort(np.array(frames.time_s))
    lost: np.ndarray = np.arange(len(wanted))
    if len(seen):
        after = np.clip(np.searchsorted(seen, wanted), 1, len(seen) - 1) if len(seen) > 1 else np.zeros(len(wanted), int)
        nearest = np.minimum(np.abs(seen[after] - wanted), np.abs(seen[np.maximum(after - 1, 0)] - wanted))
        lost = np.flatnonzero(nearest > TOLERANCE_PERIODS / fps)
    # What the decoder said about frames of the episodes in use; it may deliver a picture all the same.
    nearest_rows = [(int(np.argmin(np.abs(wanted - time_s))), time_s, error) for time_s, error in frames.errors]
    told = [(row, error) for row, time_s, error in nearest_rows if abs(wanted[row] - time_s) <= 0.5 / fps]
    reason = told[0][1] if told else "the file has no frame there"
    findings = _damage(file, lost.tolist(), f"frames cannot be decoded ({reason})")
    noticed = sorted({row for row, _ in told} - set(lost.tolist()))
    return findings + _damage(file, noticed, f"frames are decoded with an error ({reason})")


def _damage(file: _File, rows: Sequence[int], what: str, *, sampled: bool = False) -> list[Finding]:
    """Write one finding for all rows of a file that share a fault, with the stretches of frames inside each episode."""
    stretches: list[list[Any]] = []
    for row in rows:
        episode, frame = _place(file, row)
        if stretches and stretches[-1][0] is episode and (stretches[-1][2] == frame - 1 or sampled):
            stretches[-1][2] = frame
            stretches[-1][3] += 1
        else:
            stretches.append([episode, frame, frame, 1])
    if not stretches:
        return []
    episodes = sorted({stretch[0].index for stretch in stretches})
    shown = []
    for episode, first, last, count in stretches[:_MAX_PLACES]:
        where = f"frame {first}" if first == last else f"frames {first} to {last}"
        shown.append(f"episode {episode.index} {where}" + (f" ({count} of those tried)" if sampled else ""))
    if len(stretches) > _MAX_PLACES:
        shown.append(f"and {len(stretches) - _MAX_PLACES} more places, in episodes {few(episodes)} in all")
    message = f"{what}: {'; '.join(shown)}. The file is truncated or damaged: these rows have no picture, or a wrong one"
    remedy = restore_or_exclude(episodes)
    if sampled:
        remedy += "\ndataset: {check_videos: all}  # to find every damaged frame"
    place = f"{file.path}, episode {stretches[0][0].index} frame {stretches[0][1]}"
    return [Finding("D18", "stops", place, message, remedy, "A video that is damaged")]


def _empty(dataset: Dataset, file: _File, frames: Frames) -> list[Finding]:
    """Find episodes whose pictures show one colour, or do not change."""
    order = np.argsort(frames.time_s)
    times = np.array(frames.time_s)[order]
    contrast, change = np.array(frames.contrast)[order], np.array(frames.change)[order]
    blank, frozen = [], []
    for episode in file.episodes:
        start_s = episode.videos[file.key].start_s - TOLERANCE_PERIODS / dataset.fps
        part = slice(*np.searchsorted(times, (start_s, start_s + episode.length / dataset.fps)))
        if part.stop - part.start < 3:
            continue
        if (contrast[part] < _NOTHING).all():
            blank.append(episode.index)
        elif not (change[part][1:] >= _SAME).any() and episode.length / dataset.fps >= _MIN_FROZEN_S:
            frozen.append(episode.index)
    findings = []
    if blank:
        message = f"every decoded frame of episodes {few(blank)} is of one colour: a covered or dead camera, with nothing to see"
        findings.append(Finding("D18", "warns", f"{file.path}, episode {blank[0]}", message, exclude(blank), "Pictures that show nothing"))
    if frozen:
        message = f"every decoded frame of episodes {few(frozen)} is the same picture: the camera hung, and teaches nothing"
        findings.append(
            Finding("D18", "warns", f"{file.path}, episode {frozen[0]}", message, exclude(frozen), "Pictures that never change")
        )
    return findings
