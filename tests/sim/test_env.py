import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from hilserl.config.models import CameraConfig, ImageConfig, ObservationConfig, RobotConfig, TaskConfig, TrainConfig
from hilserl.errors import RobotError, SimulationError
from hilserl.schema import policy_schema
from hilserl.sim.env import So101Env
from hilserl.sim.expert import ScriptedExpert


def rollout(env, actions, seed=0):
    """Play actions; return every observation's state, the infos and the true tool path (T+1, 3)."""
    observation, info = env.reset(seed=seed)
    states, infos, path = [observation["observation.state"]], [info], [env.privileged_state.tool_pos_m]
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        states.append(observation["observation.state"])
        infos.append(info)
        path.append(env.privileged_state.tool_pos_m)
        if terminated or truncated:
            break
    return np.array(states), infos, np.array(path)


def actions_of(config, count=12, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, len(config.action_names))).astype(np.float32)


@pytest.mark.parametrize("name", ["reach", "lift", "seeing"])
def test_it_is_a_gymnasium_environment(request, name):
    env = So101Env(request.getfixturevalue(name), render_mode="rgb_array")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    env.close()
    sensible = ("infinity", "not within the observation space bounds", "spec")  # states are physical quantities, not bounded by us
    assert [str(w.message) for w in caught if not any(part in str(w.message) for part in sensible)] == []


def test_observations_follow_the_schema(seeing_env, seeing):
    observation, _ = seeing_env.reset(seed=0)
    declared = policy_schema(seeing).observation
    assert observation.keys() == declared.keys()
    for key, feature in declared.items():
        assert observation[key].shape == feature.shape
        assert observation[key].dtype == feature.dtype


