"""Configuration of the robot `so101_virtual`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lerobot.robots import RobotConfig
from lerobot.robots.so_follower import SOFollowerRobotConfig

from .config_camera import HilserlVirtualCameraConfig
from .places import arm_folder, cameras_of


@RobotConfig.register_subclass("so101_virtual")
@dataclass
class So101VirtualConfig(SOFollowerRobotConfig):
    """LeRobot's SO-101 follower on a virtual arm.

    Attributes:
        port: Empty: that of the arm in `folder`.
        folder: Of the virtual arm; None: the follower of `hilserl virtual-arm`.
        cameras: Empty: all that the arm in `folder` has.
    """

    port: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Fill in what the running arm says of itself."""
        folder = self.folder or arm_folder("follower")
        self.id = self.id or folder.name
        self.port = self.port or str(folder / "port")
        self.calibration_dir = self.calibration_dir or folder / "calibration"
        self.cameras = self.cameras or {name: HilserlVirtualCameraConfig(name=name, folder=folder) for name in cameras_of(folder)}
        super().__post_init__()
