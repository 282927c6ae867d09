"""hilserl's virtual SO-101 as LeRobot's robot `so101_virtual`, teleoperator `so101_virtual_leader` and camera `hilserl_virtual`.

Importing this registers them.
"""

from .camera import HilserlVirtualCamera
from .config_camera import HilserlVirtualCameraConfig
from .config_robot import So101VirtualConfig
from .config_teleoperator import So101VirtualLeaderConfig
from .robot import So101Virtual
from .teleoperator import So101VirtualLeader

__all__ = [
    "HilserlVirtualCamera",
    "HilserlVirtualCameraConfig",
    "So101Virtual",
    "So101VirtualConfig",
    "So101VirtualLeader",
    "So101VirtualLeaderConfig",
]
