"""Light that changed since the demonstrations."""

from __future__ import annotations

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.learner.alarms import Alarms
from hilserl.learner.drift import ImageDrift, _look, _spread
from hilserl.sim.env import So101Env

KEY = "observation.images.wrist"


@pytest.fixture(scope="module")
def pictures():
    """What the wrist camera sees in twelve random episodes."""
    env = So101Env(make_tiny_config(observation__images={"wrist": {}}, observation__privileged=False))
    generator, seen = np.random.default_rng(0), []
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        for _ in range(8):
            seen.append(observation[KEY])
            observation, _, terminated, truncated, _ = env.step(generator.uniform(-1, 1, 3).astype(np.float32))
            if terminated or truncated:
                break
    env.close()
    return seen


def drift_of(demonstrated, seen) -> dict[str, float]:
    drift = ImageDrift({KEY: _spread(np.stack([_look(picture) for picture in demonstrated]))})
    for picture in [each for each in seen for _ in range(5)]:
        drift.add({KEY: picture})
    return drift.metrics()


def test_the_same_light_is_no_drift(pictures) -> None:
    half = len(pictures) // 2
    assert drift_of(pictures[:half], pictures[half:])["drift/wrist"] < 1.0


@pytest.mark.parametrize("change", ["darker", "brighter", "redder", "flatter"])
def test_another_light_is_named_and_raises_its_alarm_alone(pictures, change) -> None:
    half = len(pictures) // 2

    def seen(picture):
        levels = picture.astype(np.float32)
        lit = {
            "darker": lambda: levels * 0.6,
            "brighter": lambda: levels + 60,
            "redder": lambda: levels * np.array([1.0, 0.75, 0.65]),
            "flatter": lambda: 128 + (levels - 128) * 0.15,
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
    drift.add({"observation.state": np.zeros(3)})
    assert drift.metrics() == {}
