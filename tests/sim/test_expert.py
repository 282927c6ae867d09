import numpy as np
import pytest

from hilserl.sim.env import So101Env
from hilserl.sim.expert import Phase, ScriptedExpert


def successes(config, episodes, noise, seed=0):
    env, expert, rng = So101Env(config), ScriptedExpert(config), np.random.default_rng(seed)
    done = []
    for episode in range(episodes):
        env.reset(seed=episode)
        expert.reset()
        terminated = truncated = False
        while not (terminated or truncated):
            action = expert.action(env.privileged_state)
            noisy = np.clip(action + rng.normal(0, noise, action.shape), -1, 1).astype(np.float32)
            _, _, terminated, truncated, _ = env.step(noisy)
        done.append(terminated)
    return sum(done)


def test_it_always_reaches(reach):
    assert successes(reach, 30, noise=0.2) == 30


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_it_lifts_at_least_19_of_20(lift, noise):
    assert successes(lift, 20, noise) >= 19


def test_actions_are_the_policys(lift_env, lift):
    lift_env.reset(seed=0)
    action = ScriptedExpert(lift).action(lift_env.privileged_state)
    assert action.dtype == np.float32
    assert action.shape == (4,)
    assert np.abs(action).max() <= 1


def test_a_cube_that_slipped_is_fetched_again(lift_env, lift):
    lift_env.reset(seed=0)
    expert = ScriptedExpert(lift)
    while expert.phase is not Phase.LIFT:
        lift_env.step(expert.action(lift_env.privileged_state))
    lift_env._data.qpos[lift_env._cube][:3] = 0.25, -0.05, 0.0125
    lift_env._data.qpos[lift_env._cube][3:] = 1, 0, 0, 0
    phases = set()
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = lift_env.step(expert.action(lift_env.privileged_state))
        phases.add(expert.phase)
    assert terminated
    assert phases == set(Phase)


def test_taking_over_with_the_cube_in_hand_goes_on_lifting(lift_env, lift):
    lift_env.reset(seed=1)
    expert = ScriptedExpert(lift)
    while lift_env.privileged_state.cube_height_m < 0.015:
        lift_env.step(expert.action(lift_env.privileged_state))
    fresh = ScriptedExpert(lift)
    action = fresh.action(lift_env.privileged_state)
    assert fresh.phase is Phase.LIFT
    assert action[2] == 1.0
    assert action[3] == -1.0
