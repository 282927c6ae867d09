import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_helpers import LENGTHS, ToyArm, drop_feature, edit_frames, edit_info, make_config, set_column, update
from hypothesis import given
from hypothesis import strategies as st

from hilserl.config.models import TrainConfig
from hilserl.data.buffer_build import get_or_build
from hilserl.data.convert import convert_steps, too_fast
from hilserl.data.dataset import Dataset
from hilserl.data.recorded import control_frames
from hilserl.errors import DatasetError

LAST = np.cumsum(LENGTHS) - 1


def test_columns_pass_through_in_the_policys_spaces(config: TrainConfig, demos: Path) -> None:
    dataset = Dataset.open(demos)
    steps = convert_steps(config, dataset)
    np.testing.assert_array_equal(steps.state, dataset.column("observation.state"))
    np.testing.assert_array_equal(steps.action, dataset.column("action"))
    np.testing.assert_array_equal(steps.reward, dataset.column("next.reward"))
    assert steps.residual_m is None and steps.clipped_steps == 0
    assert steps.positives_per_episode() == {0: 1, 1: 1, 2: 1, 3: 0}


@pytest.mark.failure("D03")
def test_a_rewarded_end_terminates_and_a_time_out_is_truncated(config: TrainConfig, demos: Path) -> None:
    steps = convert_steps(config, Dataset.open(demos))
    assert np.flatnonzero(steps.terminated).tolist() == LAST[:3].tolist()
    assert np.flatnonzero(steps.truncated).tolist() == [LAST[3]]
    # The done column, which is true there too, must not turn the time-out into a terminal.
    assert Dataset.open(demos).column("next.done")[LAST[3]]


@pytest.mark.failure("D03")
def test_the_column_decides_where_the_configuration_says_so(demos: Path) -> None:
    steps = convert_steps(make_config(demos, done_from="column_is_terminated"), Dataset.open(demos))
    assert np.flatnonzero(steps.terminated).tolist() == LAST.tolist() and not steps.truncated.any()


@pytest.mark.failure("L01")
def test_a_next_row_never_crosses_an_episode(config: TrainConfig, demos: Path) -> None:
    steps = convert_steps(config, Dataset.open(demos))
    rows = np.flatnonzero(steps.has_next)
    np.testing.assert_array_equal(steps.episode_index[rows], steps.episode_index[rows + 1])
    assert len(rows) == sum(LENGTHS) - len(LENGTHS)
    assert not (steps.has_next & (steps.terminated | steps.truncated)).any()


@pytest.mark.failure("D02")
@pytest.mark.parametrize(("source", "expected"), [("success_at_end", 4), ("none", 0), ("column", 3)])
def test_reward_comes_from_where_the_configuration_says(demos: Path, source: str, expected: int) -> None:
    steps = convert_steps(make_config(demos, reward_from=source), Dataset.open(demos))
    assert steps.reward.sum() == expected == steps.terminated.sum()


@pytest.mark.failure("D02")
def test_a_missing_reward_is_never_zero_by_default(config: TrainConfig, demos: Path) -> None:
    drop_feature(demos, "next.reward")
    with pytest.raises(DatasetError, match="reward_from does not say"):
        convert_steps(config, Dataset.open(demos))


@pytest.mark.failure("D06")
def test_joint_data_go_through_the_kinematics_episode_by_episode(teleop_config: TrainConfig, teleop: Path) -> None:
    dataset, arm = Dataset.open(teleop), ToyArm(teleop_config)
    steps = convert_steps(teleop_config, dataset, arm)
    joints, targets = dataset.column("observation.state").astype(float), dataset.column("action").astype(float)
    second = slice(LENGTHS[0], sum(LENGTHS[:2]))
    np.testing.assert_allclose(steps.state[:, :6], np.radians(joints), rtol=1e-5)
    # Velocity by difference inside the episode: the first frame of the second one is at rest, not a jump from the first.
    np.testing.assert_array_equal(steps.state[LENGTHS[0], 6:12], 0)
    assert np.abs(steps.state[LENGTHS[0] + 1, 6:12]).min() > 0
    expected = ((targets - joints) * 0.4)[second, :3]
    np.testing.assert_allclose(steps.action[second], expected, atol=1e-6)
    assert steps.residual_m is not None and steps.residual_m.shape == (len(joints),)


