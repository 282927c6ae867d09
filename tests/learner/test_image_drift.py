"""Light that changed since the demonstrations."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.learner.alarms import Alarms
from hilserl.learner.drift import ImageDrift, _look, _spread
from hilserl.sim.env import So101Env

KEY = "observation.images.wrist"


@pytest.fixture(scope="module")
def pictures():
    """What the wrist camera sees where 24 episodes begin."""
    env = So101Env(make_tiny_config(observation__images={"wrist": {}}, observation__privileged=False))
    seen = [env.reset(seed=seed)[0][KEY] for seed in range(24)]
    env.close()
    return seen


def drift_of(demonstrated, seen, step: int = 0) -> dict[str, float]:
    drift = ImageDrift({KEY: _spread(np.stack([_look(picture) for picture in demonstrated]))})
    for picture in seen:
        drift.add({KEY: picture}, step)
    return drift.metrics()


def test_the_same_light_is_no_drift(pictures) -> None:
    half = len(pictures) // 2
    assert drift_of(pictures[:half], pictures[half:])["drift/wrist"] < 1.0


def test_where_the_policy_goes_is_no_drift(pictures) -> None:
    elsewhere = [np.zeros_like(picture) for picture in pictures]
    assert drift_of(pictures, elsewhere, step=7) == {}
    assert drift_of(pictures, elsewhere)["drift/wrist"] > 2.0


def test_demonstrations_are_looked_at_where_their_episodes_begin(pictures) -> None:
    bright, dark = np.full_like(pictures[0], 200), np.zeros_like(pictures[0])
    shard = SimpleNamespace(
        columns=np.array([(0,), (0,), (1,), (1,), (1,), (2,)], [("episode", np.int32)]),
        images={KEY: [bright, dark, bright, dark, dark, bright]},
    )
    drift = ImageDrift.from_demonstrations(SimpleNamespace(shards=lambda: [shard]))
    for _ in range(10):
        drift.add({KEY: bright}, 0)
    assert drift.metrics()["drift/images"] == 0.0


@pytest.mark.parametrize("change", ["darker", "brighter", "redder", "flatter"])
def test_another_light_is_named_and_raises_its_alarm_alone(pictures, change) -> None:
    half = len(pictures) // 2

    def seen(picture):
        levels = picture.astype(np.float32)
        lit = {
            "darker": lambda: levels * 0.6,
            "brighter": lambda: levels + 60,
            "redder": lambda: levels * np.array([1.0, 0.75, 0.65]),
            "flatter": lambda: 128 + (levels - 128) * 0.3,
        }[change]()
        return np.clip(lit, 0, 255).astype(np.uint8)

    found = drift_of(pictures[:half], [seen(picture) for picture in pictures[half:]])
    assert found["drift/images"] == found["drift/wrist"] > 2.0
    alarms = Alarms(make_tiny_config(), target_entropy=-1.5)
    for number in range(20):
        alarms.check(found, number)
    assert [alarm.name for alarm in alarms.raised] == ["lighting_changed"]


def test_without_cameras_there_is_nothing_to_say() -> None:
    drift = ImageDrift.from_demonstrations(None)
    drift.add({"observation.state": np.zeros(3)}, 0)
    assert drift.metrics() == {}
