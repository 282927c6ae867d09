from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilserl.data.replay import ArraySpec, ReplayBuffer, concatenate
from hilserl.errors import TrainingError

PARTS = {"observation.state": ArraySpec((2,), "float32")}


def observation(stream: int, time: int) -> dict[str, np.ndarray]:
    return {"observation.state": np.array([stream, time], np.float32)}


def add_episode(buffer: ReplayBuffer, stream: int, length: int, *, terminated: bool) -> None:
    row = buffer.add_observation(observation(stream, 0))
    for time in range(length):
        following = buffer.add_observation(observation(stream, time + 1))
        last = time == length - 1
        buffer.add_transition(row, following, action=np.array([time], np.float32), reward=float(last), terminated=last and terminated)
        row = following


@dataclass(frozen=True)
class Plan:
    length: int
    terminated: bool


plans = st.lists(st.builds(Plan, st.integers(1, 9), st.booleans()), min_size=1, max_size=30)


@pytest.mark.failure("L01")
@given(capacity=st.integers(3, 40), episodes=plans, seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_no_sampled_pair_crosses_an_episode_or_the_ring(capacity: int, episodes: list[Plan], seed: int) -> None:
    buffer = ReplayBuffer(capacity, PARTS, 1)
    for stream, plan in enumerate(episodes):
        add_episode(buffer, stream, plan.length, terminated=plan.terminated)
    if not len(buffer):
        return
    batch = buffer.sample(200, np.random.default_rng(seed))
    now, following = batch.observation["observation.state"], batch.next_observation["observation.state"]
    assert (now[:, 0] == following[:, 0]).all()
    assert (now[:, 1] + 1 == following[:, 1]).all()
    assert (batch.action[:, 0] == now[:, 1]).all()
    last = np.array([episodes[int(stream)].length - 1 == time for stream, time in now])
    assert (batch.reward == last).all()
    assert (batch.terminated == [bool(is_last) and episodes[int(s)].terminated for is_last, (s, _) in zip(last, now, strict=True)]).all()


@given(episodes=plans)
@settings(max_examples=60, deadline=None)
def test_ring_holds_as_much_as_fits(episodes: list[Plan]) -> None:
    """Every transition whose two rows are still there can be sampled: nothing is lost beyond what was overwritten."""
    capacity = 25
    buffer = ReplayBuffer(capacity, PARTS, 1)
    rows: list[tuple[int, int]] = []
    for stream, plan in enumerate(episodes):
        add_episode(buffer, stream, plan.length, terminated=plan.terminated)
        rows += [(stream, time) for time in range(plan.length + 1)]
    kept = set(rows[-capacity:])
    expected = {(s, t) for s, t in kept if (s, t + 1) in kept}
    assert len(buffer) == len(expected)
    if expected:
        seen = {(int(s), int(t)) for s, t in buffer.sample(2000, np.random.default_rng(0)).observation["observation.state"]}
        assert seen <= expected and (len(expected) > 20 or seen == expected)


@pytest.mark.failure("L02")
@given(episodes=plans)
@settings(max_examples=60, deadline=None)
def test_pinned_demonstrations_survive_everything(episodes: list[Plan]) -> None:
    buffer = ReplayBuffer(30, PARTS, 1)
    add_episode(buffer, 1000, 6, terminated=True)
    buffer.pin()
    for stream, plan in enumerate(episodes):
        add_episode(buffer, stream, plan.length, terminated=plan.terminated)
    states = buffer.sample(3000, np.random.default_rng(0)).observation["observation.state"]
    assert {int(time) for stream, time in states if stream == 1000} == set(range(6))


def test_terminated_step_without_a_final_observation_is_allowed_and_others_are_not() -> None:
    buffer = ReplayBuffer(4, PARTS, 1)
    row = buffer.add_observation(observation(0, 0))
    with pytest.raises(AssertionError):
        buffer.add_transition(row, row, action=np.zeros(1), reward=0.0, terminated=False)
    buffer.add_transition(row, row, action=np.zeros(1), reward=1.0, terminated=True)
    assert buffer.sample(1, np.random.default_rng(0)).terminated[0]
    for time in range(5):
        buffer.add_observation(observation(1, time))
    assert len(buffer) == 0


def test_full_demonstrations_leave_room_or_stop() -> None:
    buffer = ReplayBuffer(7, PARTS, 1)
    add_episode(buffer, 0, 6, terminated=True)
    with pytest.raises(TrainingError, match=r"offline_buffer_capacity"):
        buffer.pin()


def test_concatenate_keeps_rows_aligned() -> None:
    first, second = ReplayBuffer(9, PARTS, 1), ReplayBuffer(9, PARTS, 1)
    add_episode(first, 1, 3, terminated=False)
    add_episode(second, 2, 3, terminated=True)
    both = concatenate(first.sample(4, np.random.default_rng(0)), second.sample(4, np.random.default_rng(0)))
    assert both.observation["observation.state"][:, 0].tolist() == [1] * 4 + [2] * 4
    assert (both.action[:, 0] == both.observation["observation.state"][:, 1]).all()
