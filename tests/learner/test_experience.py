"""What is learned from: no pair crosses an episode or a bout, demonstrations stay, features are the encoder's."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilserl.config.models import ImageConfig, ObservationConfig, TrainConfig
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.data.replay import ReplayBuffer
from hilserl.errors import TrainingError
from hilserl.learner.experience import Experience
from hilserl.learner.statistics import ReturnBound
from hilserl.link.messages import Step
from hilserl.policy import PolicyArchitecture
from hilserl.sac.agent import SacAgent
from hilserl.sac.networks import StateScaling
from hilserl.schema import IMAGE_PREFIX, STATE_KEY
from hilserl.vision.encoder import Vision

CONFIG = TrainConfig(observation=ObservationConfig(images={}, privileged=True))
ARCHITECTURE = PolicyArchitecture.from_config(CONFIG)
NONE = Vision({})
SCALE = 64  # places are written into the state as fractions, so that they look like joint angles

Place = tuple[int, int, int]  # actor, episode, time


def make_experience(online: int, offline: int) -> Experience:
    policy = CONFIG.policy.model_copy(update={"online_buffer_capacity": online, "offline_buffer_capacity": offline})
    return Experience(CONFIG.model_copy(update={"policy": policy}), ARCHITECTURE, NONE, seed=0)


def state(place: Place) -> dict[str, np.ndarray]:
    values = np.zeros(ARCHITECTURE.state_dim, np.float32)
    values[:3] = np.array(place) / SCALE
    return {STATE_KEY: values}


@dataclass(frozen=True)
class Episode:
    human: tuple[bool, ...]  # per step, whether the human acted
    ends: bool  # False: the actor died in mid-episode
    terminated: bool


episodes = st.builds(Episode, st.lists(st.booleans(), min_size=1, max_size=12).map(tuple), st.booleans(), st.booleans())
lives = st.lists(episodes, min_size=1, max_size=8)


def steps_of(actor: int, life: list[Episode]) -> Iterator[tuple[str, Step]]:
    for number, episode in enumerate(life):
        for time, human in enumerate(episode.human):
            last = episode.ends and time == len(episode.human) - 1
            yield (
                f"actor-{actor}",
                Step(
                    episode=number,
                    step=time,
                    observation=state((actor, number, time)),
                    action=np.array([time, number, actor], np.float32) / 100,
                    reward=float(last and episode.terminated),
                    terminated=last and episode.terminated,
                    truncated=last and not episode.terminated,
                    is_intervention=human,
                    final_observation=state((actor, number, time + 1)) if last else None,
                ),
            )


def interleave(first: list, second: list, turns: list[bool]) -> list:
    merged, queues = [], [list(first), list(second)]
    for turn in turns:
        if queues[turn]:
            merged.append(queues[turn].pop(0))
    return merged + queues[0] + queues[1]


def pairs_of(buffer: ReplayBuffer) -> list[tuple[Place, Place]]:
    """Every transition that the buffer holds: drawn often enough, checked against its length."""
    if not len(buffer):
        return []
    batch = buffer.sample(40 * len(buffer) + 200, np.random.default_rng(0))
    now, after = (np.rint(seen[STATE_KEY][:, :3] * SCALE).astype(int) for seen in (batch.observation, batch.next_observation))
    np.testing.assert_allclose(batch.action * 100, now[:, [2, 1, 0]], atol=1e-4)
    return sorted({(tuple(a), tuple(b)) for a, b in zip(now.tolist(), after.tolist(), strict=True)})


def oracle(lives_: list[list[Episode]]) -> tuple[list[tuple[Place, Place]], list[tuple[Place, Place]], int]:
    """By brute force: all pairs, those of the human, and the rows that the human's bouts need."""
    every, human, rows = [], [], 0
    for actor, life in enumerate(lives_):
        for number, episode in enumerate(life):
            complete = len(episode.human) if episode.ends else len(episode.human) - 1
            bout_before = False
            for time in range(complete):
                pair = ((actor, number, time), (actor, number, time + 1))
                every.append(pair)
                if episode.human[time]:
                    human.append(pair)
                    rows += 1 if bout_before else 2
                bout_before = episode.human[time]
    return sorted(every), sorted(human), rows


@pytest.mark.failure("L01")
@given(first=lives, second=lives, turns=st.lists(st.booleans(), max_size=120))
@settings(max_examples=60, deadline=None)
def test_pairs_are_those_of_a_brute_force_search(first, second, turns) -> None:
    experience = make_experience(1000, 1000)
    for actor_id, step in interleave(list(steps_of(0, first)), list(steps_of(1, second)), turns):
        experience.add(actor_id, step)
    every, human, rows = oracle([first, second])
    assert pairs_of(experience.online) == every
    assert pairs_of(experience.offline) == human
    assert experience.offline._added == rows  # each bout a segment of its own, each observation once
    steps = sum(len(episode.human) for life in (first, second) for episode in life)
    assert experience.dropped_steps + len(experience._linker.open) == steps - len(every)


