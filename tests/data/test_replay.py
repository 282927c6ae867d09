import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilserl.data.replay import ArraySpec, ReplayBuffer
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


def add_weighted(buffer: ReplayBuffer, stream: int, weights: list[float]) -> None:
    """An episode of which step `time` has the weight `weights[time]`."""
    row = buffer.add_observation(observation(stream, 0))
    for time, weight in enumerate(weights):
        following = buffer.add_observation(observation(stream, time + 1))
        buffer.add_transition(row, following, action=np.zeros(1), reward=0.0, terminated=False, weight=weight)
        row = following


def chi_square_per_freedom(buffer: ReplayBuffer, weights: dict[tuple[int, int], float], draws: int = 30_000) -> float:
    """How far the drawn transitions are from their weights; 1 is expected."""
    seen = buffer.sample(draws, np.random.default_rng(0)).observation["observation.state"].astype(int)
    places, counts = np.unique(seen, axis=0, return_counts=True)
    assert {tuple(place) for place in places.tolist()} == set(weights)
    total = sum(weights.values())
    expected = np.array([draws * weights[tuple(place)] / total for place in places.tolist()])
    return float(((counts - expected) ** 2 / expected).sum() / (len(weights) - 1))


def test_transitions_are_drawn_in_proportion_to_their_weight() -> None:
    buffer = ReplayBuffer(30, PARTS, 1)
    weights = [1.0, 2.0, 0.25, 7.0, 0.5, 3.0, 1.0, 1.0, 4.5, 0.1]
    add_weighted(buffer, 1, weights)
    assert chi_square_per_freedom(buffer, {(1, time): weight for time, weight in enumerate(weights)}) < 2.2
    assert chi_square_per_freedom(buffer, {(1, time): 1.0 for time in range(10)}) > 100  # the statistic can tell


def test_eviction_keeps_the_weights_right() -> None:
    buffer = ReplayBuffer(12, PARTS, 1)
    add_weighted(buffer, 1, [3.0, 1.0])
    buffer.pin()
    add_weighted(buffer, 2, [200.0, 1e-3, 5.0])  # the extremes are evicted below, and a row is used again with another weight
    add_weighted(buffer, 3, [2.0] * 7)
    kept = {(1, 0): 3.0, (1, 1): 1.0} | {(3, time): 2.0 for time in range(7)}
    assert len(buffer) == len(kept) and chi_square_per_freedom(buffer, kept) < 2.2
    assert (buffer._lightest, buffer._heaviest) == (1.0, 3.0)  # else draws are thrown away for what is no longer there


@given(episodes=st.lists(st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), min_size=1, max_size=6), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_extremes_are_those_of_what_is_held(episodes: list[list[float]]) -> None:
    buffer = ReplayBuffer(10, PARTS, 1)
    for stream, weights in enumerate(episodes):
        add_weighted(buffer, stream, weights)
        if len(buffer):
            seen = buffer.sample(300, np.random.default_rng(0)).observation["observation.state"].astype(int)
            held = [episodes[stream][time] for stream, time in np.unique(seen, axis=0)]
            assert len(held) == len(buffer)
            assert (buffer._lightest, buffer._heaviest) == (min(held), max(held))


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_equal_weights_draw_what_was_drawn_without_weights(weight: float) -> None:
    """The random stream of earlier results: one draw of `integers`, and nothing thrown away."""
    buffer = ReplayBuffer(30, PARTS, 1)
    add_weighted(buffer, 1, [weight] * 20)
    generator, reference = np.random.default_rng(3), np.random.default_rng(3)
    batch = buffer.sample(64, generator)
    assert (batch.observation["observation.state"][:, 1] == buffer._valid[reference.integers(0, 20, 64)]).all()
    assert generator.bit_generator.state == reference.bit_generator.state


@pytest.mark.parametrize("weight", [0.0, -1.0, np.inf, np.nan])
def test_a_weight_is_positive(weight: float) -> None:
    with pytest.raises(AssertionError):
        add_weighted(ReplayBuffer(30, PARTS, 1), 1, [weight])


