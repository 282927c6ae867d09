"""The robot `so101_virtual`."""

from __future__ import annotations

from lerobot.robots.so_follower import SO101Follower

from .config_robot import So101VirtualConfig


class So101Virtual(SO101Follower):
    """LeRobot's own follower class, on the port of a virtual arm."""

    config_class = So101VirtualConfig
    name = "so101_virtual"
