"""A run that was killed and resumed is the run that was not: bit for bit on the CPU."""

import logging
import shutil

import pytest
import torch
from pipeline_testing import make_tiny_config
from scripted_run import Outcome, Script, afresh, make_script, play

from hilserl.errors import CheckpointError, TrainingError
from hilserl.learner import saver as saver_module
from hilserl.policy import Policy
from hilserl.runs import RunFolder

STEPS = 170  # with their final observations more than the ring's 100 rows


def config(**overrides):
    settings = {"online_buffer_capacity": 100, "online_steps": STEPS, "online_step_before_learning": 20, "hidden_dims": [8, 8]}
    return make_tiny_config(**{f"policy__{name}": value for name, value in settings.items()}, learner__save_freq=30, **overrides)


@pytest.fixture(autouse=True)
def one_thread(own_home):
    torch.set_num_threads(1)
    return own_home


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    """What the checkpoints do not need is dropped from the store within these short runs."""
    monkeypatch.setattr("hilserl.data.row_file._CHUNK_BYTES", 256)
    monkeypatch.setattr("hilserl.data.row_file._SEGMENT_BYTES", 1024)


@pytest.fixture
def uninterrupted(tiny_buffer) -> tuple[Outcome, Script]:
    return run_to_the_end(config(), tiny_buffer, seed=0)


def run_to_the_end(settings, buffer, seed: int) -> tuple[Outcome, Script]:
    script = make_script(settings, buffer, steps=STEPS, seed=seed)
    outcome = play(settings, new_run(settings), buffer, script)
    assert outcome.learner.parts.experience.online.evicted > 30 and outcome.learner.parts.experience.dropped_steps > 0
    assert len(outcome.learner.parts.statistics.evaluations) >= 3
    return outcome, afresh(script)


def new_run(settings) -> RunFolder:
    return RunFolder.open(settings, fresh=True)[0]


def assert_same_end(resumed: Outcome, whole: Outcome) -> None:
    mine, theirs = resumed.learner.parts, whole.learner.parts
    for name, tensor in theirs.agent.state_dict().items():
        assert torch.equal(mine.agent.state_dict()[name], tensor), name
    assert (mine.governor.updates, mine.governor.environment_steps) == (theirs.governor.updates, theirs.governor.environment_steps)
    assert mine.experience.generator.bit_generator.state == theirs.experience.generator.bit_generator.state
    assert mine.experience.snapshot()["state"] == theirs.experience.snapshot()["state"]
    assert mine.statistics.state() == theirs.statistics.state()
    assert resumed.result.best == whole.result.best
    mine_policy, their_policy = Policy.load(resumed.result.policy), Policy.load(whole.result.policy)
    assert mine_policy.version == their_policy.version
    assert all(torch.equal(mine_policy.tensors()[name], tensor) for name, tensor in their_policy.tensors().items())


def assert_same_way(resumed: Outcome, whole: Outcome) -> None:
    """Every batch and every published version that both made is the same."""
    common = resumed.samples.keys() & whole.samples.keys()
    assert common and all(resumed.samples[number] == whole.samples[number] for number in common)
    versions = resumed.published.keys() & whole.published.keys()
    assert versions and all(resumed.published[version] == whole.published[version] for version in versions)


def newest(run: RunFolder):
    return max(run.checkpoints.glob("0*"), key=lambda path: [int(part) for part in path.name.split("-")])


def tear_checkpoint(run: RunFolder) -> None:
    file = newest(run) / "learner.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def tear_store(run: RunFolder) -> None:
    file = sorted(run.experience.glob("observation.state.*.rows"))[-4]  # before the newest checkpoint, and in the ring then
    file.write_bytes(file.read_bytes()[:-200])


def lose_store(run: RunFolder) -> None:
    shutil.rmtree(run.experience)


def nothing(run: RunFolder) -> None:
    pass


