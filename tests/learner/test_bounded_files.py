"""What a run leaves behind does not grow without end, and what is damaged of it costs itself alone."""

import json
import logging
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_testing import make_tiny_config
from scripted_run import make_script, play

from hilserl.learner import history as history_module
from hilserl.learner.history import MetricHistory
from hilserl.learner.schedule import Moment, Schedule
from hilserl.link.messages import Step
from hilserl.runs import RunFolder
from hilserl.schema import STATE_KEY

STEP_ROW_BYTES = 52


@pytest.fixture(autouse=True)
def one_thread(own_home):
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr("hilserl.data.row_file._CHUNK_BYTES", 256)
    monkeypatch.setattr("hilserl.data.row_file._SEGMENT_BYTES", 1024)


def config(steps: int, save_freq: int = 20):
    policy = {
        "online_buffer_capacity": 100,
        "offline_buffer_capacity": 300,
        "online_steps": steps,
        "online_step_before_learning": 20,
        "hidden_dims": [8, 8],
    }
    settings_ = {f"policy__{name}": value for name, value in policy.items()}
    return make_tiny_config(**settings_, policy__utd_ratio=1, learner__save_freq=save_freq)


def new_run(configuration) -> RunFolder:
    return RunFolder.open(configuration, fresh=True)[0]


def disk_usage(folder: Path, pattern: str = "**/*") -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())


@pytest.mark.slow
def test_a_long_run_keeps_the_disk_flat(tiny_buffer) -> None:
    """Observations, journal, policies and the number of checkpoints, over many times the buffers' capacities."""
    settings_ = config(1500)
    script = make_script(settings_, tiny_buffer, steps=1500, seed=0)
    run, sizes = new_run(settings_), []

    def watch(learner) -> None:
        save = learner.parts.checkpoints.save

        def saving(*args, **kwargs):
            sizes.append(
                disk_usage(run.experience, "*observation.state.0*") + disk_usage(run.schedule.parent) + disk_usage(run.path / "policy")
            )
            assert len(list(run.checkpoints.glob("0*"))) <= 3
            return save(*args, **kwargs)

        learner.parts.checkpoints.save = saving
        learner._timers["metrics"] = learner._timers["weights"]

    outcome = play(settings_, run, tiny_buffer, script, before_start=watch)
    assert outcome.result is not None and len(sizes) > 30
    assert max(sizes[-40:]) < 1.2 * max(sizes[15:40])
    assert script.trimmed > 1200 and run.schedule.stat().st_size < 24 * 400


def truth(script) -> dict[tuple[str, int, int], Step]:
    return {(actor, record.episode, record.step): record for actor, record in script.records if isinstance(record, Step)}


def assert_no_pair_is_wrong(learner, script) -> None:
    """Every online transition is a step of the script, with the observation behind it."""
    by_action = {step.action.tobytes(): (actor, step) for (actor, _, _), step in truth(script).items()}
    buffer = learner.parts.experience.online
    batch = buffer.sample(400, np.random.default_rng(0))
    for state, following, action in zip(batch.observation[STATE_KEY], batch.next_observation[STATE_KEY], batch.action, strict=True):
        actor, step = by_action[action.tobytes()]
        np.testing.assert_array_equal(state, step.observation[STATE_KEY])
        after = truth(script).get((actor, step.episode, step.step + 1))
        expected = step.final_observation if step.final_observation is not None else after.observation
        np.testing.assert_array_equal(following, expected[STATE_KEY])


@pytest.mark.failure("L01")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_damaged_middle_of_the_journal_costs_its_records_alone(tiny_buffer, caplog, seed) -> None:
    settings_ = config(150, save_freq=1000)
    script = make_script(settings_, tiny_buffer, steps=200, seed=seed)
    run = new_run(settings_)
    play(settings_, run, tiny_buffer, script, kill_at=60)
    taken_in = max((json.loads(file.read_text())["state"]["taken_in"] for file in run.checkpoints.glob("0*/state.json")), default=0)
    journal = range(taken_in + 1, script.delivered + 1)
    script.damaged = frozenset(random.Random(seed).sample(journal, 7))
    lost_steps = sum(isinstance(script.records[place - 1][1], Step) for place in script.damaged)
    with caplog.at_level(logging.WARNING):
        resumed = play(settings_, run, tiny_buffer, script)
    last = max(set(journal) - script.damaged)
    missing = len([place for place in script.damaged if place < last])
    assert f"{missing} records of the journal behind the checkpoint are lost" in caplog.text
    steps = sum(isinstance(record, Step) for _, record in script.records)
    assert resumed.learner.parts.governor.environment_steps == steps - lost_steps
    assert_no_pair_is_wrong(resumed.learner, script)


