from __future__ import annotations

from collections.abc import Iterator

import pytest

from hilserl.config.models import ImageConfig, ObservationConfig, TaskConfig, TrainConfig
from hilserl.sim.env import So101Env

STATE_ONLY = ObservationConfig(images={}, privileged=True)


@pytest.fixture(scope="session")
def reach() -> TrainConfig:
    return TrainConfig(observation=STATE_ONLY)


@pytest.fixture(scope="session")
def lift() -> TrainConfig:
    return TrainConfig(task=TaskConfig(type="lift", control_time_s=6), observation=STATE_ONLY)


@pytest.fixture(scope="session")
def seeing() -> TrainConfig:
    return TrainConfig(task=TaskConfig(type="lift", control_time_s=6), observation=ObservationConfig(images={"wrist": ImageConfig()}))


@pytest.fixture
def lift_env(lift: TrainConfig) -> So101Env:
    return So101Env(lift)


@pytest.fixture
def seeing_env(seeing: TrainConfig) -> Iterator[So101Env]:
    env = So101Env(seeing)
    yield env
    env.close()
