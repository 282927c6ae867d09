"""Random lives of the experience, restarts included, against a slow model that keeps everything in plain lists."""

import copy
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hilserl.config.models import ObservationConfig, TrainConfig
from hilserl.data.replay import ReplayBuffer
from hilserl.errors import CheckpointError, TrainingError
from hilserl.learner.experience import Experience
from hilserl.link.messages import Step
from hilserl.policy import PolicyArchitecture
from hilserl.schema import STATE_KEY
from hilserl.vision.encoder import Vision

CONFIG = TrainConfig(observation=ObservationConfig(images={}, privileged=True))
ARCHITECTURE = PolicyArchitecture.from_config(CONFIG)
DISCOUNT, ACTORS, DEMONSTRATION = 0.9, 3, 99
ONLINE, OFFLINE, DEMONSTRATED = 17, 19, 6

Place = tuple[int, int, int]  # actor, episode, time


def observation(place: Place) -> dict[str, np.ndarray]:
    values = np.zeros(ARCHITECTURE.state_dim, np.float32)
    values[:3] = place
    return {STATE_KEY: values}


def action(place: Place) -> np.ndarray:
    return np.array([place[2], place[1], place[0]], np.float32) / 1024


def make_experience(n_step: int, folder: Path | None, online: int = ONLINE, offline: int = OFFLINE) -> Experience:
    """With one pinned demonstration of `DEMONSTRATED` steps, whose transitions have unequal weights."""
    changes = {"online_buffer_capacity": online, "offline_buffer_capacity": offline, "n_step": n_step, "discount": DISCOUNT}
    config = CONFIG.model_copy(update={"policy": CONFIG.policy.model_copy(update=changes)})
    experience = Experience(config, ARCHITECTURE, Vision({}), seed=0)
    row = experience.offline.add_observation(observation((DEMONSTRATION, 0, 0)))
    for time in range(DEMONSTRATED):
        following = experience.offline.add_observation(observation((DEMONSTRATION, 0, time + 1)))
        terminated = time == DEMONSTRATED - 1
        facts: dict[str, Any] = {"reward": float(terminated), "terminated": terminated, "is_intervention": True, "weight": 1.0 + time % 2}
        experience.offline.add_transition(row, following, action=action((DEMONSTRATION, 0, time)), **facts)
        row = following
    experience.offline.pin()
    if folder is not None:
        experience.attach_store(folder)
    return experience


@dataclass
class Ring:
    """What a buffer was given, in order of arrival; the oldest is no longer there when a new one comes."""

    capacity: int
    places: list[Place] = field(default_factory=list)
    links: list[tuple[int, int, Step]] = field(default_factory=list)  # two arrivals, and the step between them

    def arrive(self, place: Place) -> int:
        self.places.append(place)
        return len(self.places) - 1

    def holds(self, arrival: int) -> bool:
        return arrival >= len(self.places) - self.capacity

    def returns(self, n_step: int) -> dict[Place, tuple[Place, float, bool, float]]:
        """By the place where they begin: where the returns end, their reward, termination and discount."""
        following = {start: (end, step) for start, end, step in self.links if self.holds(start) and self.holds(end)}
        found = {}
        for start, (end, step) in following.items():
            reward, steps, last = step.reward, 1, step
            while steps < n_step and not last.terminated and end in following and following[end][1].is_intervention == step.is_intervention:
                end, last = following[end]
                reward += DISCOUNT**steps * last.reward
                steps += 1
            found[self.places[start]] = (self.places[end], reward, last.terminated, DISCOUNT**steps)
        return found


