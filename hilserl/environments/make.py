"""Make the environment of a configuration."""

from __future__ import annotations

from typing import Any

import gymnasium

from hilserl.config.models import TrainConfig


def make_environment(config: TrainConfig, *, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Build the simulated SO-101.

    Args:
        config: The run's configuration.
        render_mode: None, or `rgb_array` to draw pictures for a video.
    """
    from hilserl.sim.env import So101Env

    return So101Env(config, render_mode=render_mode)