def test_equal_seeds_give_equal_episodes(lift_env, lift):
    actions = actions_of(lift)
    first, _, _ = rollout(lift_env, actions, seed=4)
    again, _, _ = rollout(lift_env, actions, seed=4)
    other, _, _ = rollout(lift_env, actions, seed=5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_equal_seeds_give_equal_pictures(seeing_env):
    first = seeing_env.reset(seed=3)[0]["observation.images.wrist"]
    seeing_env.step(np.ones(4, np.float32))
    np.testing.assert_array_equal(seeing_env.reset(seed=3)[0]["observation.images.wrist"], first)


def test_every_episode_starts_elsewhere(lift_env):
    lift_env.reset(seed=1)
    first = lift_env.privileged_state
    lift_env.reset()
    second = lift_env.privileged_state
    assert not np.allclose(first.cube_pos_m, second.cube_pos_m)
    assert not np.allclose(first.tool_pos_m, second.tool_pos_m, atol=1e-4)


@pytest.mark.failure("R06")
def test_replaying_executed_actions_open_loop_reproduces_the_motion(lift_env, lift):
    # Pushes over the workspace's edge on purpose: there, executed and wanted differ.
    actions = np.concatenate([np.tile(np.float32([1, 1, -0.4, -1]), (8, 1)), actions_of(lift, 20)])
    states, infos, path = rollout(lift_env, actions)
    executed = np.array([info["executed_action"] for info in infos[1:]])
    assert np.abs(executed - actions).max() > 0.5
    again, _, repeated = rollout(lift_env, executed)
    np.testing.assert_allclose(repeated, path, atol=5e-4)
    np.testing.assert_allclose(again, states, atol=0.05)


@pytest.mark.failure("R06")
def test_executed_actions_add_up_to_the_motion_where_the_workspace_clips(lift_env):
    _, infos, path = rollout(lift_env, np.tile(np.float32([0, 1, 0, 0]), (12, 1)))
    executed_m = np.array([info["executed_action"][1] for info in infos[1:]]) * 0.02
    np.testing.assert_allclose(executed_m, np.diff(path[:, 1]), atol=1e-3)
    assert executed_m[-1] < 0.001  # it stands at the edge of the workspace, whatever the policy wants


@pytest.mark.failure("R03")
def test_the_arm_delivers_what_is_commanded(lift):
    env = So101Env(lift)
    ratios = []
    for seed in range(6):
        _, infos, path = rollout(env, actions_of(lift, 25, seed), seed=seed)
        for info, start, end in zip(infos[1:], path, path[1:], strict=False):
            command = info["executed_action"][:3].astype(float) * lift.robot.action_scale_m
            if np.linalg.norm(command) > 0.008:
                ratios.append((end - start) @ command / (command @ command))
    assert 0.97 < np.median(ratios) < 1.05
    assert np.percentile(ratios, 10) > 0.8


def test_no_action_means_no_drift(lift_env):
    _, _, path = rollout(lift_env, np.zeros((30, 4), np.float32))
    assert np.linalg.norm(path[-1] - path[0]) < 0.005


def test_velocity_is_the_measured_difference_per_control_period(lift_env, lift):
    states, infos, _ = rollout(lift_env, actions_of(lift, 3))
    np.testing.assert_array_equal(states[0][6:12], 0.0)
    difference = (infos[2]["joint_pos_rad"] - infos[1]["joint_pos_rad"]) * lift.robot.control_hz
    np.testing.assert_allclose(states[2][6:12], difference, rtol=1e-5)


def test_the_cube_in_the_state_is_relative_to_the_tool(lift_env):
    observation, _ = lift_env.reset(seed=0)
    truth = lift_env.privileged_state
    np.testing.assert_allclose(observation["observation.state"][-3:], truth.cube_pos_m - truth.tool_pos_m, atol=1e-6)


@pytest.mark.failure("D03")
def test_running_out_of_time_is_a_truncation(reach):
    env = So101Env(reach)
    env.reset(seed=0)
    away = np.float32([-0.3, 0, 1])
    outcomes = [env.step(away)[1:4] for _ in range(reach.episode_steps)]
    assert outcomes[:-1] == [(0.0, False, False)] * (reach.episode_steps - 1)
    assert outcomes[-1] == (0.0, False, True)


@pytest.mark.failure("D03")
@pytest.mark.parametrize("hold", [1, 3])
def test_success_terminates_after_the_condition_held(hold):
    config = TrainConfig(task=TaskConfig(success_hold_steps=hold), observation=ObservationConfig(images={}, privileged=True))
    env, expert = So101Env(config), ScriptedExpert(config)
    env.reset(seed=0)
    inside, terminated = 0, False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(expert.action(env.privileged_state))
        state = env.privileged_state
        inside += np.linalg.norm(state.tool_pos_m - state.cube_pos_m - [0, 0, 0.03]) <= 0.02
        assert not truncated
        assert (reward, info["is_success"]) == (float(terminated), terminated)
    assert inside == hold


def test_success_on_the_last_step_is_not_a_truncation():
    config = TrainConfig(task=TaskConfig(control_time_s=0.1, reach_tolerance_m=0.1), observation=ObservationConfig(images={}))
    env = So101Env(config)
    outcomes = set()
    for seed in range(12):
        env.reset(seed=seed)
        _, _, terminated, truncated, _ = env.step(np.float32([0, 0, -1]))
        outcomes.add((terminated, truncated))
    assert outcomes <= {(True, False), (False, True)}
    assert (True, False) in outcomes


def test_a_step_after_the_end_is_refused(reach):
    env = So101Env(reach)
    with pytest.raises(SimulationError, match=r"Call reset\(\) first"):
        env.step(np.zeros(3, np.float32))
    env.reset(seed=0)
    for _ in range(reach.episode_steps):
        ended = env.step(np.float32([0, 0, 1]))[3]
    assert ended
    with pytest.raises(SimulationError, match=r"after the end of the episode"):
        env.step(np.zeros(3, np.float32))


@pytest.mark.failure("R22")
def test_nan_stops_before_anything_moves(lift_env):
    lift_env.reset(seed=0)
    before = lift_env.privileged_state.joint_pos_rad
    with pytest.raises(RobotError, match="not finite"):
        lift_env.step(np.full(4, np.nan, np.float32))
    np.testing.assert_array_equal(lift_env.privileged_state.joint_pos_rad, before)


def test_diverged_physics_is_an_error_and_not_a_silent_reset(lift_env):
    lift_env.reset(seed=0)
    lift_env._data.qvel[:] = np.nan
    with pytest.raises(SimulationError, match="physics diverged"):
        lift_env.step(np.zeros(4, np.float32))


def test_the_gripper_is_held_in_reach(reach):
    env = So101Env(reach)
    rollout(env, actions_of(reach, 10))
    assert env.privileged_state.gripper_pct == pytest.approx(reach.robot.reset_gripper_pct, abs=1.0)


def test_without_cameras_no_renderer_is_made(reach):
    env = So101Env(reach)
    rollout(env, actions_of(reach, 3))
    assert env._renderer is None


def test_the_state_only_environment_still_draws_its_video(reach):
    env = So101Env(reach, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    env.close()
    env.close()
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 20


def test_images_have_the_cameras_native_size():
    robot = RobotConfig(
        cameras={"gripper_cam": CameraConfig(width=64, height=48, simulated_as="wrist"), "front": CameraConfig(width=40, height=40)}
    )
    images = {"gripper_cam": ImageConfig(resize=(48, 48)), "front": ImageConfig(resize=(32, 32))}
    env = So101Env(TrainConfig(robot=robot, observation=ObservationConfig(images=images)))
    observation, _ = env.reset(seed=0)
    env.close()
    assert observation["observation.images.gripper_cam"].shape == (48, 64, 3)
    assert observation["observation.images.front"].shape == (40, 40, 3)


def test_an_unknown_camera_names_the_known_ones():
    robot = RobotConfig(cameras={"ceiling": CameraConfig()})
    with pytest.raises(SimulationError, match=r"robot.cameras.ceiling.*wrist and front.*simulated_as"):
        So101Env(TrainConfig(robot=robot, observation=ObservationConfig(images={})))


def test_a_reset_out_of_reach_says_so():
    robot = RobotConfig(reset_ee_pos_m=(0.12, 0.0, 0.13))
    with pytest.raises(SimulationError, match=r"reset_ee_pos_m.*mm away"):
        So101Env(TrainConfig(robot=robot, observation=ObservationConfig(images={}))).reset(seed=0)


@pytest.mark.parametrize("control_hz", [10.0, 30.0])
def test_a_step_lasts_one_control_period(control_hz):
    config = TrainConfig(robot=RobotConfig(control_hz=control_hz), observation=ObservationConfig(images={}))
    env = So101Env(config)
    env.reset(seed=0)
    for _ in range(10):
        env.step(np.zeros(3, np.float32))
    assert env._data.time == pytest.approx(10 / control_hz)
    assert env.metadata["render_fps"] == control_hz


def test_an_unknown_render_mode_is_refused(reach):
    with pytest.raises(SimulationError, match="render_mode 'human'"):
        So101Env(reach, render_mode="human")


def test_spaces_are_gymnasiums(lift_env):
    assert isinstance(lift_env.observation_space, gymnasium.spaces.Dict)
    assert lift_env.action_space.shape == (4,)