@pytest.mark.failure("D06")
def test_unreachable_joint_steps_are_clipped_and_counted(teleop_config: TrainConfig, teleop: Path) -> None:
    targets = Dataset.open(teleop).column("action").copy()
    targets[[2, 9], 0] += 90
    set_column(teleop, "action", targets)
    steps = convert_steps(teleop_config, Dataset.open(teleop), ToyArm(teleop_config))
    assert steps.clipped_steps == 2 and steps.action[[2, 9], 0].tolist() == [1, 1] and np.abs(steps.action).max() <= 1


def test_joint_data_without_kinematics_stop(teleop_config: TrainConfig, teleop: Path) -> None:
    with pytest.raises(DatasetError, match="needs the arm's kinematics"):
        convert_steps(teleop_config, Dataset.open(teleop))


@pytest.mark.failure("D07")
def test_actions_outside_the_range_stop_instead_of_being_clipped(config: TrainConfig, demos: Path) -> None:
    action = Dataset.open(demos).column("action").copy()
    action[3, 0] = -2
    set_column(demos, "action", action)
    with pytest.raises(DatasetError, match=r"action `delta_x` is -2 at episode 0 frame 3"):
        convert_steps(config, Dataset.open(demos))


def test_rounding_is_clipped(config: TrainConfig, demos: Path) -> None:
    action = Dataset.open(demos).column("action").copy()
    action[3, 0] = 1.0005
    set_column(demos, "action", action)
    assert convert_steps(config, Dataset.open(demos)).action[3, 0] == 1


