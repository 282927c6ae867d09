"""HIL-SERL for the SO-101: fast, and never silently wrong."""

__version__ = "0.1.0"
