"""The teleoperator `so101_virtual_leader`."""

from __future__ import annotations

from lerobot.teleoperators.so_leader import SO101Leader

from .config_teleoperator import So101VirtualLeaderConfig


class So101VirtualLeader(SO101Leader):
    """LeRobot's own leader class, on the port of a virtual arm."""

    config_class = So101VirtualLeaderConfig
    name = "so101_virtual_leader"
