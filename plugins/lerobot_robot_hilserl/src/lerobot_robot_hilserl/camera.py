"""The camera `hilserl_virtual`: the newest frame of a virtual arm's camera, from shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from lerobot.cameras import Camera
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected
from numpy.typing import NDArray

from hilserl.errors import RobotError
from hilserl.robot.frame_memory import Frame, FrameReader

from .config_camera import HilserlVirtualCameraConfig
from .places import arm_folder, cameras_of, frames_of

_FIRST_FRAME_S = 30.0
_READ_S = 10.0


class HilserlVirtualCamera(Camera):
    """Reads frames that the virtual arm's process draws; RGB, shape (H, W, 3), uint8.

    Attributes:
        config: Its configuration.
    """

    def __init__(self, config: HilserlVirtualCameraConfig) -> None:
        super().__init__(config)
        self.config = config
        self._reader: FrameReader | None = None
        self._returned = 0  # number of the frame that was returned last

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.config.path})"

    @property
    def is_connected(self) -> bool:
        """Whether it is open."""
        return self._reader is not None

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        """Return the cameras of the arms that `hilserl virtual-arm` runs now."""
        folder = arm_folder("follower")
        return [{"name": name, "type": "hilserl_virtual", "id": str(frames_of(folder, name))} for name in cameras_of(folder)]

    @check_if_already_connected
    def connect(self, warmup: bool = True) -> None:
        """Open it, and wait for its first frame.

        Raises:
            ConnectionError: There is no such camera, or its frames have another size or rate than configured.
        """
        try:
            reader = FrameReader(self.config.path)
        except RobotError as error:
            raise ConnectionError(str(error)) from None
        wanted = self.config.width or reader.width, self.config.height or reader.height, self.config.fps or reader.fps
        delivered = reader.width, reader.height, reader.fps or wanted[2]
        if wanted != delivered:
            reader.close()
            raise ConnectionError(
                f"{self}: configured are {wanted[0]}x{wanted[1]} at {wanted[2]:g} frames/s, it delivers {delivered[0]}x{delivered[1]} "
                f"at {delivered[2]:g}. Leave `width`, `height` and `fps` out, or start the arm with that size and rate."
            )
        self.width, self.height, self.fps = reader.width, reader.height, round(delivered[2])
        self._reader, self._returned = reader, 0
        if warmup:
            try:
                self._newer(_FIRST_FRAME_S)
            except (ConnectionError, TimeoutError):
                self.disconnect()
                raise

    @check_if_not_connected
    def read(self) -> NDArray[np.uint8]:
        """Wait for the next frame.

        Raises:
            TimeoutError: None comes.
            ConnectionError: The camera is gone.
        """
        return self.async_read(_READ_S * 1000.0)

    @check_if_not_connected
    def async_read(self, timeout_ms: float = 200) -> NDArray[np.uint8]:
        """Return the newest frame that was not returned yet, waiting for one where there is none.

        Raises:
            TimeoutError: None comes in time.
            ConnectionError: The camera is gone.
        """
        return self._newer(timeout_ms / 1000.0)

    @check_if_not_connected
    def read_latest(self, max_age_ms: int | None = None) -> NDArray[np.uint8]:
        """Return the newest frame at once.

        Args:
            max_age_ms: The oldest that will do; None: as configured.

        Raises:
            TimeoutError: It is older than `max_age_ms`.
            RuntimeError: There is none yet.
            ConnectionError: The camera is gone.
        """
        assert self._reader is not None
        max_age_ms = self.config.max_age_ms if max_age_ms is None else max_age_ms
        if self._reader.on_request:
            return self._newer(max_age_ms / 1000.0)
        try:
            frame = self._reader.latest()
        except RobotError as error:
            raise ConnectionError(str(error)) from None
        if frame is None:
            raise RuntimeError(f"{self} has not delivered a frame yet.")
        if frame.age_s * 1000.0 > max_age_ms:
            raise TimeoutError(f"{self}: its newest frame is {frame.age_s * 1000.0:.0f} ms old, allowed are {max_age_ms} ms: it is frozen.")
        return self._returning(frame)

    @check_if_not_connected
    def disconnect(self) -> None:
        """Close it."""
        assert self._reader is not None
        self._reader.close()
        self._reader = None

    def _newer(self, timeout_s: float) -> NDArray[np.uint8]:
        assert self._reader is not None
        try:
            if self._reader.on_request:
                self._reader.request()
            frame = self._reader.wait(self._returned, timeout_s)
        except RobotError as error:
            raise ConnectionError(str(error)) from None
        if frame is None:
            raise TimeoutError(f"{self}: no new frame for {timeout_s:.1f} s (the last one is number {self._returned}): it is frozen.")
        return self._returning(frame)

    def _returning(self, frame: Frame) -> NDArray[np.uint8]:
        self._returned = frame.number
        return frame.image