@pytest.mark.failure("L14")
@pytest.mark.parametrize(
    ("seed", "kills"),
    [
        (0, [(37, nothing), (140, nothing), (141, nothing), (250, nothing)]),
        pytest.param(0, [(3, nothing), (200, tear_checkpoint)], marks=pytest.mark.slow),
        pytest.param(0, [(150, tear_store), (220, lose_store)], marks=pytest.mark.slow),
        pytest.param(1, [(1, nothing), (99, nothing), (299, tear_checkpoint)], marks=pytest.mark.slow),
        pytest.param(2, [(70, nothing), (180, tear_store), (181, tear_checkpoint)], marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tiny_buffer, seed, kills) -> None:
    settings = config()
    whole, script = run_to_the_end(settings, tiny_buffer, seed)
    assert script.trims
    script.trims = not any(damage in (tear_store, lose_store) for _, damage in kills)  # those need the journal from its beginning on
    run = new_run(settings)
    for at, damage in kills:
        part = play(settings, run, tiny_buffer, script, kill_at=at)
        assert part.result is None
        assert_same_way(part, whole)
        damage(run)
    resumed = play(settings, run, tiny_buffer, script)
    assert_same_way(resumed, whole)
    assert_same_end(resumed, whole)
    assert (script.trimmed > 100) == script.trims


def test_a_damaged_store_is_made_anew_from_the_journal(tiny_buffer, caplog) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    script.trims = False
    run = new_run(settings)
    part = play(settings, run, tiny_buffer, script, kill_at=200)
    before = part.learner.parts.experience
    tear_store(run)
    with caplog.at_level(logging.WARNING):
        again = play(settings, run, tiny_buffer, script, kill_at=200)
    assert "made anew from the journal" in caplog.text
    assert again.learner.parts.experience._counters() == before._counters()


def lose_schedule(run: RunFolder) -> None:
    run.schedule.unlink()


def tear_schedule(run: RunFolder) -> None:
    run.schedule.write_bytes(run.schedule.read_bytes()[:-7])


def reboot(run: RunFolder) -> None:
    run.schedule.with_name("schedule.boot").write_text("another boot")


@pytest.mark.failure("L14")
@pytest.mark.parametrize("damage", [lose_schedule, tear_schedule, reboot])
def test_a_lost_schedule_costs_exactness_alone_and_no_version_is_given_twice(tiny_buffer, caplog, damage) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    run = new_run(settings)
    part = play(settings, run, tiny_buffer, script, kill_at=120)
    damage(run)
    with caplog.at_level(logging.WARNING):
        resumed = play(settings, run, tiny_buffer, script)
    assert "is not continued bit for bit" in caplog.text and "Nothing is lost" in caplog.text
    governor = resumed.learner.parts.governor
    steps = sum(hasattr(record, "observation") for _, record in script.records)
    assert (governor.environment_steps, governor.updates) == (steps, 2 * (steps - 20))
    assert min(resumed.published) > max(part.published)


def test_an_actor_that_connects_while_the_journal_is_replayed_is_told_all_steps(tiny_buffer) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    run = new_run(settings)
    part = play(settings, run, tiny_buffer, script, kill_at=200)
    known = part.learner.parts.governor.environment_steps

    def look(learner) -> None:
        learner.announce()
        assert learner.parts.governor.environment_steps < known
        assert learner.parts.server.status.environment_steps == known
        assert learner.parts.server.status.owed_updates == 2 * (known - 20) - learner.parts.governor.updates

    play(settings, run, tiny_buffer, script, kill_at=0, before_start=look)


@pytest.mark.failure("L14")
def test_a_checkpoint_of_another_training_is_refused_with_a_diff_by_name(tiny_buffer) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    run = new_run(settings)
    play(settings, run, tiny_buffer, script, kill_at=60)
    policy = settings.policy
    robot = settings.robot.model_copy(update={"action_scale_m": 0.03})
    observation = settings.observation.model_copy(update={"privileged": not settings.observation.privileged})
    for changed, expected in (
        ({"policy": policy.model_copy(update={"utd_ratio": 3})}, r"config\.policy\.utd_ratio: 2 -> 3"),
        ({"policy": policy.model_copy(update={"hidden_dims": (8, 16)})}, r"architecture\.tensors\.\S+: \(.*\) float32 -> \(.*\) float32"),
        ({"robot": robot}, r"codec\.action_scale_m: 0\.02 -> 0\.03"),
    ):
        with pytest.raises(CheckpointError, match=r"(?s)another training.*Before -> now:.*" + expected + r"(?s:.*)--fresh"):
            play(settings.model_copy(update=changed), run, tiny_buffer, script, kill_at=0)
    assert observation is not None


@pytest.mark.failure("L14")
def test_a_setting_that_does_not_change_what_is_learned_is_allowed_and_said(tiny_buffer, caplog) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    run = new_run(settings)
    play(settings, run, tiny_buffer, script, kill_at=60)
    other = settings.model_copy(update={"learner": settings.learner.model_copy(update={"save_freq": 77})})
    with caplog.at_level(logging.INFO):
        play(other, run, tiny_buffer, script, kill_at=61)
    assert "config.learner.save_freq: 30 -> 77" in caplog.text


@pytest.mark.failure("L15")
def test_a_full_disk_is_said_at_once_keeps_the_checkpoint_before_and_ends_the_training_in_time(tiny_buffer, caplog, monkeypatch) -> None:
    from hilserl.learner import checkpoint as checkpoint_module

    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    run = new_run(settings)
    play(settings, run, tiny_buffer, script, kill_at=100)
    kept = newest(run)
    now = [0.0]

    def full(tensors, path) -> None:
        now[0] += 400
        raise OSError(28, "No space left on device")

    def use_clock(learner) -> None:
        learner.parts.saver._clock = lambda: now[0]
        learner._timers["metrics"] = learner._timers["weights"]

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    monkeypatch.setattr(saver_module, "RETRY_S", 0.0)
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointError, match="no checkpoint could be written for 800 s") as caught:
        play(settings, run, tiny_buffer, script, before_start=use_clock)
    assert "disk is full" in str(caught.value.__cause__)
    assert "the one before is kept, and training goes on" in caplog.text
    assert "Alarm `checkpoint_failing`" in caplog.text
    assert newest(run) == kept


@pytest.mark.failure("L17")
def test_whatever_breaks_in_the_saver_ends_the_learner_with_its_cause(tiny_buffer) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)

    def sabotage(learner) -> None:
        def sync(snapshot) -> None:
            raise RuntimeError("the rows are gone")

        learner.parts.experience.sync = sync

    with pytest.raises(RuntimeError, match="the rows are gone"):
        play(settings, new_run(settings), tiny_buffer, script, before_start=sabotage)


