"""Typed configuration: models, and `load_config` that reads them from YAML or LeRobot's JSON."""

from hilserl.config.loader import load_config
from hilserl.config.models import ConversionConfig, TrainConfig

__all__ = ["ConversionConfig", "TrainConfig", "load_config"]