def test_images_are_shifted_where_the_parts_say_so_and_their_rows_stay_right() -> None:
    """Each image is one of the 81 shifts of its own row's, and an observation's shift is not its next one's."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 12, 10, 3), np.uint8)
    parts = PARTS | {"shifted": ArraySpec((12, 10, 3), "uint8", shift_px=4), "still": ArraySpec((12, 10, 3), "uint8")}
    buffer = ReplayBuffer(6, parts, 1)
    rows = [buffer.add_observation(observation(0, time) | {"shifted": image, "still": image}) for time, image in enumerate(images)]
    for row, following in itertools.pairwise(rows):
        buffer.add_transition(row, following, action=np.zeros(1), reward=0.0, terminated=False)
    assert (buffer.observation(3)["shifted"] == images[3]).all()
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    batch = buffer.sample(200, np.random.default_rng(1))

    def shifts(seen: dict[str, np.ndarray]) -> list[tuple[int, int]]:
        times = seen["observation.state"][:, 1].astype(int)
        assert (seen["still"] == images[times]).all()
        found = []
        for time, image in zip(times, seen["shifted"], strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(padded[time], (12, 10, 3))[:, :, 0]
            ((down, right),) = np.argwhere((windows == image).all(axis=(2, 3, 4))).tolist()
            found.append((down, right))
        return found

    now, following = shifts(batch.observation), shifts(batch.next_observation)
    assert len(set(now)) > 60 and sum(a == b for a, b in zip(now, following, strict=True)) < 15
    again = buffer.sample(200, np.random.default_rng(1))
    assert (again.observation["shifted"] == batch.observation["shifted"]).all()
    assert (again.next_observation["shifted"] == batch.next_observation["shifted"]).all()


def test_returns_by_hand() -> None:
    """Seven steps, discount 1/2, three steps a return: termination, change of the actor, end of a segment, missing step."""
    buffer = ReplayBuffer(40, PARTS, 1, discount=0.5, n_step=3)

    def episode(stream: int, human: list[int], *, terminated: bool, gap: int | None = None) -> None:
        rows = [buffer.add_observation(observation(stream, time)) for time in range(len(human) + 1)]
        for time, is_human in enumerate(human):
            if time != gap:
                done = terminated and time == len(human) - 1
                reward = 2.0**time
                facts = {"action": np.zeros(1), "reward": reward, "terminated": done, "is_intervention": bool(is_human)}
                buffer.add_transition(rows[time], rows[time + 1], **facts)

    episode(0, [0, 0, 0, 0], terminated=True)
    episode(1, [0, 0, 1, 1], terminated=False)
    episode(2, [0, 0, 0, 0], terminated=False, gap=2)
    alone = buffer.add_observation(observation(3, 0))
    buffer.add_transition(alone, alone, action=np.zeros(1), reward=8.0, terminated=True)  # terminated, without a final observation
    expected = {  # next time, reward, terminated, discount
        (0, 0): (3, 1 + 1 + 1, False, 1 / 8),
        (0, 1): (4, 2 + 2 + 2, True, 1 / 8),
        (0, 2): (4, 4 + 4, True, 1 / 4),
        (0, 3): (4, 8, True, 1 / 2),
        (1, 0): (2, 1 + 1, False, 1 / 4),  # then the human takes over
        (1, 1): (2, 2, False, 1 / 2),
        (1, 2): (4, 4 + 4, False, 1 / 4),  # truncated: bootstraps
        (1, 3): (4, 8, False, 1 / 2),
        (2, 0): (2, 1 + 1, False, 1 / 4),  # the next step is not there
        (2, 1): (2, 2, False, 1 / 2),
        (2, 3): (4, 8, False, 1 / 2),
        (3, 0): (0, 8, True, 1 / 2),
    }
    batch = buffer.sample(600, np.random.default_rng(0))
    now, after = (seen["observation.state"].astype(int).tolist() for seen in (batch.observation, batch.next_observation))
    found = {}
    for start, end, *values in zip(now, after, batch.reward, batch.terminated, batch.discount, strict=True):
        assert start[0] == end[0]
        found[tuple(start)] = (end[1], *values)
    assert found == expected


def test_one_step_returns_are_the_transitions_and_take_nothing_more_from_the_generator() -> None:
    one, three = ReplayBuffer(30, PARTS, 1, discount=0.9), ReplayBuffer(30, PARTS, 1, discount=0.9, n_step=3)
    generators = np.random.default_rng(4), np.random.default_rng(4)
    for buffer in (one, three):
        add_episode(buffer, 0, 20, terminated=True)
    first, second = one.sample(50, generators[0]), three.sample(50, generators[1])
    assert (first.observation["observation.state"] == second.observation["observation.state"]).all()
    assert (first.discount == np.float32(0.9)).all() and (second.discount != np.float32(0.9)).any()
    assert generators[0].bit_generator.state == generators[1].bit_generator.state


@pytest.mark.failure("L09")
def test_stored_views_are_drawn_at_random_and_independently() -> None:
    parts = PARTS | {"feature": ArraySpec((2,), "float16", views=4)}
    buffer = ReplayBuffer(6, parts, 1)
    stored = np.arange(6 * 4 * 2).reshape(6, 4, 2).astype(np.float16)
    rows = [buffer.add_observation(observation(0, time) | {"feature": stored[time]}) for time in range(6)]
    for row, following in itertools.pairwise(rows):
        buffer.add_transition(row, following, action=np.zeros(1), reward=0.0, terminated=False)
    assert (buffer.observation(2)["feature"] == stored[2]).all()
    batch = buffer.sample(4000, np.random.default_rng(0))
    views = []
    for seen in (batch.observation, batch.next_observation):
        times = seen["observation.state"][:, 1].astype(int)
        matches = (stored[times] == seen["feature"][:, None]).all(axis=2)
        assert (matches.sum(axis=1) == 1).all()
        views.append(matches.argmax(axis=1))
    pairs = np.bincount(views[0] * 4 + views[1], minlength=16)
    assert ((pairs - 250) ** 2 / 250).sum() < 40  # 15 degrees of freedom


def test_book_keeping_is_small() -> None:
    assert ReplayBuffer(1000, PARTS, 4).bookkeeping_nbytes <= 1000 * (4 * 4 + 30) + 100
