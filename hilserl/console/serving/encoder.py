"""Frames from shared memory to JPEG: each once, however many pages look at it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hilserl.errors import RobotError
from hilserl.robot.frame_memory import FrameReader

QUALITY = 78
_KEPT = 32
_NICE = 10  # commands and an emergency stop go through this process as well, and come first
_THREADS = 2

cv2.setNumThreads(1)


@dataclass(frozen=True)
class Picture:
    """One JPEG.

    Attributes:
        number: Of the frame, per camera and view.
        at_s: When it was taken, by `time.monotonic()`.
        width, height: Of the picture [px].
        jpeg: Its bytes.
    """

    number: int
    at_s: float
    width: int
    height: int
    jpeg: bytes


class Encoder:
    """Makes the newest picture of a camera and view, at most so wide."""

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        """Read from the actor's `folder` in shared memory; `log` writes a line down."""
        self._folder, self._log = folder, log
        self._threads = ThreadPoolExecutor(_THREADS, "encoder", initializer=_be_nice)
        self._readers: dict[tuple[str, str], FrameReader] = {}
        self._newest: dict[tuple[str, str, int], Picture] = {}
        self._working: dict[tuple[str, str, int], asyncio.Task[Picture | None]] = {}

    async def newest(self, camera: str, view: str, max_width: int, number: int) -> Picture | None:
        """Return the newest picture, which is `number` or a later one; None: there is none any more."""
        key = (camera, view, max_width)
        before = self._newest.get(key)
        if before is not None and before.number >= number:
            return before
        joined = self._working.get(key)
        if joined is not None and ((picture := await asyncio.shield(joined)) is None or picture.number >= number):
            return picture  # else it was begun before there was what is wanted
        task = self._working.get(key)
        if task is None:
            task = self._working[key] = asyncio.create_task(self._encode(key))
            task.add_done_callback(lambda _: self._working.pop(key, None))
        return await asyncio.shield(task)

    async def _encode(self, key: tuple[str, str, int]) -> Picture | None:
        picture = await asyncio.get_running_loop().run_in_executor(self._threads, self._make, *key)
        if picture is not None:
            if len(self._newest) > _KEPT:  # pages may ask for any width
                self._newest.clear()
            self._newest[key] = picture
        return picture

    def _make(self, camera: str, view: str, max_width: int) -> Picture | None:
        try:
            reader = self._readers.get((camera, view))
            if reader is None:
                reader = self._readers[camera, view] = FrameReader(self._folder / f"{view}-{camera}.frames")
            frame = reader.latest()
        except RobotError:  # the actor has ended, or begins anew
            self._readers.pop((camera, view), None)
            return None
        if frame is None:
            return None
        try:
            jpeg, width, height = encode(frame.image, max_width)
        except cv2.error as error:
            self._log(f"a frame of camera `{camera}` cannot be encoded: {error}")
            return None
        return Picture(frame.number, frame.at, width, height, jpeg)

    def close(self) -> None:
        """Let go of the memory."""
        self._threads.shutdown(cancel_futures=True)
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def _be_nice() -> None:
    """Give this thread the lowest priority that matters; Linux has one for each thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def encode(image: np.ndarray, max_width: int) -> tuple[bytes, int, int]:
    """Encode a frame (H, W, 3), uint8, RGB; returns JPEG, width and height [px]."""
    height, width = image.shape[:2]
    if width > max_width:
        width, height = max_width, max(1, round(height * max_width / width))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "OpenCV encodes every uint8 picture"
    return data.tobytes(), width, height