def wait_for_each_save(learner) -> None:
    """A disk that is late on a busy machine would keep the journal long."""
    saver = learner.parts.saver
    start = saver.start

    def starting(write, on_saved) -> None:
        start(write, on_saved)
        saver.wait()

    saver.start = starting


def files_to_damage(run: RunFolder, script, damage: str) -> list[Path]:
    """Files whose rows every kept checkpoint needs and the journal no longer has, however late the last save came."""
    is_steps = damage == "steps"
    files = sorted(run.experience.glob("steps.0*" if is_steps else "observation.state.0*"))
    if damage == "gone":
        return files
    oldest = min(int(folder.name.split("-")[0]) for folder in run.checkpoints.glob("0*"))  # environment steps
    steps = (record for _, record in script.records if isinstance(record, Step))
    row_bytes = STEP_ROW_BYTES if is_steps else next(steps).observation[STATE_KEY].nbytes
    number = (oldest - 10) // (files[0].stat().st_size // row_bytes)
    return [file for file in files if number - is_steps <= int(file.suffixes[-2][1:]) <= number]


@pytest.mark.failure("L14")
@pytest.mark.parametrize("damage", ["flip", "cut", "steps", "gone"])
def test_a_store_damaged_after_the_journal_was_cut_gives_back_what_is_whole(tiny_buffer, caplog, damage) -> None:
    settings_ = config(300)
    script = make_script(settings_, tiny_buffer, steps=300, seed=0)
    run = new_run(settings_)
    part = play(settings_, run, tiny_buffer, script, kill_at=200, before_start=wait_for_each_save)
    assert script.trimmed > 100
    steps_then = part.learner.parts.governor.environment_steps
    for file in files_to_damage(run, script, damage):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data[:-9] if damage == "cut" else data)
        if damage == "gone":
            file.unlink()
    with caplog.at_level(logging.WARNING):
        resumed = play(settings_, run, tiny_buffer, script)
    assert "the journal no longer reaches back" in caplog.text and "is not continued bit for bit" in caplog.text
    assert resumed.result is not None and resumed.result.environment_steps >= 300 > steps_then
    assert min(resumed.published) > max(part.published)  # other content never has a version that was given
    assert_no_pair_is_wrong(resumed.learner, script)


# ---------------------------------------------------------------------------------------- schedule


@given(
    gaps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=80),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_a_cut_schedule_still_has_every_moment_that_is_needed(tmp_path_factory, gaps, cuts) -> None:
    file = tmp_path_factory.mktemp("schedule") / "schedule"
    moments = [Moment(int(seq), int(updates)) for seq, updates in np.cumsum(gaps, axis=0)]
    schedule = Schedule(file)
    cut_after = {int(when * len(moments)): through for when, through in cuts}
    covered = 0
    for index, moment in enumerate(moments):
        schedule.append(moment)
        if index in cut_after:
            covered = max(covered, int(cut_after[index] * moment.log_seq))
            schedule.trim(covered)
    schedule.generation = 3
    schedule.append(moments[-1])
    schedule.close()
    again = Schedule(file)
    needed = [moment for moment in [*moments, moments[-1]] if moment.log_seq > covered]
    assert again.moments[len(again.moments) - len(needed) :] == needed
    assert again.lost_tail is None and again.generation == 3 and again.moments
    again.close()


def test_a_schedule_is_cut_while_it_is_written(tmp_path) -> None:
    schedule = Schedule(tmp_path / "schedule")
    stop = threading.Event()
    failures: list[BaseException] = []
    written = 0

    def cut() -> None:
        try:
            while not stop.is_set():
                schedule.trim(written - 20)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=cut)
    thread.start()
    for number in range(1, 5001):
        schedule.append(Moment(number, number))
        written = number
    stop.set()
    thread.join()
    assert not failures
    schedule.trim(4990)
    schedule.close()
    moments = Schedule(tmp_path / "schedule").moments
    assert moments[-10:] == [Moment(number, number) for number in range(4991, 5001)]


# ----------------------------------------------------------------------------------------- metrics


def test_the_history_is_thinned_towards_the_past_and_survives_damage(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(history_module, "MAX_ENTRIES", 100)
    file = tmp_path / "history.jsonl"
    history, largest = MetricHistory(file), 0
    for step in range(5000):
        history.append({"step": float(step), "loss": 1.0})
        largest = max(largest, file.stat().st_size)
    steps = [entry["step"] for entry in history.entries]
    assert len(steps) <= 100 and steps == sorted(steps) and steps[-50:] == [float(step) for step in range(4950, 5000)]
    assert largest < 101 * 40
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == steps
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], b"{torn\n", *lines[3:]]))
    again = MetricHistory(file)
    again.restore(4970)
    assert [entry["step"] for entry in again.entries] == [step for step in steps if step <= 4970]
    assert "1 lines are damaged" in caplog.text