@pytest.mark.failure("L17")
def test_whatever_breaks_in_sampling_ends_the_learner(tiny_buffer) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)

    def sabotage(learner) -> None:
        learner.parts.experience.online.draw = None

    with pytest.raises(TypeError):
        play(settings, new_run(settings), tiny_buffer, script, before_start=sabotage)


def test_a_state_that_is_not_finite_stops_and_names_the_last_good_checkpoint(tiny_buffer) -> None:
    settings = config()
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    run = new_run(settings)
    play(settings, run, tiny_buffer, script, kill_at=100)
    kept = newest(run)

    def poison(learner) -> None:
        next(iter(learner.parts.agent.target_critics.parameters())).data.fill_(float("nan"))

    with pytest.raises(TrainingError, match=rf"not finite after \d+ updates.*kept, in {run.checkpoints}"):
        play(settings, run, tiny_buffer, script, before_start=poison)
    assert newest(run) == kept


@pytest.mark.failure("L16")
def test_the_best_is_kept_and_the_fall_from_it_is_named(tiny_buffer) -> None:
    settings = config(learner__keep_checkpoints=1)
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    evaluations = [index for index, (_, record) in enumerate(script.records) if getattr(record, "evaluation", False)]
    for place, index in enumerate(evaluations):  # the first evaluation succeeds, the later ones fail
        actor, record = script.records[index]
        script.records[index] = actor, type(record)(**{**vars(record), "is_success": place < 2})
    run = new_run(settings)
    outcome = play(settings, run, tiny_buffer, script)
    best = outcome.result.best
    assert best.success_rate == 1.0 and best == outcome.result.evaluations[0]
    assert Policy.load(outcome.result.policy).version == best.weights_version
    expected = rf"policy of step {best.environment_steps} is used .* went on past its best: 100% -> 0% at step"
    import re

    assert re.search(expected, outcome.result.choice.replace(",", ""))
    assert [alarm.name for alarm in outcome.result.alarms if alarm.name == "past_best"]
    kept = outcome.learner.parts.checkpoints.best
    assert kept is not None and (kept / "state.json").exists() and kept != newest(run)


@pytest.mark.failure("L14")
def test_cloning_comes_first_once_and_is_not_repeated_after_a_restart(tiny_buffer) -> None:
    settings = config(policy__bc_steps=12)
    script = make_script(settings, tiny_buffer, steps=STEPS, seed=0)
    cloned = []

    def count(learner) -> None:
        clone = learner.parts.agent.clone_behaviour

        def counting(batch):
            assert learner.parts.governor.updates == 0
            cloned.append(learner)
            return clone(batch)

        learner.parts.agent.clone_behaviour = counting

    run = new_run(settings)
    play(settings, run, tiny_buffer, script, kill_at=0, before_start=count)
    assert len(cloned) == 12
    play(settings, run, tiny_buffer, script, kill_at=50, before_start=count)
    play(settings, run, tiny_buffer, script, before_start=count)
    assert len(cloned) == 12
