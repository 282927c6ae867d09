"""Camera frames, raw and as the policy sees them, into shared memory; the console's process takes the newest when it has time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.robot.frame_memory import FrameWriter
from hilserl.schema import IMAGE_PREFIX

_LEAST_S = 0.03
_MEMORY = Path("/dev/shm")


class Pictures:
    """Publishes frames; a folder of its own, which ends with it.

    Attributes:
        folder: Where the frames are: `<view>-<camera>.frames`.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hilserl-console-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self._writers: dict[tuple[str, str], FrameWriter] = {}
        self._last_s: dict[str, float] = {}
        self._live: dict[str, int] = {}

    def show(self, view: str, frames: Mapping[str, np.ndarray], *, always: bool = False) -> list[list[Any]]:
        """Publish the frames of a step, (H, W, 3), uint8, RGB, by `observation.images.<camera>`; return what is new.

        Args:
            view: `raw` or `policy`.
            frames: Other keys are left out.
            always: Also where the last ones were a moment ago.
        """
        now = time.monotonic()
        if not always and now - self._last_s.get(view, 0.0) < _LEAST_S:
            return []
        self._last_s[view] = now
        return [self._write(key.removeprefix(IMAGE_PREFIX), view, frame, now) for key, frame in frames.items() if _is_picture(key, frame)]

    def show_live(self, cameras: Any) -> list[list[Any]]:
        """Publish what real cameras have that is newer; returns what is new."""
        new = []
        for camera, frame in cameras.newest().items():
            if frame.number != self._live.get(camera):
                self._live[camera] = frame.number
                new.append(self._write(camera, "raw", frame.image, frame.at))
        return new

    def close(self) -> None:
        """Take them away; safe to call twice."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, camera: str, view: str, frame: np.ndarray, at_s: float) -> list[Any]:
        writer = self._writers.get((camera, view))
        if writer is None:
            height, width = frame.shape[:2]
            writer = self._writers[camera, view] = FrameWriter(self.folder / f"{view}-{camera}.frames", width, height)
        writer.write(frame, at_s)
        return [camera, view, writer.number]


def _is_picture(key: str, frame: np.ndarray) -> bool:
    return key.startswith(IMAGE_PREFIX) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
