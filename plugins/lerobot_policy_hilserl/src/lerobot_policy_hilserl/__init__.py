"""Policies trained by hilserl, as LeRobot's policy type `hilserl`. Importing this registers the type."""

from .configuration_hilserl import HilserlConfig

__all__ = ["HilserlConfig"]
