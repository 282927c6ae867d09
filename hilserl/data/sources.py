"""The datasets of a run, each with what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hilserl.config.models import Interpretation, Role, TrainConfig
from hilserl.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """One dataset of a run.

    Attributes:
        config: The run's configuration, with `dataset` as it holds for this one.
        root: Its folder.
        weight: How often one of its transitions is drawn, relative to 1.
        role: What it shows.
    """

    config: TrainConfig
    root: Path
    weight: float = 1.0
    role: Role = "demonstration"


def sources_of(config: TrainConfig, recorded: Path | None = None) -> tuple[Source, ...]:
    """List the datasets that `config` trains on.

    Args:
        config: The run's configuration.
        recorded: Folder of the dataset made for `dataset.record`.

    Raises:
        ConfigError: `dataset.record` is configured, and nothing was recorded.
    """
    if not config.dataset.sources:
        root = config.dataset.root or recorded
        if root is None:
            raise ConfigError("dataset.record: nothing was recorded yet. Run `record_demonstrations` first, or set `dataset.root`.")
        return (Source(config, root),)
    return tuple(
        Source(_narrowed(config, source, source.root), source.root, source.weight, source.role) for source in config.dataset.sources
    )


def _narrowed(config: TrainConfig, source: Interpretation, root: Path) -> TrainConfig:
    stated = {name: value for name in Interpretation.model_fields if (value := getattr(source, name)) not in (None, ())}
    dataset = config.dataset.model_copy(update={"root": root, "record": None, "sources": (), **stated})
    return config.model_copy(update={"dataset": dataset})
