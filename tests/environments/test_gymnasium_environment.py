"""Gymnasium environments: names, scaling, and what is refused with a sentence."""

import environment_testing
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from hilserl.config.gymnasium_spaces import read_spaces, resolve_environment
from hilserl.config.loader import load_config
from hilserl.config.models import TrainConfig
from hilserl.data.declared import declared_normalizer
from hilserl.environments.make import make_environment
from hilserl.errors import ConfigError, SimulationError
from hilserl.schema import policy_schema

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


def config_of(env_id: str, **values) -> TrainConfig:
    return resolve_environment(TrainConfig.model_validate({"env": {"id": env_id}, **values}))


def test_the_schema_names_every_number_and_picture() -> None:
    schema = policy_schema(config_of("Pictured-v0"))
    assert list(schema.observation) == ["observation.state", "observation.images.camera", "observation.images.inner_gray"]
    assert schema.observation["observation.state"].names == ("inner_position.0", "inner_position.1", "speed.0")
    assert schema.observation["observation.images.inner_gray"].shape == (28, 24, 3)
    assert schema.action.names == ("action.0", "action.1")
    assert policy_schema(config_of("Pendulum-v1")).observation["observation.state"].names == ("state.0", "state.1", "state.2")


def test_a_loaded_configuration_stands_on_its_own() -> None:
    """Another process, such as the actor's, needs no environment to know the schema."""
    config = load_config("pendulum")
    again = TrainConfig.model_validate_json(config.model_dump_json())
    assert again == config and again.env.spaces is not None
    assert resolve_environment(again) is again
    with pytest.raises(ConfigError, match="load_config"):
        policy_schema(TrainConfig.model_validate({"env": {"id": "Pendulum-v1"}}))


@pytest.mark.parametrize(("action", "native"), [([-1, -1], [-3, 0]), ([1, 1], [1, 5]), ([0, 0.5], [-1, 3.75]), ([-7, 7], [-3, 5])])
def test_actions_are_scaled_to_the_bounds(action, native) -> None:
    env = make_environment(config_of("Point-v0"))
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.array(action, np.float32))
    point = env._env.unwrapped
    assert point.taken[0] == pytest.approx(native) and point.taken[0].dtype == np.float32
    assert info["executed_action"] == pytest.approx(np.clip(action, -1, 1))
    env.close()


def test_pictures_are_shown_as_they_are_and_gray_ones_three_times() -> None:
    env = make_environment(config_of("Pictured-v0"))
    observation, _ = env.reset(seed=1)
    native = env._env.unwrapped.observe()
    assert np.array_equal(observation["observation.images.camera"], native["camera"])
    for channel in range(3):
        assert np.array_equal(observation["observation.images.inner_gray"][..., channel], native["inner"]["gray"][..., 0])
    assert observation["observation.state"] == pytest.approx([*native["inner"]["position"], 0.0])
    env.close()


def test_the_configuration_may_choose_what_the_policy_sees() -> None:
    config = config_of("Pictured-v0", observation={"images": {"camera": {"crop": [0, 4, 32, 32]}}, "state": ["speed"]})
    assert policy_schema(config).observation["observation.images.camera"].shape == (32, 32, 3)
    assert policy_schema(config).observation["observation.state"].names == ("speed.0",)
    with pytest.raises(ConfigError, match=r"no such image; it has \['camera', 'inner_gray'\]"):
        config_of("Pictured-v0", observation={"images": {"wrist": {}}})
    with pytest.raises(ConfigError, match="no vector `joint_pos`"):
        config_of("Pictured-v0", observation={"state": ["joint_pos"]})


def test_rewards_and_success_are_the_environments() -> None:
    env = make_environment(config_of("Point-v0", env={"id": "Point-v0", "success_key": "is_success"}))
    env.reset(seed=0)
    terminated = False
    while not terminated:  # one step of 0.1 * [1 .. -3] and [5 .. 0] brings both to the origin
        position = env._env.unwrapped.position
        wanted = np.clip(-position / 0.1, [-3, 0], [1, 5])
        action = (2 * (wanted - [-3, 0]) / [4, 5] - 1).astype(np.float32)
        _, reward, terminated, truncated, info = env.step(action)
        assert reward == pytest.approx(-np.abs(info["position"]).sum())
        assert info["is_success"] == terminated and not truncated
    env.close()


