"""What every environment promises to the actor, held for all of ours in one place (as dm_env does)."""

from collections.abc import Iterator

import environment_testing  # noqa: F401  (registers)
import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.config.gymnasium_spaces import resolve_environment
from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.environments.make import make_environment
from hilserl.errors import HilserlError
from hilserl.schema import policy_schema


def gymnasium_config(name: str, **values) -> TrainConfig:
    return resolve_environment(TrainConfig.model_validate({"env": {"id": name}} | values))


CONFIGS = {
    "so101": lambda: make_tiny_config(task__control_time_s=1),
    "pendulum": lambda: gymnasium_config("Pendulum-v1", env={"id": "Pendulum-v1", "max_episode_steps": 10}),
    "box": lambda: gymnasium_config("Point-v0"),
    "dict with images": lambda: gymnasium_config("Pictured-v0"),
    "image alone": lambda: gymnasium_config("OnlyPicture-v0"),
}


@pytest.fixture(params=CONFIGS)
def config(request) -> TrainConfig:
    return CONFIGS[request.param]()


@pytest.fixture
def env(config) -> Iterator:
    env = make_environment(config)
    yield env
    env.close()


def play(env, seed: int) -> list[tuple]:
    """One episode of random actions from `seed`, beyond the bounds too."""
    generator = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    steps = [(observation, None, False, False, {})]
    while not (steps[-1][2] or steps[-1][3]):
        assert len(steps) < 1000, "the episode does not end"
        steps.append(env.step(generator.uniform(-1.5, 1.5, env.action_space.shape).astype(np.float32)))
    return steps


def test_observations_are_what_the_space_and_the_schema_declare(config, env) -> None:
    preprocess = Preprocessor.from_config(config)
    for observation, *_ in play(env, 3):
        assert env.observation_space.contains(observation)
        seen = preprocess(observation)
        assert {key: (value.shape, value.dtype.name) for key, value in seen.items()} == {
            key: (feature.shape, feature.dtype) for key, feature in policy_schema(config).observation.items()
        }


def test_actions_are_in_minus_one_to_one_and_what_was_executed_is_told(config, env) -> None:
    assert env.action_space.shape == policy_schema(config).action.shape
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    for _, _, _, _, info in play(env, 4)[1:]:
        executed = info["executed_action"]
        assert executed.dtype == np.float32 and executed.shape == env.action_space.shape and np.abs(executed).max() <= 1


def test_rewards_are_finite_floats_and_ends_are_plain_booleans(env) -> None:
    for _, reward, terminated, truncated, info in play(env, 5)[1:]:
        assert type(reward) is float and np.isfinite(reward)
        assert type(terminated) is bool and type(truncated) is bool and type(info["is_success"]) is bool


def test_an_episode_is_truncated_at_its_time_limit_and_not_terminated(config, env) -> None:
    env.reset(seed=0)
    away = np.ones(env.action_space.shape, np.float32)
    for step in range(1, config.episode_steps + 1):
        _, _, terminated, truncated, _ = env.step(away)
        assert not terminated, "this action was meant to fail"
        assert truncated == (step == config.episode_steps)


def test_step_after_the_end_and_before_the_start_is_refused(env) -> None:
    action = np.zeros(env.action_space.shape, np.float32)
    with pytest.raises(HilserlError, match=r"Call reset\(\) first"):
        env.step(action)
    play(env, 6)
    with pytest.raises(HilserlError, match=r"Call reset\(\) first"):
        env.step(action)
    env.reset(seed=0)
    env.step(action)


def test_equal_seeds_give_equal_episodes_and_others_other_ones(env) -> None:
    def numbers(steps: list[tuple]) -> np.ndarray:
        return np.concatenate([np.concatenate([np.ravel(part) for part in step[0].values()]) for step in steps])

    first, again, other = (numbers(play(env, seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_observations_are_the_callers_own(env) -> None:
    """What the environment does next must not change what was seen before."""
    before, _ = env.reset(seed=9)
    kept = {key: value.copy() for key, value in before.items()}
    env.step(np.full(env.action_space.shape, 0.5, np.float32))
    assert all(np.array_equal(before[key], kept[key]) for key in kept)


def test_actions_that_are_no_actions_are_refused(env) -> None:
    env.reset(seed=0)
    for wrong in (np.zeros(env.action_space.shape[0] + 1), np.full(env.action_space.shape, np.nan)):
        with pytest.raises(HilserlError):
            env.step(wrong)


def test_closing_twice_is_fine(env) -> None:
    env.close()
    env.close()
