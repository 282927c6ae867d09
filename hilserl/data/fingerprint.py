"""What a dataset is, by content: as a whole, and episode by episode.

The whole decides whether anything must be done, the episodes decide what. An episode's fingerprint is
that of its rows and of its encoded pictures, not of the files they lie in and not of its number: an
episode that moved to another place, or whose neighbour changed, is still the same one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from hilserl.data.dataset import Dataset, Episode
from hilserl.hash_memo import HashMemo

FORMAT_VERSION = 1
# Where an episode stands in the dataset; not what it is.
_PLACE_COLUMNS = ("index", "episode_index", "task_index")
_NOTE = "episodes"
_EPISODES_AT_ONCE = 256


@dataclass(frozen=True)
class Fingerprint:
    """Content of a dataset.

    Attributes:
        content: Hash of the names and bytes of all files.
        episodes: Hash of each episode's rows and encoded frames, in the order of the episode table.
    """

    content: str
    episodes: tuple[str, ...]


def fingerprint(dataset: Dataset, memo: HashMemo | None = None) -> Fingerprint:
    """Fingerprint a dataset; what has not changed since `memo` was written is not read again.

    Raises:
        DatasetError: The episode table or a data file cannot be read.
    """
    memo = memo or HashMemo(None)
    content = dataset.content_hash(memo)
    known = memo.notes.get(_NOTE)
    version = [FORMAT_VERSION, content]
    if isinstance(known, dict) and known.get("version") == version:
        episodes = tuple(known["hashes"])
    else:
        episodes = _episodes(dataset, memo)
        memo.note(_NOTE, {"version": version, "hashes": list(episodes)})
    memo.save(keep=dataset.files())
    return Fingerprint(content, episodes)


def _episodes(dataset: Dataset, memo: HashMemo) -> tuple[str, ...]:
    spans: dict[tuple[str, Path], list[Episode]] = {}
    for episode in dataset.episodes:
        for key, span in episode.videos.items():
            spans.setdefault((key, span.path), []).append(episode)
    videos: dict[tuple[str, int], str] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [(key, episodes, pool.submit(_hash_spans, dataset, key, path, episodes, memo)) for (key, path), episodes in spans.items()]
        for key, episodes, job in jobs:
            videos |= {(key, episode.index): digest for episode, digest in zip(episodes, job.result(), strict=True)}
    hashes = []
    for first in range(0, len(dataset.episodes), _EPISODES_AT_ONCE):
        view = dataset.select(range(first, min(first + _EPISODES_AT_ONCE, len(dataset.episodes))))
        names = sorted(set(view.frames.columns) - set(_PLACE_COLUMNS))
        columns = {name: view.frames[name].to_numpy() for name in names}
        for episode in view.episodes:
            digest = hashlib.sha256()
            for name, values in columns.items():
                part = values[episode.start : episode.stop]
                digest.update(f"{name}\0{part.dtype}\0{part.shape}\n".encode())
                digest.update(np.ascontiguousarray(part).tobytes() if part.dtype != object else str(part.tolist()).encode())
            for key in sorted(episode.videos):
                digest.update(f"{key}\0{videos[key, episode.index]}\n".encode())
            hashes.append(digest.hexdigest()[:32])
    return tuple(hashes)


def _hash_spans(dataset: Dataset, key: str, path: Path, episodes: Sequence[Episode], memo: HashMemo) -> list[str]:
    """Hash the encoded frames of some episodes in one file; where they cannot be told apart, the file's hash stands for each."""
    file = dataset.root / path
    if not file.is_file():
        return ["missing"] * len(episodes)
    try:
        hashes = _hash_packets(file, [(e.videos[key].start_s, e.length / dataset.fps) for e in episodes], 0.25 / dataset.fps)
    except (av.error.FFmpegError, IndexError, ValueError):
        hashes = None  # Damaged: decoding will say where.
    if hashes is None:
        whole = memo.sha256(file)
        return [f"{whole} from {episode.videos[key].start_s:.6f} s, {episode.length} frames" for episode in episodes]
    return hashes


def _hash_packets(file: Path, spans: Sequence[tuple[float, float]], tolerance_s: float) -> list[str] | None:
    """Hash the packets of each span (start, duration) [s]; None where frames are stored out of order.

    A span that does not begin with a key frame depends on the packets since the last one, so these count too.
    """
    digests = [hashlib.sha256() for _ in spans]
    seen = [False] * len(spans)
    order = sorted(range(len(spans)), key=lambda number: spans[number][0])
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        head = f"{context.name} {context.width}x{context.height} {context.pix_fmt}".encode() + (context.extradata or b"")
        base, last_s, first = float(stream.time_base), -np.inf, 0
        group: list[bytes] = []
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            time_s, data = packet.pts * base, bytes(packet)
            if time_s < last_s:
                return None
            last_s = time_s
            group = [data] if packet.is_keyframe else [*group, data]
            while first < len(order) and time_s >= sum(spans[order[first]]) - tolerance_s:
                first += 1
            for number in order[first:]:
                start_s, duration_s = spans[number]
                if time_s < start_s - tolerance_s:
                    break
                if time_s >= start_s + duration_s - tolerance_s:
                    continue
                if not seen[number]:
                    seen[number] = True
                    digests[number].update(head)
                    for earlier in group[:-1]:
                        digests[number].update(earlier)
                digests[number].update(f"{time_s - start_s:.4f}".encode())
                digests[number].update(data)
    return [digest.hexdigest()[:32] for digest in digests]


def memo_file(folder: Path, root: Path) -> Path:
    """Return where the memory of the dataset at `root` is kept under `folder`."""
    return folder / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
