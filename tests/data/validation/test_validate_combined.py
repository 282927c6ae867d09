"""Damage must not hide damage: each check runs on the rows that are sound for it, and says where it could not."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from arm_helpers import video
from data_helpers import ToyArm, edit_frames, paint, set_column, update

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.validation import Finding, ValidationReport, validate_dataset
from hilserl.data.validation.reading import read_dataset
from hilserl.data.validation.remedies import recommended
from hilserl.data.validation.sound import sound_stretches
from hilserl.data.writer import EpisodeWriter, teleop_features
from hilserl.schema import ACTION_KEY, STATE_KEY

FPS, EPISODES, LENGTH = 30, 4, 75
JAW = 5


def grasp_config(root: Path | str) -> TrainConfig:
    """Joint targets at 30 Hz for a grasp at 10 Hz."""
    from data_helpers import make_config

    config = make_config(root, action_from="joints", reward_from="success_at_end", frame_rate="convert")
    return update(config, task={"type": "lift"})


@pytest.fixture(scope="session")
def grasp_recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leader's motion, smooth as a hand, which the arm reaches one frame later, up to what an encoder shows."""
    root, rng = tmp_path_factory.mktemp("grasp") / "grasp", np.random.default_rng(7)
    with EpisodeWriter(root, "test/grasp", teleop_features(grasp_config(root)), FPS) as writer:
        for episode in range(EPISODES):
            seconds = np.arange(LENGTH + 1)[:, None] / FPS
            phase, rate = rng.uniform(0, 6, (3, 6)), rng.uniform(0.3, 1.2, (3, 6))
            waves = sum(np.sin(2 * np.pi * rate[i] * seconds + phase[i]) for i in range(3))
            path = np.array([0, 10, 20, 30, 0, 50]) + np.array([10, 10, 10, 10, 10, 15]) * waves
            measured = path + rng.normal(0, 0.05, path.shape)
            for frame in range(LENGTH):
                picture = paint(episode * LENGTH + frame & 255)
                observation = {STATE_KEY: measured[frame].astype(np.float32), "observation.images.wrist": picture}
                writer.add_frame(observation, path[frame + 1].astype(np.float32), task="lift")
            writer.save_episode()
    return root


@pytest.fixture
def grasp(grasp_recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(grasp_recorded, tmp_path / "grasp")


def validate(root: Path) -> ValidationReport:
    config = grasp_config(root)
    return validate_dataset(config, root, converter=ToyArm(config))


def column(root: Path, key: str) -> np.ndarray:
    return Dataset.open(root).column(key).copy()


def shift(root: Path, frames: int) -> None:
    """Record every action `frames` later; the first, or last, is held."""
    action = column(root, ACTION_KEY).reshape(EPISODES, LENGTH, -1)
    set_column(root, ACTION_KEY, action[:, np.clip(np.arange(LENGTH) - frames, 0, LENGTH - 1)].reshape(EPISODES * LENGTH, -1))


def late(root: Path) -> None:
    shift(root, 6)


def frozen_jaw(root: Path) -> None:
    action = column(root, ACTION_KEY)
    action[:, JAW] = 30
    set_column(root, ACTION_KEY, action)


def not_finite(root: Path) -> None:
    state, action = column(root, STATE_KEY), column(root, ACTION_KEY)
    state[30, 2], action[2 * LENGTH + 40] = np.nan, np.inf
    set_column(root, STATE_KEY, state)
    set_column(root, ACTION_KEY, action)


def swapped_times(root: Path) -> None:
    times = column(root, "timestamp")
    times[[100, 101]] = times[[101, 100]]
    set_column(root, "timestamp", times)


def torn_video(root: Path) -> None:
    path = video(root)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)


def told(report: ValidationReport, code: str, severity: str, *parts: str) -> list[Finding]:
    return [
        f for f in report.findings if (f.code, f.severity) == (code, severity) and all(part in f"{f.place} {f.message}" for part in parts)
    ]


DAMAGES: dict[str, tuple[Callable[[Path], None], Callable[[ValidationReport], list[Finding]]]] = {
    "frozen jaw": (frozen_jaw, lambda report: told(report, "D05", "stops", "`gripper.pos`", "always 30")),
    "late actions": (late, lambda report: told(report, "D09", "stops", "6 frame(s) = 200 ms before")),
    "not finite": (not_finite, lambda report: told(report, "D18", "stops", STATE_KEY, "not finite")),
    "swapped times": (swapped_times, lambda report: told(report, "D18", "stops", "timestamp is not frame_index / fps")),
    "torn video": (torn_video, lambda report: told(report, "D18", "stops", "videos/")),
}


@pytest.mark.failure("D09")
def test_a_sound_recording_at_thirty_frames_is_in_step(grasp: Path) -> None:
    report = validate(grasp)
    assert not report.stops and not told(report, "D09", "warns")
    assert report.alignment is not None and report.alignment.best_lag == 0 and report.alignment.lags == tuple(range(-15, 16))
    assert max(report.alignment.correlation) > 0.9


