"""Typed configuration: models, and `load_config` that reads them from YAML or LeRobot's JSON."""

from hilserl.config.loader import load_config
from hilserl.config.models import ConversionConfig, TrackingConfig, TrainConfig

__all__ = ["ConversionConfig", "TrackingConfig", "TrainConfig", "load_config"]
