"""Configuration of the teleoperator `so101_virtual_leader`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lerobot.teleoperators import TeleoperatorConfig
from lerobot.teleoperators.so_leader import SOLeaderTeleopConfig

from .places import arm_folder


@TeleoperatorConfig.register_subclass("so101_virtual_leader")
@dataclass
class So101VirtualLeaderConfig(SOLeaderTeleopConfig):
    """LeRobot's SO-101 leader on a virtual arm.

    Attributes:
        port: Empty: that of the arm in `folder`.
        folder: Of the virtual arm; None: the leader of `hilserl virtual-arm`.
    """

    port: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Fill in what the running arm says of itself."""
        folder = self.folder or arm_folder("leader")
        self.id = self.id or folder.name
        self.port = self.port or str(folder / "port")
        self.calibration_dir = self.calibration_dir or folder / "calibration"