@dataclass
class Model:
    online: Ring = field(default_factory=lambda: Ring(ONLINE))
    offline: Ring = field(default_factory=lambda: Ring(OFFLINE - DEMONSTRATED - 1))
    open: dict[int, tuple[Step, int, int | None]] = field(default_factory=dict)  # per actor: step, online and offline arrival
    dropped: int = 0

    def add(self, actor: int, step: Step) -> None:
        place = (actor, step.episode, step.step)
        here = self.online.arrive(place)
        before, bout = self.open.pop(actor, None), None
        if before is not None:
            if (before[0].episode, before[0].step + 1) == place[1:]:
                bout = self._link(before, here, place)
            else:
                self.dropped += 1
        if step.final_observation is None:
            self.open[actor] = (step, here, bout)
        else:
            final = (actor, step.episode, step.step + 1)
            self._link((step, here, bout), self.online.arrive(final), final)

    def _link(self, before: tuple[Step, int, int | None], end: int, place: Place) -> int | None:
        step, start, bout = before
        if not self.online.holds(start):
            self.dropped += 1
            return None
        self.online.links.append((start, end, step))
        if not step.is_intervention:
            return None
        after = self.offline.arrive(place)
        if bout is None or not self.offline.holds(bout):
            bout = self.offline.arrive(self.online.places[start])
        self.offline.links.append((bout, after, step))
        return after


def demonstrated(n_step: int) -> dict[Place, tuple[Place, float, bool, float]]:
    ring = Ring(100)
    for time in range(DEMONSTRATED + 1):
        ring.arrive((DEMONSTRATION, 0, time))
    for time in range(DEMONSTRATED):
        last = time == DEMONSTRATED - 1
        ring.links.append((time, time + 1, Step(0, time, {}, np.zeros(1), float(last), last, False, True)))
    return ring.returns(n_step)


def check(buffer: ReplayBuffer, expected: Mapping[Place, tuple[Place, float, bool, float]]) -> None:
    """Every transition that can be drawn is one of the expected, whole; none is missing."""
    assert len(buffer) == len(expected)
    if not expected:
        return
    batch = buffer.sample(12 * len(buffer) + 30, np.random.default_rng(1))
    now, after = (seen[STATE_KEY][:, :3].astype(int).tolist() for seen in (batch.observation, batch.next_observation))
    for start, end, done, reward, terminated, discount in zip(
        now, after, batch.action, batch.reward, batch.terminated, batch.discount, strict=True
    ):
        place, reward_expected, is_terminated, discount_expected = expected[tuple(start)]
        assert tuple(end) == place and bool(terminated) == is_terminated
        assert reward == pytest.approx(reward_expected, rel=1e-5) and discount == pytest.approx(discount_expected, rel=1e-6)
        assert (done == action(tuple(start))[: len(done)]).all()


