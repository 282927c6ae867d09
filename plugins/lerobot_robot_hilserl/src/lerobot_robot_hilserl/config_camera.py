"""Configuration of the camera `hilserl_virtual`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lerobot.cameras import CameraConfig

from hilserl.errors import RobotError
from hilserl.robot.frame_memory import FrameReader

from .places import arm_folder, frames_of


@CameraConfig.register_subclass("hilserl_virtual")
@dataclass(kw_only=True)
class HilserlVirtualCameraConfig(CameraConfig):
    """A camera of a virtual arm. Width, height and rate are the camera's own unless given; then they are compared.

    Attributes:
        name: `wrist` or `front`.
        folder: Of the virtual arm; None: the follower of `hilserl virtual-arm`.
        max_age_ms: An older frame is an error, unless who reads it says otherwise [ms]; LeRobot's own cameras: 500.
    """

    name: str = "wrist"
    folder: Path | None = None
    max_age_ms: int = 500

    @property
    def path(self) -> Path:
        """Where its frames are."""
        return frames_of(self.folder or arm_folder("follower"), self.name)

    def __post_init__(self) -> None:
        """Ask the running camera what it delivers; LeRobot wants to know before it connects."""
        if None in (self.width, self.height, self.fps):
            try:
                with FrameReader(self.path) as reader:
                    self.width, self.height = self.width or reader.width, self.height or reader.height
                    self.fps = self.fps or round(reader.fps) or None  # none in lock step: frames come when they are asked for
            except RobotError as error:
                raise ValueError(str(error)) from None
