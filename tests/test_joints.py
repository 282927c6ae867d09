"""Joint-space episodes through the one kinematics, against the environment's own numbers."""

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.joints import RobotJointConverter
from hilserl.robot.units import joints_to_lerobot
from hilserl.sim.env import So101Env


@pytest.mark.failure("D04")
def test_state_starts_at_rest_and_differs_within_the_episode_only() -> None:
    config = make_tiny_config(observation__privileged=False)
    environment = So101Env(config)
    observation, info = environment.reset(seed=5)
    joints, states = [info["joint_pos_rad"]], [observation["observation.state"]]
    for number in range(8):
        action = np.array([np.sin(number), np.cos(number), 0.3], np.float32)
        observation, *_, info = environment.step(action)
        joints.append(info["joint_pos_rad"])
        states.append(observation["observation.state"])
    converter = RobotJointConverter(config)
    np.testing.assert_allclose(converter.state(joints_to_lerobot(np.stack(joints))), np.stack(states), atol=1e-6)
    again = converter.state(joints_to_lerobot(np.stack(joints[3:])))
    assert (again[0, 6:12] == 0).all()  # joint_vel: nothing is known of the frame before
    np.testing.assert_allclose(again[1:], np.stack(states[4:]), atol=1e-6)


@pytest.mark.failure("D06")
def test_a_motion_longer_than_an_action_is_clipped_and_its_residual_is_the_rest() -> None:
    config = make_tiny_config(observation__privileged=False)
    environment = So101Env(config)
    _, info = environment.reset(seed=5)
    start = info["joint_pos_rad"]
    tool, _ = environment.kinematics.forward(start)
    target = environment.kinematics.inverse(start, tool + np.array([0.05, 0.0, 0.0]))
    reached, _ = environment.kinematics.forward(target)
    converter = RobotJointConverter(config)
    action, residual_m = converter.actions(joints_to_lerobot(start[None]), joints_to_lerobot(target[None]))
    assert action.shape == (1, 3) and np.abs(action).max() <= 1
    assert action[0, 0] == pytest.approx(1.0)
    left_m = np.linalg.norm((reached - tool) - action[0] * config.robot.action_scale_m)
    assert residual_m[0] == pytest.approx(left_m, abs=1e-6) and 0.025 < residual_m[0] < 0.035