@pytest.mark.failure("D05")
@pytest.mark.failure("D09")
@pytest.mark.failure("D18")
@pytest.mark.parametrize("names", [*((name,) for name in DAMAGES), *itertools.combinations(DAMAGES, 2), tuple(DAMAGES)], ids="+".join)
def test_every_damage_is_named_beside_the_others(grasp: Path, names: tuple[str, ...]) -> None:
    for name in names:
        DAMAGES[name][0](grasp)
    report = validate(grasp)
    found = {name for name, (_, named) in DAMAGES.items() if named(report)}
    assert found == set(names), "\n".join(map(str, report.findings))


@pytest.mark.failure("D09")
@pytest.mark.parametrize(
    ("frames", "lag", "severity"), [(-3, 3, "informs"), (-6, 6, "informs"), (-9, 9, "warns"), (1, -1, "stops"), (12, -12, "stops")]
)
def test_what_the_servos_take_is_normal_and_what_comes_late_is_not(grasp: Path, frames: int, lag: int, severity: str) -> None:
    shift(grasp, frames)
    report = validate(grasp)
    (finding,) = [finding for finding in report.findings if finding.code == "D09"]
    assert report.alignment is not None and report.alignment.best_lag == lag
    assert finding.severity == severity and f"{abs(lag)} frame(s) = {abs(lag) / FPS * 1000:.0f} ms" in finding.message
    assert not recommended(finding.remedy)


@pytest.mark.failure("D06")
def test_no_larger_scale_is_offered_while_actions_are_out_of_step(grasp: Path) -> None:
    assert "action_scale_m" in told(validate(grasp), "D06", "warns", "tool error")[0].remedy
    late(grasp)
    report = validate(grasp)
    assert "out of step (D09)" in told(report, "D06", "informs", "tool error")[0].message
    assert not any("action_scale_m" in finding.remedy for finding in report.findings)


@pytest.mark.failure("D05")
def test_a_jaw_command_that_was_lost_in_some_episodes_names_them(grasp: Path) -> None:
    action = column(grasp, ACTION_KEY)
    action[LENGTH : 2 * LENGTH, JAW] = 30
    set_column(grasp, ACTION_KEY, action)
    (finding,) = told(validate(grasp), "D05", "warns", "`gripper.pos`", "in episodes 1,")
    assert recommended(finding.remedy) == {"dataset": {"exclude_episodes": [1]}}


@pytest.mark.failure("D07")
@pytest.mark.failure("D08")
@pytest.mark.parametrize(
    ("code", "severity", "said"), [("D07", "stops", "against its target"), ("D08", "warns", "does not explain where the jaw is")]
)
def test_a_jaw_that_does_not_follow_its_target_is_told(grasp: Path, code: str, severity: str, said: str) -> None:
    action = column(grasp, ACTION_KEY)
    action[:, JAW] = 100 - action[:, JAW] if code == "D07" else np.random.default_rng(1).uniform(0, 100, len(action))
    set_column(grasp, ACTION_KEY, action)
    assert told(validate(grasp), code, severity, said)


@pytest.mark.failure("D18")
def test_rows_on_both_sides_of_a_gap_are_checked(grasp: Path) -> None:
    late(grasp)
    frozen_jaw(grasp)
    edit_frames(grasp, lambda table: table.filter(~pl.col("index").is_in([30, 110, 180, 250])))  # a row of every episode
    report = validate(grasp)
    assert DAMAGES["late actions"][1](report) and DAMAGES["frozen jaw"][1](report)
    assert told(report, "D19", "informs", "are not checked, because") and told(report, "D02", "informs", "are not checked, because")
    stretches = sound_stretches(read_dataset(grasp), [STATE_KEY, ACTION_KEY])
    assert stretches is not None and [episode.length for episode in stretches.episodes] == [30, 44, 35, 39, 30, 44, 25, 49]


@pytest.mark.failure("D18")
def test_without_an_episode_table_the_rows_are_checked(grasp: Path) -> None:
    late(grasp)
    frozen_jaw(grasp)
    shutil.rmtree(grasp / "meta" / "episodes")
    report = validate(grasp)
    assert told(report, "D18", "stops", "no episode table")
    assert DAMAGES["late actions"][1](report) and DAMAGES["frozen jaw"][1](report)


@pytest.mark.failure("D18")
def test_rows_that_cannot_be_read_are_said_to_be_unchecked(grasp: Path) -> None:
    (path,) = (grasp / "data").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:2000])
    report = validate(grasp)
    for code in ("D02", "D04", "D09"):
        assert told(report, code, "informs", "not checked, because no row of data/ could be read"), code
    assert not any("exclude_episodes" in finding.remedy for finding in report.findings)


@pytest.mark.failure("D18")
def test_numbers_that_are_never_finite_leave_the_other_columns_checked(grasp: Path) -> None:
    state = column(grasp, STATE_KEY)
    state[:, 1] = np.nan
    set_column(grasp, STATE_KEY, state)
    report = validate(grasp)
    assert told(report, "D04", "informs", "not checked, because") and told(report, "D09", "informs", "not checked, because")
    assert told(report, "D02", "informs", "4 rewarded frames")


@pytest.mark.failure("D01")
def test_a_state_that_is_gone_is_not_replaced_by_another_reading_of_the_actions(grasp: Path) -> None:
    edit_frames(grasp, lambda table: table.drop(STATE_KEY))
    report = validate(grasp)
    assert told(report, "D01", "stops", STATE_KEY) and told(report, "D06", "stops", "needs the measured joints")
    assert not any("action_from" in finding.remedy or "state: [" in finding.remedy for finding in report.findings)
