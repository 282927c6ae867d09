"""The environment of an arm whose time is the wall clock, with a camera."""

from collections.abc import Iterator

import numpy as np
import pytest

from hilserl.config import load_config
from hilserl.environments.make import make_environment
from hilserl.environments.virtual_arm import VirtualSo101Arm
from hilserl.errors import RobotError

pytestmark = pytest.mark.slow

STEPS = 15


@pytest.fixture
def env(own_home) -> Iterator[VirtualSo101Arm]:
    overrides = {
        "robot.virtual.lock_step": False,
        "robot.cameras.wrist": {"width": 32, "height": 32, "max_age_s": 1.0},
        "robot.bus_timeout_s": 1.0,
        "robot.safety.guardian_silence_s": 5.0,
        "observation.images.wrist.resize": [32, 32],
    }
    env = make_environment(load_config("so101_virtual_reach", overrides))
    assert isinstance(env, VirtualSo101Arm)
    yield env
    env.close()


@pytest.mark.failure("R15")
def test_a_step_takes_its_period_and_ends_with_a_look(env) -> None:
    """An observation from before the wait would be a whole period old, in every step."""
    env.reset(seed=1)
    tick, ages, seen = env.arm.state.tick, [], []
    for count in range(STEPS):
        observation, *_, info = env.step(np.array([0.0, 0.5 * (-1) ** count, 0.0], np.float32))
        assert env.observation_space.contains(observation)
        ages.append((info["state_age_s"], info["frame_age_s"]))
        seen.append(observation["observation.images.wrist"])
    period_s = 1 / env.config.robot.control_hz
    assert env.arm.state.tick - tick >= STEPS * round(period_s * env.config.robot.bus_hz) - 1
    assert min(state for state, _ in ages) < 0.5 * period_s
    assert all(0 <= frame <= 1.0 for _, frame in ages)
    assert any(not np.array_equal(seen[0], picture) for picture in seen)


@pytest.mark.failure("R14")
def test_with_a_frozen_camera_the_arm_holds_still(env, monkeypatch) -> None:
    monkeypatch.setattr("hilserl.robot.arm._HELD_S", 1.0)
    env.reset(seed=1)
    env.process.ask("camera", camera="wrist", fault="frozen")
    command = env.arm.state.command_rad
    with pytest.raises(RobotError, match=r"held still for .* camera `wrist` .*max_age_s"):
        for _ in range(1000):
            command = env.arm.state.command_rad
            env.step(np.array([0.0, 0.2, 0.0], np.float32))
    assert np.abs(env.arm.state.command_rad - command).max() < 0.1  # it did not finish that step
    assert env.arm.stopped is None  # and holds
    env.process.ask("camera", camera="wrist")
    env.reset(seed=2)
    env.step(np.zeros(3, np.float32))
