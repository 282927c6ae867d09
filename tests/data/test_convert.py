from pathlib import Path

import numpy as np
import pytest
from data_helpers import LENGTHS, ToyArm, drop_feature, make_config, set_column, update

from hilserl.config.models import TrainConfig
from hilserl.data.convert import convert_steps
from hilserl.data.dataset import Dataset
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
def test_a_conversion_that_never_moves_a_dimension_stops(teleop_config: TrainConfig, teleop: Path) -> None:
    dataset = Dataset.open(teleop)
    targets = dataset.column("action").copy()
    targets[:, 2] = dataset.column("observation.state")[:, 2]
    set_column(teleop, "action", targets)
    with pytest.raises(DatasetError, match=r"`delta_z` \(always 0\) never changes"):
        convert_steps(teleop_config, Dataset.open(teleop), ToyArm(teleop_config))


@pytest.mark.failure("D04")
def test_a_state_of_other_names_stops(config: TrainConfig, demos: Path) -> None:
    other = update(config, observation={"state": ["joint_vel", "joint_pos", "ee_pos", "ee_euler"]})
    with pytest.raises(DatasetError, match=r"joint_pos\.shoulder_pan"):
        convert_steps(other, Dataset.open(demos))
