"""`task.reward: shaped`: potential-based, so that no comparison between policies changes (Ng, Harada and Russell 1999)."""

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl.config.loader import load_config
from hilserl.errors import ConfigError
from hilserl.sim.env import So101Env
from hilserl.sim.expert import ScriptedExpert
from hilserl.sim.privileged import PrivilegedState, potential, reach_target_m

EPISODES = 3


def make(task: str):
    overrides = {"task.reward": "shaped", "tracking.enable": False}
    return load_config(f"{task}_state", overrides)


def play(config, seed: int, *, idle: int = 0, steps: int | None = None):
    """Idle for a while, then let the expert do the task.

    Returns:
        Rewards, whether it succeeded, and the privileged states, one more than rewards.
    """
    env, expert = So101Env(config), ScriptedExpert(config)
    env.reset(seed=seed)
    rewards, states, ended, success = [], [env.privileged_state], False, False
    while not ended and (steps is None or len(rewards) < steps):
        action = np.zeros(len(config.action_names)) if len(rewards) < idle else expert.action(env.privileged_state)
        _, reward, terminated, truncated, info = env.step(action.astype(np.float32))
        rewards.append(reward)
        states.append(env.privileged_state)
        ended, success = terminated or truncated, info["is_success"]
    env.close()
    return rewards, success, states


def discounted(config, rewards: list[float]) -> float:
    return sum(reward * config.policy.discount**step for step, reward in enumerate(rewards))


@pytest.mark.failure("L13")
@pytest.mark.parametrize("task", ["reach", "lift"])
@pytest.mark.parametrize("seed", range(EPISODES))
def test_delay_does_not_pay(task: str, seed: int) -> None:
    """A slower success returns less, and either is the sparse return minus the start's potential: shaping takes no sides."""
    config = make(task)
    fast, fast_success, states = play(config, seed)
    slow, slow_success, _ = play(config, seed, idle=6)
    assert fast_success and slow_success and len(fast) < len(slow)
    assert discounted(config, fast) > discounted(config, slow)
    start = potential(config.task, states[0])
    for rewards in (fast, slow):
        assert discounted(config, rewards) == pytest.approx(config.policy.discount ** (len(rewards) - 1) - start, abs=1e-9)
        assert discounted(config, rewards) <= config.largest_return


@pytest.mark.failure("L13")
@pytest.mark.parametrize("task", ["reach", "lift"])
def test_an_episode_that_is_cut_is_worth_what_it_came_nearer(task: str) -> None:
    """Truncation is no end of the task: the last potential stays in the account, and idling in place is worth nothing."""
    config = make(task)
    rewards, success, states = play(config, 1, idle=10**6)
    assert not success and len(rewards) == config.episode_steps
    first, last = potential(config.task, states[0]), potential(config.task, states[-1])
    assert discounted(config, rewards) == pytest.approx(config.policy.discount ** len(rewards) * last - first, abs=1e-9)
    for reward, before, after in zip(rewards, states, states[1:], strict=False):
        assert reward == pytest.approx(config.policy.discount * potential(config.task, after) - potential(config.task, before))


def test_the_sparse_reward_is_as_it_was() -> None:
    rewards, success, _ = play(load_config("reach_state"), 0)
    assert success and rewards == [0.0] * (len(rewards) - 1) + [1.0]


@pytest.mark.parametrize("task", ["reach", "lift"])
def test_the_potential_is_in_minus_one_to_zero_and_rises_on_the_experts_way(task: str) -> None:
    config = make(task)
    _, _, states = play(config, 2)
    values = [potential(config.task, state) for state in states]
    assert all(-1 <= value <= 0 for value in values)
    assert values[-1] > values[0] and values[-1] > -0.15
    far = PrivilegedState(np.array([5.0, 0, 0]), np.array([0.2, 0, 0.0125]), 0.0, np.zeros(6), 50.0)
    assert potential(config.task, far) == -1.0


def test_the_stages_of_lift_follow_each_other_and_the_target_of_reach_is_zero() -> None:
    lift, reach = make("lift").task, make("reach").task
    cube = np.array([0.2, 0.0, 0.0125])

    def state(tool: np.ndarray, cube: np.ndarray) -> PrivilegedState:
        return PrivilegedState(tool, cube, 0.0, np.zeros(6), 20.0)

    half_way = cube + np.array([0, 0, lift.lift_height_m / 2])
    assert potential(lift, state(cube, cube)) == pytest.approx(-0.5)  # at the cube, not held
    assert potential(lift, state(half_way, half_way)) == pytest.approx(-0.25)
    assert potential(lift, state(cube + np.array([0, 0, 0.125]), cube)) == pytest.approx(-0.75)  # half of 0.25 m away
    assert potential(reach, state(reach_target_m(reach, state(cube, cube)), cube)) == pytest.approx(0.0)


def test_demonstrations_must_be_recorded_with_the_same_reward() -> None:
    with pytest.raises(ConfigError, match=r"task\.reward: `shaped` is known to the simulation only"):
        load_config("reach_state", {"task.reward": "shaped", "dataset.root": "/data/demos"})
    with pytest.raises(ConfigError, match="flavour: policy"):
        make_tiny_config(task__reward="shaped", dataset__record__flavour="teleop")
