import dataclasses

import numpy as np
import pytest

from hilserl.config.models import ActorConfig, InterventionConfig, TrainConfig
from hilserl.errors import SimulationError
from hilserl.sim.env import So101Env
from hilserl.sim.human import HumanState, SimulatedHuman
from hilserl.sim.privileged import PrivilegedState

FAR = PrivilegedState(np.array([0.20, 0.10, 0.15]), np.array([0.25, -0.05, 0.0125]), 0.0, np.zeros(6), 60.0)


def human_with(config=None, **settings):
    intervention = InterventionConfig(**{"type": "simulated", "probability": 1.0, "noise": 0.0} | settings)
    config = (config or TrainConfig()).model_copy(update={"actor": ActorConfig(intervention=intervention)})
    return SimulatedHuman(config, np.random.default_rng(0))


def moved(state, metres):
    """The tool this much nearer to the target."""
    towards = state.cube_pos_m + np.array([0, 0, 0.03]) - state.tool_pos_m
    return dataclasses.replace(state, tool_pos_m=state.tool_pos_m + metres * towards / np.linalg.norm(towards))


@pytest.mark.failure("R21")
def test_takes_over_when_stuck_after_its_reaction_time_and_for_a_bounded_bout():
    human = human_with(stuck_steps=4, delay_steps=3, max_bout_steps=5)
    acts = [human.intervene(FAR) is not None for _ in range(13)]
    # One step to see where it is, 4 without progress (the last of them starts the reaction), 3 to react, 5 of bout.
    assert acts == [False] * (1 + 4 + 3 - 1) + [True] * 5 + [False]
    assert human.intervene(FAR) is None
    assert human.state is HumanState.WATCHING


def test_progress_keeps_the_human_watching():
    human, state = human_with(stuck_steps=4), FAR
    for _ in range(20):
        assert human.intervene(state) is None
        state = moved(state, 0.005)


def test_progress_during_the_reaction_calls_it_off():
    human = human_with(stuck_steps=2, delay_steps=5)
    while human.state is not HumanState.REACTING:
        human.intervene(FAR)
    assert human.intervene(moved(FAR, 0.02)) is None
    assert human.state is HumanState.WATCHING


def test_acts_like_the_expert_towards_the_goal():
    human = human_with(stuck_steps=1, delay_steps=0)
    action = None
    while action is None:
        action = human.intervene(FAR)
    np.testing.assert_allclose(action, [1.0, -1.0, -1.0])
    noisy = human_with(stuck_steps=1, delay_steps=0, noise=0.3)
    assert len({tuple(a) for a in (noisy.intervene(FAR) for _ in range(8)) if a is not None}) > 3


def test_hands_back_before_success(lift, reach):
    for config in (reach, lift):
        human, env = human_with(config, stuck_steps=1, delay_steps=0, max_bout_steps=50, noise=0.2), So101Env(config)
        helped = 0
        for seed in range(5):
            env.reset(seed=seed)
            human.reset()
            for _ in range(config.episode_steps):
                action = human.intervene(env.privileged_state)
                helped += action is not None
                _, _, terminated, truncated, _ = env.step(np.zeros(len(config.action_names), np.float32) if action is None else action)
                assert not (terminated and action is not None), "the last step belongs to the policy"
                if terminated or truncated:
                    break
        assert helped > 5


def test_reacts_less_often_as_the_policy_succeeds():
    human = human_with(probability=0.5)
    assert human.probability == 0.5
    for _ in range(10):
        human.observe_outcome(True)
    after_success = human.probability
    assert after_success == pytest.approx(0.5 * 0.9**10)
    human.reset()
    assert human.probability == after_success  # an episode's start forgets nothing
    human.observe_outcome(False)
    assert human.probability > after_success


def test_an_occasion_not_taken_is_let_pass():
    human = human_with(probability=0.0, stuck_steps=2, delay_steps=0)
    assert all(human.intervene(FAR) is None for _ in range(50))


def test_equal_seeds_act_equally():
    runs = [
        [human.intervene(FAR) for _ in range(40)]
        for human in (human_with(noise=0.3, probability=0.5), human_with(noise=0.3, probability=0.5))
    ]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_human_who_was_not_asked_for_is_refused():
    with pytest.raises(SimulationError, match=r"actor\.intervention.type"):
        human_with(type="none")