@pytest.mark.failure("L01")
@given(first=lives, second=lives, turns=st.lists(st.booleans(), max_size=120), online=st.integers(4, 14), offline=st.integers(2, 8))
@settings(max_examples=80, deadline=None)
def test_small_rings_hold_less_but_nothing_wrong(first, second, turns, online, offline) -> None:
    experience = make_experience(online, offline)
    for actor_id, step in interleave(list(steps_of(0, first)), list(steps_of(1, second)), turns):
        experience.add(actor_id, step)
    every, human, _ = oracle([first, second])
    assert set(pairs_of(experience.online)) <= set(every)
    assert set(pairs_of(experience.offline)) <= set(human)


@pytest.mark.failure("L02")
def test_a_thousand_interventions_evict_no_demonstration(tiny_config, tiny_buffer) -> None:
    demos = OfflineBuffer.open(tiny_buffer)
    policy = tiny_config.policy.model_copy(update={"offline_buffer_capacity": demos.manifest.rows + 10})
    experience = Experience(tiny_config.model_copy(update={"policy": policy}), PolicyArchitecture.from_config(tiny_config), NONE, seed=0)
    experience.add_demonstrations(demos)
    for actor_id, step in steps_of(0, [Episode((True,) * 12, True, False)] * 80):
        experience.add(actor_id, step)
    kept = experience.offline.sample(20_000, np.random.default_rng(0)).observation[STATE_KEY]
    shown = {row.tobytes() for row in demos.columns["state"][demos.transition_rows]}
    assert shown <= {row.tobytes() for row in kept}
    assert experience.offline.evicted > 900


def test_a_batch_is_half_online_and_half_demonstrations(tiny_config, tiny_buffer) -> None:
    experience = Experience(tiny_config, PolicyArchitecture.from_config(tiny_config), NONE, seed=0)
    experience.add_demonstrations(OfflineBuffer.open(tiny_buffer))
    assert len(experience.sample(16).reward) == 16  # nothing online yet: demonstrations only
    for actor_id, step in steps_of(7, [Episode((False,) * 12, True, False)]):
        experience.add(actor_id, step)
    is_online = experience.sample(16).state[:, 0] == 7 / SCALE
    assert int(is_online.sum()) == 8


@pytest.mark.failure("L09")
def test_frozen_features_are_the_encoders_of_the_images_and_are_not_shifted() -> None:
    config = TrainConfig(observation=ObservationConfig(images={"wrist": ImageConfig(resize=(32, 32))}))
    architecture = PolicyArchitecture.from_config(config)
    encoders = architecture.encoders()
    experience = Experience(config, architecture, Vision(encoders).requires_grad_(False), seed=0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 32, 3), np.uint8)
    states = rng.standard_normal((6, architecture.state_dim)).astype(np.float32)
    for time in range(5):
        seen = [{STATE_KEY: states[t], IMAGE_PREFIX + "wrist": images[t]} for t in (time, time + 1)]
        final = seen[1] if time == 4 else None
        experience.add("a", Step(0, time, seen[0], np.zeros(3, np.float32), 0.0, False, time == 4, False, final))
    batch = experience._to_tensors(experience.online.sample(50, experience.generator))
    for now, features in zip(batch.state.numpy(), batch.images["wrist"], strict=True):
        time = int(np.flatnonzero((states == now).all(axis=1))[0])
        with torch.inference_mode():
            torch.testing.assert_close(features, encoders["wrist"](torch.from_numpy(images[time : time + 1]))[0], rtol=1e-5, atol=1e-5)


