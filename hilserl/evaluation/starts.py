"""Where the episodes of an evaluation begin: drawn by seeds, or on a grid over the workspace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError

IN_TRAINING_SEED = 500_000  # first start of the evaluations during training; the final evaluation must use others
_TRAINING_SEEDS = range(1 << 31, 1 << 32)  # see `hilserl.actor.loop`


@dataclass(frozen=True)
class Start:
    """How one episode begins.

    Attributes:
        seed: Of the environment's reset: the arm's own scatter, the object's direction, and its place where none is given.
        cube_m: Where the object is put, base frame x and y [m]; None: where the seed says, or on a real arm where the person likes.
    """

    seed: int
    cube_m: tuple[float, float] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options of `reset`."""
        return {} if self.cube_m is None else {"cube_m": self.cube_m}

    @property
    def shown(self) -> str:
        """Where the object belongs, for whoever puts it there."""
        return "" if self.cube_m is None else f"object at x {100 * self.cube_m[0]:.0f} cm, y {100 * self.cube_m[1]:+.0f} cm of the base"


def starts(config: TrainConfig) -> list[Start]:
    """List the starts of an evaluation.

    Raises:
        ConfigError: They were used in training, or a grid is asked for where nothing can be placed.
    """
    require_new_starts(config)
    settings = config.evaluation
    seeds = range(settings.seed, settings.seed + settings.episodes)
    if settings.starts == "sample":
        return [Start(seed) for seed in seeds]
    if config.env is not None:
        raise ConfigError("evaluation.starts: `grid` places the object of the SO-101's task; with `env` set `sample`")
    if config.robot.virtual is not None:
        raise ConfigError("evaluation.starts: `grid` cannot place the object of a virtual arm; set `sample`")
    return [Start(seed, place) for seed, place in zip(seeds, _grid(config, settings.episodes), strict=True)]


def _grid(config: TrainConfig, count: int) -> list[tuple[float, float]]:
    """Return `count` places on the smallest even grid that has so many; of a larger one, spread evenly."""
    (x_low, x_high), (y_low, y_high) = config.task.cube_x_m, config.task.cube_y_m
    deep, wide = max(x_high - x_low, 1e-6), max(y_high - y_low, 1e-6)
    columns = min(count, max(1, math.ceil(math.sqrt(count * wide / deep))))
    rows = math.ceil(count / columns)
    cells = [
        (x_low + (row + 0.5) / rows * (x_high - x_low), y_low + (column + 0.5) / columns * (y_high - y_low))
        for row in range(rows)
        for column in range(columns)
    ]
    return [cells[index * len(cells) // count] for index in range(count)]


def require_new_starts(config: TrainConfig) -> None:
    """Refuse starts that chose the policy or taught it: success on them says nothing about others.

    Raises:
        ConfigError: `evaluation.seed` is in use.
    """
    settings, record = config.evaluation, config.dataset.record
    wanted = range(settings.seed, settings.seed + settings.episodes)
    used = {
        "the evaluations during training": range(IN_TRAINING_SEED, IN_TRAINING_SEED + config.actor.evaluate_episodes),
        "training": _TRAINING_SEEDS,
    }
    if record is not None:
        used["the demonstrations"] = range(record.seed, record.seed + 2 * record.episodes + 5)  # as many attempts as are allowed
    for what, seeds in used.items():
        if wanted.start < seeds.stop and seeds.start < wanted.stop:
            raise ConfigError(
                f"`evaluation.seed` {settings.seed} with {settings.episodes} episodes uses starts of {what} "
                f"({seeds.start} to {seeds.stop - 1}): the success rate would be too good. The default is 1000000."
            )