def test_a_success_that_nobody_tells_is_an_error() -> None:
    env = make_environment(config_of("Point-v0", env={"id": "Point-v0", "success_key": "solved"}))
    env.reset(seed=0)
    with pytest.raises(SimulationError, match=r"without `solved`.*it has \['is_success', 'position'\]"):
        for _ in range(environment_testing.EPISODE):
            env.step(np.ones(2, np.float32))


def test_a_reward_that_is_not_finite_is_an_error() -> None:
    env = make_environment(config_of("Broken-v0"))
    env.reset(seed=0)
    with pytest.raises(SimulationError, match="reward nan"):
        env.step(np.zeros(2, np.float32))


def test_the_state_is_scaled_from_its_bounds_where_it_has_both() -> None:
    pendulum = declared_normalizer(config_of("Pendulum-v1"))
    assert pendulum.center.tolist() == [0, 0, 0] and pendulum.half_range.tolist() == [1, 1, 8]
    pictured = declared_normalizer(config_of("Pictured-v0"))
    assert pictured.names == ("inner_position.0", "inner_position.1", "speed.0")
    assert pictured.half_range.tolist() == [2, 2, 1] and pictured.center.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (BOX, spaces.Discrete(3), "acts in a Discrete; SAC acts in a Box"),
        (BOX, spaces.MultiDiscrete([2, 2]), "acts in a MultiDiscrete"),
        (BOX, spaces.Box(-np.inf, np.inf, (1,), np.float32), "finite bounds"),
        (BOX, spaces.Box(-3.4e38, 3.4e38, (1,), np.float32), "finite bounds"),
        (BOX, spaces.Box(-1, 1, (2, 2), np.float32), r"shape \(A,\)"),
        (BOX, spaces.Box(0, 5, (1,), np.int64), "floating-point"),
        (spaces.Discrete(4), BOX, "observes a Discrete"),
        (spaces.Tuple([BOX, BOX]), BOX, "observes a Tuple"),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}), BOX, r"`a\.b` of the observation is a Discrete"),
        (spaces.Dict({"a_b": BOX, "a": spaces.Dict({"b": BOX})}), BOX, "two parts of the observation are called `a_b`"),
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), BOX, "channels first"),
        (spaces.Box(0, 255, (64, 64, 4), np.uint8), BOX, "stacked frames"),
    ],
)
def test_spaces_that_cannot_be_learned_from_are_refused_with_the_remedy(observation, action, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_spaces(observation, action, "`Some-v0`")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"env": {"id": "Nowhere-v0"}}, "cannot be made"),
        ({"env": {"id": "no_such_module_:Thing-v0"}}, "cannot be made"),
        ({"env": {"id": "Tiny-v0"}}, r"\(20, 40\) \(height, width\) is less than the 24 px"),
        ({"env": {"id": "Endless-v0"}}, "Set `env.max_episode_steps`"),
        ({"env": {"id": "OnlyPicture-v0"}, "encoder": {"type": "sim_pretrained"}}, "pictures of the SO-101 only"),
    ],
)
def test_environments_that_cannot_be_used_are_refused(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_environment(TrainConfig.model_validate(values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": {"record": {}}}, "there are none: leave `dataset` out"),
        ({"actor": {"intervention": {"type": "simulated"}}}, "know the SO-101 only"),
        ({"policy": {"gripper": "discrete"}}, "all actions are continuous"),
        ({"policy": {"bc_steps": 5}}, "no demonstrations to clone"),
        ({"actor": {"stop_at_success": 1.0}}, "nobody says what success is"),
    ],
)
def test_what_only_the_robot_has_is_refused_with_an_environment(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.model_validate({"env": {"id": "Pendulum-v1"}, **values})


def test_an_environment_that_changed_is_refused(monkeypatch) -> None:
    config = config_of("Point-v0")
    monkeypatch.setattr(environment_testing.Point, "observation_space", spaces.Box(-2.0, 2.0, (3,), np.float64))
    with pytest.raises(ConfigError, match="other spaces on this machine"):
        make_environment(config)


def test_an_environment_of_ones_own_is_imported_by_its_module(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_environments_xyz.py").write_text(
        "import gymnasium\nfrom environment_testing import Point\ngymnasium.register('Own-v0', Point, max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert config_of("my_environments_xyz:Own-v0").episode_steps == 7
    assert "Own-v0" in gymnasium.registry
