"""The cameras of a real arm: the newest frame of each, and how old it is. They are named by path, never by number (FAILURES R14)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilserl.config.environment import CameraConfig
from hilserl.errors import RobotError
from hilserl.robot.frame_memory import Frame, FrameReader
from hilserl.threads import background_thread

Image = NDArray[np.uint8]

_FIRST_FRAME_S = 10.0
_END_S = 5.0
_POLL_S = 0.005


class Camera(Protocol):
    """One camera."""

    def latest(self) -> Frame | None:
        """Return the newest frame, however old it is; None: there is none yet."""

    def refresh(self) -> None:
        """Make the newest frame one of this moment, where frames are made on request; else nothing."""

    def close(self) -> None:
        """Let go of it; safe to call twice."""


class Cameras:
    """The cameras that the policy uses."""

    def __init__(self, cameras: Mapping[str, CameraConfig]) -> None:
        """Open them and wait for their first frames.

        Raises:
            RobotError: One is missing, has another size, or sends nothing.
        """
        self._settings = dict(cameras)
        self._cameras: dict[str, Camera] = {}
        try:
            for name, settings in self._settings.items():
                self._cameras[name] = _open(name, settings)
            self._wait_for_first()
        except BaseException:
            self.close()
            raise

    def stale(self) -> str | None:
        """Say which camera's newest frame is too old to act on; None: none is."""
        for name, camera in self._cameras.items():
            limit_s = self._settings[name].max_age_s
            try:
                age_s = self._age_s(camera)
            except RobotError as error:
                return str(error)
            if age_s is not None and age_s > limit_s:
                return (
                    f"the newest frame of camera `{name}` ({self._settings[name].path}) is {age_s:.2f} s old (`max_age_s` {limit_s:g}). "
                    "Check its cable and what else uses it."
                )
        return None

    def read(self) -> tuple[dict[str, Image], float]:
        """Return the newest frames, (H, W, 3), uint8, RGB, by camera, and the age of the oldest of them [s].

        Raises:
            RobotError: A camera has gone.
        """
        frames = {}
        for name, camera in self._cameras.items():
            camera.refresh()
            frame = camera.latest()
            assert frame is not None, "each had its first frame"
            frames[name] = frame
        return {name: frame.image for name, frame in frames.items()}, max((frame.age_s for frame in frames.values()), default=0.0)

    def newest(self) -> dict[str, Frame]:
        """Return the newest frames by camera, for who only watches: nothing is asked for, and a camera that has gone is left out."""
        frames = {}
        for name, camera in self._cameras.items():
            with contextlib.suppress(RobotError):
                if (frame := camera.latest()) is not None:
                    frames[name] = frame
        return frames

    def rates_hz(self, seconds: float) -> dict[str, float]:
        """Count new frames per second over a time, by camera; one whose frames are made on request has no rate."""
        counted = {name: camera for name, camera in self._cameras.items() if not (isinstance(camera, VirtualCamera) and camera.on_request)}
        if not counted:
            return {}
        before = {name: camera.latest() for name, camera in counted.items()}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        after = {name: camera.latest() for name, camera in counted.items()}
        return {name: _frames_between(before[name], after[name]) / took for name in counted}

    def close(self) -> None:
        """Let go of them; safe to call twice."""
        for camera in self._cameras.values():
            camera.close()

    @staticmethod
    def _age_s(camera: Camera) -> float | None:
        """Return how old the newest frame is [s]; None where frames are made on request."""
        if isinstance(camera, VirtualCamera) and camera.on_request:
            return None
        frame = camera.latest()
        return None if frame is None else frame.age_s

    def _wait_for_first(self) -> None:
        deadline_s = time.monotonic() + _FIRST_FRAME_S
        for name, camera in self._cameras.items():
            camera.refresh()
            while (frame := camera.latest()) is None:
                if time.monotonic() > deadline_s:
                    raise RobotError(f"camera `{name}` ({self._settings[name].path}) sent no frame for {_FIRST_FRAME_S:.0f} s. {_LOOK}")
                time.sleep(_POLL_S)
            wanted, seen = (self._settings[name].height, self._settings[name].width, 3), frame.image.shape
            if seen != wanted:
                raise RobotError(
                    f"camera `{name}` ({self._settings[name].path}) sends {seen[1]}x{seen[0]} pixels, `robot.cameras.{name}` says "
                    f"{wanted[1]}x{wanted[0]}. Set width and height to what it sends; `lerobot-find-cameras opencv` lists what it can."
                )


class OpenCvCamera:
    """A video device; a thread keeps its newest frame, so that none waits in a queue."""

    def __init__(self, name: str, settings: CameraConfig) -> None:
        """Open it.

        Raises:
            RobotError: There is no such device, or it does not open.
        """
        import cv2

        self._what = f"camera `{name}` ({settings.path})"
        self._rgb_of, self._code = cv2.cvtColor, cv2.COLOR_BGR2RGB
        self._frame: Frame | None = None
        self._gone = False
        self._capture: Any = cv2.VideoCapture(str(settings.path))
        if not self._capture.isOpened():
            self._capture.release()
            raise RobotError(f"{self._what} cannot be opened. {_LOOK}")
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
        self._capture.set(cv2.CAP_PROP_FPS, settings.fps)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._ending = threading.Event()
        self._thread = background_thread(self._read_on, f"camera {name}")
        self._thread.start()

    def latest(self) -> Frame | None:
        """Return the newest frame; None: there is none yet.

        Raises:
            RobotError: The camera has gone.
        """
        if self._gone:
            raise RobotError(f"{self._what} has gone. Plug it in, then start again.")
        return self._frame

    def refresh(self) -> None:
        """Do nothing: frames come by themselves."""

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        self._ending.set()
        self._thread.join(_END_S)

    def _read_on(self) -> None:
        number = 0
        try:
            while not self._ending.is_set():
                whole, picture = self._capture.read()
                if not whole:
                    break
                number += 1
                self._frame = Frame(self._rgb_of(picture, self._code), number, time.monotonic())
        finally:
            self._gone = True
            self._capture.release()


class VirtualCamera:
    """A virtual arm's camera, in shared memory.

    Attributes:
        on_request: A frame is drawn when it is asked for: in lock step.
    """

    def __init__(self, path: Path) -> None:
        self._reader = FrameReader(path)
        self.on_request = self._reader.on_request

    def latest(self) -> Frame | None:
        """Return the newest frame; None: there is none yet."""
        return self._reader.latest()

    def refresh(self) -> None:
        """In lock step, have a frame of this moment drawn."""
        if self.on_request:
            self._reader.request()

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        self._reader.close()


def _frames_between(before: Frame | None, after: Frame | None) -> int:
    return (after.number if after else 0) - (before.number if before else 0)


_LOOK = "Check its cable, and its name: `ls /dev/v4l/by-id`."


def _open(name: str, settings: CameraConfig) -> Camera:
    if settings.path is None:
        raise RobotError(f"robot.cameras.{name}.path is missing: name the device, such as one of `ls /dev/v4l/by-id`.")
    return VirtualCamera(Path(settings.path)) if settings.type == "virtual" else OpenCvCamera(name, settings)