@pytest.mark.failure("D05")
def test_a_conversion_that_never_moves_a_dimension_stops(teleop_config: TrainConfig, teleop: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(teleop)
    targets = dataset.column("action").copy()
    targets[:, 2] = dataset.column("observation.state")[:, 2]
    set_column(teleop, "action", targets)
    with pytest.raises(DatasetError, match=r"`delta_z` \(always 0\) never changes"):
        get_or_build(teleop_config, teleop, tmp_path / "cache", ToyArm(teleop_config))


@pytest.mark.failure("D04")
def test_the_state_is_put_in_the_policys_order_by_name(config: TrainConfig, demos: Path) -> None:
    other = update(config, observation={"state": ["ee_pos", "joint_vel", "joint_pos"]})
    recorded, state = Dataset.open(demos).column("observation.state"), convert_steps(other, Dataset.open(demos)).state
    np.testing.assert_array_equal(state, np.concatenate([recorded[:, 12:15], recorded[:, 6:12], recorded[:, :6]], axis=1))


@pytest.mark.failure("D04")
def test_a_state_without_names_stops_until_the_configuration_names_it(config: TrainConfig, demos: Path) -> None:
    expected = convert_steps(config, Dataset.open(demos)).state
    edit_info(demos, lambda info: info["features"]["observation.state"].update(names=None))
    with pytest.raises(DatasetError, match=r"is None, the policy wants"):
        convert_steps(config, Dataset.open(demos))
    named = make_config(demos, state=["joint_pos", "joint_vel", "ee_pos", "ee_euler"])
    np.testing.assert_array_equal(convert_steps(named, Dataset.open(demos)).state, expected)
    with pytest.raises(DatasetError, match=r"holds 18 numbers, dataset.state names 12"):
        convert_steps(make_config(demos, state=["joint_pos", "joint_vel"]), Dataset.open(demos))


@pytest.mark.failure("D04")
def test_what_a_state_lacks_is_computed_from_its_joints_and_the_rest_is_kept(demos: Path) -> None:
    """A dataset of twelve numbers: joints and velocities in radians; the tool's pose comes from the kinematics."""
    recorded = Dataset.open(demos).column("observation.state")
    edit_frames(demos, lambda table: table.with_columns(pl.Series("observation.state", recorded[:, :12].tolist(), pl.List(pl.Float32))))
    edit_info(demos, lambda info: info["features"]["observation.state"].update(shape=[12], names=None))
    config = make_config(demos, state=["joint_pos", "joint_vel"])
    state, arm = convert_steps(config, Dataset.open(demos), ToyArm(config)).state, ToyArm(config)
    np.testing.assert_allclose(state[:, :12], recorded[:, :12], rtol=1e-6)
    whole = [arm.state(np.degrees(recorded[e.start : e.stop, :6])) for e in Dataset.open(demos).episodes]
    np.testing.assert_allclose(state[:, 12:], np.concatenate(whole)[:, 12:], rtol=1e-4, atol=1e-6)
    with pytest.raises(DatasetError, match="needs the arm's kinematics"):
        convert_steps(config, Dataset.open(demos))


def test_degrees_become_radians_where_the_configuration_says_so(demos: Path) -> None:
    config = make_config(demos, state=["joint_pos", "joint_vel", "ee_pos", "ee_euler"], joint_unit="deg")
    recorded, state = Dataset.open(demos).column("observation.state"), convert_steps(config, Dataset.open(demos), ToyArm(config)).state
    np.testing.assert_allclose(state[:, :12], np.radians(recorded[:, :12]), rtol=1e-5)
    np.testing.assert_array_equal(state[:, 12:], recorded[:, 12:])


@pytest.mark.failure("D07")
def test_a_discrete_gripper_opens_and_closes_as_recorded(demos: Path) -> None:
    def with_gripper(config: TrainConfig) -> TrainConfig:
        return update(config, task={"type": "lift"})

    classes = np.arange(sum(LENGTHS)) % 3
    action = np.concatenate([Dataset.open(demos).column("action"), classes[:, None].astype(np.float32)], axis=1)
    edit_frames(demos, lambda table: table.with_columns(pl.Series("action", action.tolist(), pl.List(pl.Float32))))
    names = ["delta_x", "delta_y", "delta_z", "gripper"]
    edit_info(demos, lambda info: info["features"]["action"].update(shape=[4], names=names))
    steps = convert_steps(with_gripper(make_config(demos, gripper="discrete")), Dataset.open(demos))
    np.testing.assert_array_equal(steps.action[:, 3], classes - 1)  # 0 closes, 1 stays, 2 opens
    with pytest.raises(DatasetError, match=r"`gripper` is 2 at episode 0 frame 2(?s:.)*gripper: discrete"):
        convert_steps(with_gripper(make_config(demos)), Dataset.open(demos))
    action[7, 3] = 0.4
    set_column(demos, "action", action)
    with pytest.raises(DatasetError, match=r"`gripper` is 0.4 at episode 1 frame 1(?s:.)*gripper: continuous"):
        convert_steps(with_gripper(make_config(demos, gripper="discrete")), Dataset.open(demos))


def thirty_hz(root: Path) -> None:
    """Let the frames be a thirtieth of a second apart."""
    edit_info(root, lambda info: info.update(fps=30))
    edit_frames(root, lambda table: table.with_columns((pl.col("frame_index") / 30).cast(pl.Float32).alias("timestamp")))


def test_a_faster_recording_adds_its_deltas_up(demos: Path) -> None:
    """The oracle: the sum of the recorded motion is the sum of the converted one, episode by episode."""
    thirty_hz(demos)
    config = update(make_config(demos, frame_rate="convert", action_scale_m=0.005))
    dataset = Dataset.open(demos)
    steps = convert_steps(config, dataset)
    assert [int((steps.episode_index == e).sum()) for e in range(4)] == [2, 3, 3, 3]  # 6, 8, 7 and 8 frames by threes
    assert steps.frame_row.tolist() == [0, 3, 6, 9, 12, 14, 17, 20, 21, 24, 27]
    for episode in dataset.episodes:
        recorded_m = dataset.column("action")[episode.start : episode.stop].sum(axis=0) * 0.005
        converted_m = steps.action[steps.episode_index == episode.index].sum(axis=0) * config.robot.action_scale_m
        np.testing.assert_allclose(converted_m, recorded_m, atol=1e-6)
    assert steps.reward.sum() == 3 == steps.terminated.sum() and steps.truncated.sum() == 1
    assert steps.has_next.tolist() == [True, False, True, True, False, True, True, False, True, True, False]


def test_steps_too_short_for_the_accumulated_motion_stop_with_the_size_they_need(demos: Path) -> None:
    thirty_hz(demos)
    config = make_config(demos, frame_rate="convert")
    steps = convert_steps(config, Dataset.open(demos))
    told = too_fast(config, steps.clipped_steps, len(steps.reward), steps.largest_motion)
    assert told is not None and re.search(r"longer than robot.action_scale_m = 0.02 m(?s:.)*action_scale_m: 0.0[3-6]", told)
    assert too_fast(config, 1, 1000, 1.4) is None and too_fast(make_config(demos, action_from="joints"), 9, 10, 9.0) is None


def test_joint_targets_are_taken_where_the_step_ends(teleop: Path) -> None:
    thirty_hz(teleop)
    config = make_config(teleop, reward_from="success_at_end", action_from="joints", frame_rate="convert")
    dataset, arm = Dataset.open(teleop), ToyArm(config)
    joints, targets = dataset.column("observation.state").astype(float), dataset.column("action").astype(float)
    steps = convert_steps(config, dataset, arm)
    first, last = np.array([0, 3, 6, 9, 12]), np.array([2, 5, 8, 11, 13])
    assert steps.frame_row.tolist() == first.tolist()
    np.testing.assert_allclose(steps.action, np.clip(arm.actions(joints[first], targets[last])[0], -1, 1), atol=1e-6)
    np.testing.assert_allclose(steps.state[1, 6:12], np.radians(joints[3] - joints[0]) * 10, rtol=1e-4)  # per control step


@given(length=st.integers(1, 200), ratio=st.floats(1, 12))
def test_control_steps_cover_every_frame_once(length: int, ratio: float) -> None:
    frames = control_frames(length, 10 * ratio, 10.0)
    assert frames[0] == 0 and frames[-1] < length and (np.diff(frames) > 0).all()
    assert np.abs(frames - np.arange(len(frames)) * ratio).max() <= 0.5 + 1e-6  # the nearest frame
    assert length - frames[-1] <= ratio + 1


def test_a_recording_slower_than_the_policy_stops() -> None:
    with pytest.raises(DatasetError, match="recorded at 5 Hz, the policy acts at 10 Hz"):
        control_frames(10, 5.0, 10.0)


def test_human_corrections_and_failed_episodes_are_told_apart(config: TrainConfig, demos: Path) -> None:
    taken_over = np.zeros(sum(LENGTHS), bool)
    taken_over[[2, 3, 22]] = True
    edit_frames(demos, lambda table: table.with_columns(pl.Series("complementary_info.is_intervention", taken_over)))
    edit_info(
        demos, lambda info: info["features"].update({"complementary_info.is_intervention": {"dtype": "bool", "shape": [1], "names": None}})
    )
    role = convert_steps(config, Dataset.open(demos)).role
    assert np.flatnonzero(role == 1).tolist() == [2, 3, 22]
    assert (role[21:] == 2).sum() == 7 and (role[:21] == 0).sum() == 19  # episode 3 was never rewarded


def test_a_failure_is_never_rewarded(config: TrainConfig, demos: Path) -> None:
    steps = convert_steps(config, Dataset.open(demos), role="failure")
    assert steps.reward.sum() == 0 and not steps.terminated.any() and (steps.role == 2).all()
