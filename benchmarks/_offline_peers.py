"""What `offline_buffer.py` compares with: LeRobot's loader, and decoding and scaling alone."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from _offline_dataset import KEY, SIZE

# torchcodec needs FFmpeg's shared libraries under their plain names; PyAV's wheel has them under names of its own.
_FFMPEG_LIBRARIES = ("avutil", "avcodec", "avformat", "avfilter", "avdevice", "swscale", "swresample")


def lerobot(root: str, backend: str, frames: int) -> dict[str, Any]:
    """Fill LeRobot's replay buffer with the first `frames` frames.

    The dataset has no reward column, with which LeRobot stops by a KeyError: each item is given one here, for
    nothing. It does not resize on this path, so a transform does.
    """
    import torch
    from lerobot.datasets import LeRobotDataset
    from lerobot.rl.buffer import ReplayBuffer
    from torchvision.transforms import v2

    class FirstFrames:
        def __init__(self, dataset: LeRobotDataset, frames: int) -> None:
            self._dataset, self._frames = dataset, frames

        def __len__(self) -> int:
            return self._frames

        def __getitem__(self, index: int) -> dict[str, Any]:
            return self._dataset[index] | {"next.reward": torch.zeros(1)}

    dataset = LeRobotDataset("benchmark/teleop", root=root, video_backend=backend, image_transforms=v2.Resize((SIZE, SIZE)))
    assert "next.done" not in dataset.features
    subset = FirstFrames(dataset, min(frames, len(dataset)))
    started = time.perf_counter()
    buffer = ReplayBuffer.from_lerobot_dataset(subset, device="cpu", state_keys=["observation.state", KEY])
    seconds = time.perf_counter() - started
    return {"frames": len(buffer), "of": len(dataset), "seconds": seconds, "full_s": seconds / len(buffer) * len(dataset)}


def torchcodec_environment(folder: Path) -> dict[str, str]:
    """Return variables with which torchcodec finds PyAV's FFmpeg, for a machine that has none of its own."""
    import av

    bundled = Path(av.__file__).parent.parent / "av.libs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FFMPEG_LIBRARIES:
        for library in bundled.glob(f"lib{name}-*.so.*"):
            link = folder / f"lib{name}.so.{library.name.split('.so.')[1].split('.')[0]}"
            link.unlink(missing_ok=True)
            link.symlink_to(library)
    return {"LD_LIBRARY_PATH": ":".join([str(folder), str(bundled), os.environ.get("LD_LIBRARY_PATH", "")])}


def decode_and_scale(root: str, out: str) -> dict[str, Any]:
    """Decode every frame once, in order, scale it in swscale and write it to a memory-mapped file; a process a core.

    Each process takes an equal share of the frames, seeking to its beginning.
    """
    import av

    files = []
    for path in sorted(Path(root).glob("videos/**/*.mp4")):
        with av.open(str(path)) as container:
            files.append((str(path), container.streams.video[0].frames))
    total, workers = sum(count for _, count in files), len(os.sched_getaffinity(0))
    np.lib.format.open_memmap(out, mode="w+", dtype=np.uint8, shape=(total, SIZE, SIZE, 3)).flush()
    bounds = [total * worker // workers for worker in range(workers + 1)]
    context = multiprocessing.get_context("fork")
    started = time.perf_counter()
    processes = [context.Process(target=_decode_share, args=(files, *bounds[n : n + 2], out)) for n in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - started
    assert all(process.exitcode == 0 for process in processes)
    return {"frames": total, "seconds": seconds, "processes": workers}


def _decode_share(files: list[tuple[str, int]], start: int, stop: int, out: str) -> None:
    import av
    from av.video.reformatter import Interpolation, VideoReformatter

    images, reformatter, first = np.lib.format.open_memmap(out, mode="r+"), VideoReformatter(), 0
    for path, count in files:
        begin, end = max(start, first) - first, min(stop, first + count) - first
        if begin < end:
            with av.open(path) as container:
                stream = container.streams.video[0]
                stream.thread_type = "NONE"
                period = 1 / (stream.average_rate * stream.time_base)  # of a frame, in the stream's own unit
                if begin:
                    container.seek(round(begin * period), stream=stream)
                for frame in container.decode(stream):
                    number = round(frame.pts / period)
                    if number >= end:
                        break
                    if number >= begin:
                        scaled = reformatter.reformat(frame, SIZE, SIZE, "rgb24", interpolation=Interpolation.BILINEAR)
                        images[first + number] = scaled.to_ndarray()
        first += count