class Life(RuleBasedStateMachine):
    """Several actors' episodes, the human's bouts, deaths of actors and of the learner."""

    @initialize(n_step=st.integers(1, 4))
    def begin(self, n_step: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.n_step = n_step
        self.experience = make_experience(n_step, self.folder)
        self.model = Model()
        self.next_place = {actor: (0, 0) for actor in range(ACTORS)}
        self.saved: tuple[dict, Model, dict] | None = None

    @rule(
        actor=st.integers(0, ACTORS - 1),
        human=st.lists(st.booleans(), min_size=1, max_size=7),
        ends=st.sampled_from(["", "terminated", "truncated"]),
        dies=st.booleans(),
    )
    def act(self, actor: int, human: list[bool], ends: str, dies: bool) -> None:
        episode, time = self.next_place[actor]
        for number, is_human in enumerate(human):
            last = ends if number == len(human) - 1 else ""
            step = Step(
                episode, time, observation((actor, episode, time)), action((actor, episode, time))[: ARCHITECTURE.action_dim],
                reward=float((time * 7 + episode) % 5), terminated=last == "terminated", truncated=last == "truncated",
                is_intervention=is_human, final_observation=observation((actor, episode, time + 1)) if last else None,
            )  # fmt: skip
            self.experience.add(f"actor-{actor}", step)
            self.model.add(actor, step)
            time += 1
        self.next_place[actor] = (episode + 1, 0) if ends or dies else (episode, time)

    @rule(size=st.integers(2, 9))
    def sample(self, size: int) -> None:
        self.experience.sample(size)

    @rule()
    def save(self) -> None:
        snapshot = json.loads(json.dumps(self.experience.snapshot()))
        self.experience.sync(snapshot)
        before = self.saved[0] if self.saved is not None else snapshot
        self.experience.trim([snapshot, before])  # the one before is kept too
        self.saved = (snapshot, copy.deepcopy(self.model), dict(self.next_place))

    @precondition(lambda self: self.saved is not None)
    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        """Go back to what was saved; what came after it is in the store's files or still in the dead process's memory."""
        snapshot, model, next_place = self.saved
        if not killed:
            self.save()
            snapshot, model, next_place = self.saved
        self.experience.close()
        before, self.experience = self.experience, make_experience(self.n_step, self.folder)
        self.experience.restore(snapshot)
        self.model, self.next_place = copy.deepcopy(model), dict(next_place)
        if not killed:
            first, second = before.sample(40), self.experience.sample(40)
            for name in ("state", "next_state", "action", "reward", "terminated", "discount"):
                assert torch.equal(getattr(first, name), getattr(second, name))
            assert before.generator.bit_generator.state == self.experience.generator.bit_generator.state

    @invariant()
    def is_what_the_model_says(self) -> None:
        check(self.experience.online, self.model.online.returns(self.n_step))
        check(self.experience.offline, self.model.offline.returns(self.n_step) | demonstrated(self.n_step))
        assert self.experience.dropped_steps == self.model.dropped

    def teardown(self) -> None:
        if hasattr(self, "experience"):
            self.experience.close()
            shutil.rmtree(self.folder)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four observations, so that old ones are dropped within a short life."""
    monkeypatch.setattr("hilserl.data.row_file._CHUNK_BYTES", 2 * 4 * ARCHITECTURE.state_dim)
    monkeypatch.setattr("hilserl.data.row_file._SEGMENT_BYTES", 4 * 4 * ARCHITECTURE.state_dim)


Life.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.mark.failure("L01")
@pytest.mark.failure("L02")
@pytest.mark.failure("L14")
class TestLife(Life.TestCase):
    """Run by hypothesis."""


def play(experience: Experience, count: int, *, first: int = 0) -> None:
    """Two actors in turn, episodes of nine steps, every third one with a bout of the human."""
    for number in range(first, first + count):
        actor, (episode, time) = number % 2, divmod(number // 2, 9)
        last = time == 8
        step = Step(
            episode, time, observation((actor, episode, time)), action((actor, episode, time))[: ARCHITECTURE.action_dim],
            reward=float(last), terminated=last and episode % 2 == 0, truncated=last and episode % 2 == 1,
            is_intervention=episode % 3 == 0 and 2 < time < 6, final_observation=observation((actor, episode, 9)) if last else None,
        )  # fmt: skip
        experience.add(f"actor-{actor}", step)


def bookkeeping(experience: Experience) -> dict[str, Any]:
    """Everything that decides a sample, but the observations."""
    found = {}
    for side in ("online", "offline"):
        for name, value in vars(getattr(experience, side)).items():
            if name != "storage":
                found[f"{side}.{name}"] = value
    return found


@pytest.mark.failure("L14")
@pytest.mark.parametrize("count", [0, 7, 400, 3000])
def test_the_restored_buffers_are_bit_identical(tmp_path: Path, count: int) -> None:
    experience = make_experience(3, tmp_path, online=211, offline=97)
    play(experience, count)
    if count:
        experience.sample(32)
    snapshot = experience.snapshot()
    play(experience, 50, first=count)  # written behind the snapshot by a process that is then killed
    experience.sync(snapshot)
    experience.close()
    uninterrupted = make_experience(3, None, online=211, offline=97)
    play(uninterrupted, count)
    if count:
        uninterrupted.sample(32)
    restored = make_experience(3, tmp_path, online=211, offline=97)
    restored.restore(json.loads(json.dumps(snapshot)))
    for further in range(2):
        ours, theirs = bookkeeping(restored), bookkeeping(uninterrupted)
        for name, value in ours.items():
            if not name.endswith("_extremes_stale"):  # asked anew at the next draw
                np.testing.assert_array_equal(value, theirs[name], err_msg=name)
        both = [experience.online.storage.gather(np.arange(211 + 97), {})[STATE_KEY] for experience in (restored, uninterrupted)]
        np.testing.assert_array_equal(*both)
        assert torch.equal(restored.sample(64).next_state, uninterrupted.sample(64).next_state)
        if not further:
            for other in (restored, uninterrupted):
                play(other, 77, first=count)
    restored.close()


@pytest.mark.failure("L15")
@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("observation.state.000000.rows", "flip", r"observation\.state\.rows: rows 0 to 9 do not match their checksum"),
        ("observation.state.000000.rows", "cut", r"observation\.state\.000000\.rows has \d+ bytes, the checkpoint needs \d+"),
        ("copy.observation.state.000000.rows", "flip", r"copy\.observation\.state\.rows: rows \d+ to \d+ do not match"),
        ("steps.000000.rows", "flip", r"steps\.rows: rows \d+ to \d+ do not match"),
        ("steps.000000.rows", "cut", r"steps\.000000\.rows has"),
        ("observation.state.rows.crc", "cut", r"observation\.state\.rows\.crc has"),
        ("store.json", "cut", r"store\.json: cannot be read"),
        ("store.json", "other", r"store\.json: `action_dim` is 99"),
    ],
)
def test_a_damaged_store_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, damage: str, message: str) -> None:
    monkeypatch.setattr("hilserl.data.row_file._CHUNK_BYTES", 10 * ARCHITECTURE.state_dim * 4)
    monkeypatch.setattr("hilserl.data.row_file._SEGMENT_BYTES", 1 << 20)
    experience = make_experience(1, tmp_path, online=500)
    play(experience, 95)
    snapshot = experience.snapshot()
    experience.sync(snapshot)
    experience.close()
    data = bytearray((tmp_path / file).read_bytes())
    if damage == "flip":
        data[len(data) // 30] ^= 1
    (tmp_path / file).write_bytes(data[:-3] if damage == "cut" else data.replace(b'"action_dim": 3', b'"action_dim": 99'))
    restored = make_experience(1, tmp_path, online=500)
    with pytest.raises(CheckpointError, match=message):
        restored.restore(snapshot)
    restored.close()


def test_without_restore_an_earlier_store_is_removed_at_the_first_step(tmp_path: Path) -> None:
    for _ in range(2):
        experience = make_experience(1, tmp_path)
        play(experience, 20)
        experience.sync(experience.snapshot())
        experience.close()
    assert sum(file.stat().st_size for file in tmp_path.glob("observation.state.0*.rows")) == 22 * ARCHITECTURE.state_dim * 4


def test_a_store_of_another_life_than_the_snapshot_is_refused(tmp_path: Path) -> None:
    experience = make_experience(1, tmp_path)
    play(experience, 30)
    snapshot = experience.snapshot()
    experience.sync(snapshot)
    experience.close()
    restored = make_experience(1, tmp_path)
    with pytest.raises(CheckpointError, match=r"the store and the checkpoint are not of one run"):
        restored.restore(snapshot | {"state": snapshot["state"] | {"dropped_steps": 5}})
    restored.close()


def test_other_capacities_are_loaded_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    experience = make_experience(1, tmp_path)
    play(experience, 60)
    snapshot = experience.snapshot()
    experience.sync(snapshot)
    experience.close()
    restored = make_experience(1, tmp_path, online=200)
    restored.restore(snapshot)
    assert len(restored.online) > ONLINE and "capacities are not those of the checkpoint" in caplog.text
    restored.close()


def test_an_experience_without_a_store_has_no_snapshot() -> None:
    with pytest.raises(TrainingError, match="attach_store"):
        make_experience(1, None).snapshot()


@pytest.mark.parametrize("human", [False, True])
def test_a_long_run_keeps_the_disk_flat_but_for_the_steps(tmp_path: Path, human: bool) -> None:
    """With rings of 40 and 30 observations; interventions that stay in the offline ring do not hold old segments."""
    experience = make_experience(1, tmp_path, online=40, offline=30)
    sizes, kept = [], []
    for number in range(120):
        play(experience, 25, first=25 * number) if human else play_alone(experience, 25, first=25 * number)
        kept = [json.loads(json.dumps(experience.snapshot())), *kept][:2]
        experience.sync(kept[0])
        experience.trim(kept)
        sizes.append(sum(file.stat().st_size for file in tmp_path.glob("*observation*0*.rows")))
    assert max(sizes[60:]) <= max(sizes[5:60]) < (40 + 30 + 2 * 30 + 20) * 4 * ARCHITECTURE.state_dim
    steps = sum(file.stat().st_size for file in tmp_path.glob("steps.0*.rows"))
    assert steps == 120 * 25 * (4 + 3 * 8 + 4 + 8 + 4 * ARCHITECTURE.action_dim)  # 52 bytes a step
    for snapshot in reversed(kept):  # each of the kept ones can be restored; the older one last would cut the newer off
        experience.close()
        if snapshot is kept[-1]:
            experience = make_experience(1, tmp_path, online=40, offline=30)
            experience.restore(snapshot)
            assert experience.snapshot()["state"] == snapshot["state"]
    experience.close()


def play_alone(experience: Experience, count: int, *, first: int) -> None:
    """One intervention at the very beginning, and none afterwards."""
    for number in range(first, first + count):
        step = Step(0, number, observation((0, 0, number)), np.zeros(ARCHITECTURE.action_dim, np.float32), 0.0, False, False, number < 3)
        experience.add("actor-0", step)


@pytest.mark.failure("L01")
@settings(max_examples=40, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 255)), max_size=5), cuts=st.integers(0, 2))
def test_of_a_damaged_store_the_good_part_is_kept_and_no_pair_is_wrong(flips: list[tuple[int, int, int]], cuts: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "experience"
        experience = make_experience(1, folder, online=60, offline=40)
        play(experience, 200)
        snapshot = experience.snapshot()
        experience.sync(snapshot)
        experience.trim([snapshot])
        experience.close()
        files = sorted(folder.glob("*.rows*"))
        for which, place, bits in flips:
            file = files[which % len(files)]
            data = bytearray(file.read_bytes())
            if data:
                data[place % len(data)] ^= bits
            file.write_bytes(data)
        for number in range(cuts):
            file = files[(7 * number) % len(files)]
            file.write_bytes(file.read_bytes()[:-5])
        salvaged = make_experience(1, folder, online=60, offline=40)
        found = salvaged.salvage(json.loads(json.dumps(snapshot)))
        assert found >= 30 - 12 * (len(flips) + cuts)
        play(salvaged, 40, first=200)
        check_pairs(salvaged)
        salvaged.snapshot()
        salvaged.close()


def check_pairs(experience: Experience) -> None:
    """Every transition leads from a step to the one behind it, with that step's action."""
    for buffer in (experience.online, experience.offline):
        if not len(buffer):
            continue
        batch = buffer.sample(300, np.random.default_rng(0))
        now, after = (seen[STATE_KEY][:, :3].astype(int).tolist() for seen in (batch.observation, batch.next_observation))
        for place, following, done in zip(now, after, batch.action, strict=True):
            assert following == [*place[:2], place[2] + 1]
            assert (done == action(tuple(place))[: len(done)]).all()