@pytest.mark.failure("L09")
def test_an_encoder_that_is_trained_sees_images_shifted_exactly_once() -> None:
    config = TrainConfig.model_validate(
        {"observation": {"images": {"wrist": {"resize": [32, 32]}}}, "encoder": {"type": "cnn", "freeze": False}}
    )
    architecture = PolicyArchitecture.from_config(config)
    experience = Experience(config, architecture, NONE, seed=0)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    seen = {STATE_KEY: np.zeros(architecture.state_dim, np.float32), IMAGE_PREFIX + "wrist": image}
    experience.add("a", Step(0, 0, seen, np.zeros(3, np.float32), 0.0, False, True, True, seen))  # a human's: in both buffers
    small = config.policy.model_copy(update={"hidden_dims": (8,), "latent_dim": 4})
    scaling = StateScaling(torch.zeros(architecture.state_dim), torch.ones(architecture.state_dim))
    agent = SacAgent(small, architecture.input_spec(), scaling, architecture.encoders(), seed=0)
    encoded: list[torch.Tensor] = []
    for encoder in (agent.vision.encoders["wrist"], agent.target_vision.encoders["wrist"]):
        encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0].clone()))
    batch = experience.sample(40)  # half of it online, half of it the human's
    agent.update(batch, update_actor=True)
    assert len(encoded) == 3  # next (for the action), next (for the target), now
    assert torch.equal(encoded[0], batch.next_images["wrist"]) and torch.equal(encoded[1], encoded[0])
    assert torch.equal(encoded[2], batch.images["wrist"])  # nothing shifts them a second time
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")
    shifts = {padded[y : y + 32, x : x + 32].tobytes() for y in range(9) for x in range(9)}
    for images in encoded:
        drawn = [shown.numpy().tobytes() for shown in images]
        assert set(drawn) <= shifts and len(set(drawn)) > 20 and drawn[0] != drawn[1]
    assert not torch.equal(encoded[0], encoded[2])
    assert not torch.equal(experience.sample(40).images["wrist"], encoded[2])  # at every update anew


@pytest.mark.failure("L12")
@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([], None),
        ([(0.0, False), (-1.0, True)], None),
        ([(0.0, False), (1.0, True)], 1.0),
        ([(0.5, True), (10.0, True)], 10.0),
        ([(1.0, True), (0.1, False)], 10.0),  # a reward that may be paid at every step: 1 / (1 - 0.9)
    ],
)
def test_the_largest_possible_return(rewards, expected) -> None:
    bound = ReturnBound(0.9)
    for reward, terminated in rewards:
        bound.add(reward, terminated=terminated)
    assert bound.value == pytest.approx(expected)


@pytest.mark.failure("D17")
def test_online_state_in_another_unit_stops_and_is_named(tiny_config: TrainConfig, tiny_buffer: Path) -> None:
    architecture = PolicyArchitecture.from_config(tiny_config)
    experience = Experience(tiny_config, architecture, NONE, seed=0)
    demonstrations = OfflineBuffer.open(tiny_buffer)
    experience.add_demonstrations(demonstrations)

    def step(number: int, observed: np.ndarray) -> Step:
        action = np.zeros(architecture.action_dim, np.float32)
        return Step(0, number, {STATE_KEY: observed}, action, 0.0, terminated=False, truncated=False, is_intervention=False)

    radians = np.array(demonstrations.columns["state"][0])
    experience.add("arm", step(0, radians))
    degrees = radians.copy()
    degrees[:6] = np.rad2deg(degrees[:6])
    with pytest.raises(TrainingError, match=r"arm, episode 0 step 1: `joint_pos\.\w+` is .*another unit"):
        experience.add("arm", step(1, degrees))


@pytest.mark.failure("L03")
@pytest.mark.parametrize("wrong", [1.01, -30.0, float("nan")])
def test_an_action_outside_of_the_policys_space_stops_and_is_named(tiny_config: TrainConfig, tiny_buffer: Path, wrong: float) -> None:
    experience = Experience(tiny_config, PolicyArchitecture.from_config(tiny_config), Vision({}), seed=0)
    experience.add_demonstrations(OfflineBuffer.open(tiny_buffer))
    seen = experience.offline.observation(0)
    action = np.zeros(len(tiny_config.action_names), np.float32)
    experience.add("arm", Step(0, 0, {STATE_KEY: seen[STATE_KEY]}, action + 1, 0.0, False, False, False, None))  # its very edge is allowed
    action[-1] = wrong
    with pytest.raises(TrainingError, match=r"arm, episode 0 step 1: the action .* is outside \[-1, 1\]"):
        experience.add("arm", Step(0, 1, {STATE_KEY: seen[STATE_KEY]}, action, 0.0, False, False, False, None))


@pytest.mark.failure("L03")
def test_critic_and_actor_share_one_action_space(tiny_config: TrainConfig, tiny_buffer: Path) -> None:
    """What is stored, the codec's encoding of what was executed, is what the actor's output means to the codec."""
    columns = np.concatenate([shard.columns["action"] for shard in OfflineBuffer.open(tiny_buffer).shards()])
    experience = Experience(tiny_config, PolicyArchitecture.from_config(tiny_config), Vision({}), seed=0)
    experience.add_demonstrations(OfflineBuffer.open(tiny_buffer))
    batch = experience.sample(64)
    assert np.abs(columns).max() <= 1
    assert {tuple(row) for row in batch.action.tolist()} <= {tuple(row) for row in columns.astype(np.float32).tolist()}
