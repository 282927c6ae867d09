"""D05 to D09, D16, D17, D19: what the numbers mean, against a recorded arm that follows its commands."""

from pathlib import Path

import numpy as np
import pytest
from arm_helpers import ARM_LENGTHS, STEP_M, arm_config, edit_episodes, record_leader, shift_actions
from data_helpers import ToyArm, edit_info, set_column, update

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.validation import Finding, ValidationReport, validate_dataset

GRIPPER = 3
JAW = 5  # number of the state


def column(root: Path, key: str) -> np.ndarray:
    return Dataset.open(root).column(key).copy()


def findings(report: ValidationReport, code: str, severity: str | None = None) -> list[Finding]:
    return [f for f in report.findings if f.code == code and severity in (None, f.severity)]


def only(config: TrainConfig, root: Path, code: str, severity: str = "stops") -> Finding:
    (finding,) = findings(validate_dataset(config, root), code, severity)
    return finding


def test_an_arm_that_follows_has_nothing_to_warn_of(arm: Path) -> None:
    report = validate_dataset(arm_config(arm), arm)
    assert [str(finding) for finding in report.findings if finding.severity != "informs"] == []
    assert report.alignment is not None and report.alignment.lags == tuple(range(-5, 6)) and report.alignment.best_lag == 0
    assert report.alignment.correlation[5] > 0.95 and max(np.delete(report.alignment.correlation, 5)) < 0.5


@pytest.mark.failure("D09")
@pytest.mark.parametrize(("frames", "lag", "severity"), [(1, -1, "stops"), (2, -2, "stops"), (-1, 1, "warns"), (-2, 2, "warns")])
def test_actions_paired_with_another_frame_are_found_with_the_lag(arm: Path, frames: int, lag: int, severity: str) -> None:
    shift_actions(arm, frames)
    report = validate_dataset(arm_config(arm), arm)
    (finding,) = findings(report, "D09")
    assert finding.severity == severity and f"correlation 1.00 at lag {lag}" in finding.message
    assert f"{'up' if lag < 0 else 'down'} by {abs(lag)} row(s)" in finding.remedy
    assert report.alignment is not None and report.alignment.best_lag == lag


@pytest.mark.failure("D09")
@pytest.mark.parametrize(("frames", "severity"), [(0, "informs"), (1, "stops"), (-1, "informs")])
def test_joint_targets_must_come_before_the_motion(leader: Path, frames: int, severity: str) -> None:
    shift_actions(leader, frames)
    report = validate_dataset(arm_config(leader, reward_from="success_at_end", action_from="joints"), leader)
    assert [finding.severity for finding in findings(report, "D09")] == [severity]
    assert report.alignment is not None and report.alignment.best_lag == -frames


@pytest.mark.failure("D09")
def test_alignment_through_kinematics_where_only_joints_were_recorded(arm: Path) -> None:
    state = column(arm, "observation.state")
    joints = state[:, :6].copy()
    joints[:, :3] = np.radians(state[:, 12:15] * 100)  # the toy arm's tool is 1 cm a degree
    edit_info(arm, lambda info: info["features"]["observation.state"].update(shape=[6], names=info_names(arm)[:6]))
    replace_state(arm, joints)
    config = arm_config(arm)
    assert validate_dataset(config, arm).alignment is None
    aligned = validate_dataset(config, arm, converter=ToyArm(config)).alignment
    assert aligned is not None and aligned.best_lag == 0 and max(aligned.correlation) > 0.9


def info_names(root: Path) -> list[str]:
    return list(Dataset.open(root).names("observation.state") or ())


def replace_state(root: Path, values: np.ndarray) -> None:
    import polars as pl
    from data_helpers import edit_frames

    edit_frames(root, lambda table: table.with_columns(pl.Series("observation.state", values.astype(np.float32))))


@pytest.mark.failure("D06")
def test_an_axis_that_moves_the_other_way_stops(arm: Path) -> None:
    action = column(arm, "action")
    action[:, 1] *= -1
    set_column(arm, "action", action)
    assert "`delta_y` and the measured motion are opposed" in only(arm_config(arm), arm, "D06").message


@pytest.mark.failure("D06")
def test_a_recording_with_another_step_size_is_told(arm: Path) -> None:
    finding = only(update(arm_config(arm), robot={"action_scale_m": 0.1}), arm, "D06", "warns")
    assert "moved the tool 18 mm, action_scale_m says 100 mm" in finding.message
    assert finding.remedy.startswith("dataset: {action_scale_m: 0.018}")
    assert not findings(validate_dataset(update(arm_config(arm, action_scale_m=STEP_M), robot={"action_scale_m": 0.1}), arm), "D06")


@pytest.mark.failure("D06")
def test_motions_that_one_step_cannot_express_stop(arm: Path) -> None:
    finding = only(update(arm_config(arm, action_scale_m=STEP_M), robot={"action_scale_m": 0.01}), arm, "D06")
    assert "cut off, they lead elsewhere" in finding.message and "robot: {action_scale_m: 0.018}" in finding.remedy


@pytest.mark.failure("D06")
def test_what_conversion_from_joints_loses_is_reported(leader: Path) -> None:
    config = arm_config(leader, reward_from="success_at_end", action_from="joints")
    report = validate_dataset(config, leader, converter=ToyArm(config))
    (finding,) = findings(report, "D06")
    # The toy's residual is a millimetre for each per cent that the jaw moves; 2 % a frame are recorded.
    assert finding.severity == "warns" and "lose more than 1 mm" in finding.message and "robot: {action_scale_m:" in finding.remedy
    assert "episode" in finding.message and "mm at most" in finding.message


@pytest.mark.failure("D07")
def test_a_discrete_gripper_needs_the_choice(arm: Path) -> None:
    action = column(arm, "action")
    action[:, GRIPPER] = np.sign(action[:, GRIPPER]) + 1
    set_column(arm, "action", action)
    finding = only(arm_config(arm), arm, "D07")
    assert "classes 0 close, 1 stay, 2 open" in finding.message and finding.remedy == "dataset: {gripper: discrete}"
    assert not validate_dataset(arm_config(arm, gripper="discrete"), arm).stops


@pytest.mark.failure("D07")
def test_a_continuous_gripper_is_not_classes(arm: Path) -> None:
    finding = only(arm_config(arm, gripper="discrete"), arm, "D07")
    assert "at episode 0 frame 0" in finding.message and "dataset: {gripper: continuous}" in finding.remedy


@pytest.mark.failure("D07")
@pytest.mark.parametrize(("sign", "said"), [(1, "only ever opens: the policy would never learn to close"), (-1, "only ever closes")])
def test_a_gripper_that_never_goes_back_is_told(arm: Path, sign: int, said: str) -> None:
    action = column(arm, "action")
    action[:, GRIPPER] = sign * np.abs(action[:, GRIPPER])
    set_column(arm, "action", action)
    assert said in only(arm_config(arm), arm, "D07", "warns").message


@pytest.mark.failure("D07")
def test_a_gripper_that_moves_against_its_command_stops(arm: Path) -> None:
    action = column(arm, "action")
    action[:, GRIPPER] *= -1.6
    action[:, GRIPPER] = np.clip(action[:, GRIPPER], -1, 1)
    set_column(arm, "action", action)
    assert "the jaw moves against its command" in only(arm_config(arm), arm, "D07").message


@pytest.mark.failure("D08")
@pytest.mark.parametrize("discrete", [False, True])
def test_slow_closing_labelled_as_hold_stops(arm: Path, discrete: bool) -> None:
    """The leader closed slowly, by 3 % of the jaw's range a frame, and its movement was below the label's threshold."""
    action, state = column(arm, "action"), column(arm, "observation.state")
    for start in np.cumsum((0, *ARM_LENGTHS[:-1])):
        state[start : start + 40, JAW] = 1.4 - 0.03 * 1.92 * np.clip(np.arange(40) - 5, 0, 20)
        action[start : start + 40, GRIPPER] = 0
        action[start + 30, GRIPPER], action[start + 31, GRIPPER] = 1, -1
    action[:, GRIPPER] += discrete
    set_column(arm, "action", action)
    set_column(arm, "observation.state", state)
    config = arm_config(arm, gripper="discrete" if discrete else "continuous")
    finding = only(config, arm, "D08")
    assert finding.place == "episode 0 frame 0" and "the label says hold for 30 frames while the jaw closes by 60%" in finding.message
    assert "exclude_episodes" not in finding.remedy  # nothing would remain


@pytest.mark.failure("D08")
def test_a_jaw_that_holds_while_it_should_is_no_finding(arm: Path) -> None:
    action, state = column(arm, "action"), column(arm, "observation.state")
    for start in np.cumsum((0, *ARM_LENGTHS[:-1])):
        action[start : start + 40, GRIPPER] = 0
        action[start + 5 : start + 9, GRIPPER] = -1
        action[start + 20 : start + 24, GRIPPER] = 1
        # It follows, and settles for two frames after the command has ended.
        state[start : start + 40, JAW] = np.interp(np.arange(40), [5, 11, 20, 26], [1.2, 0.2, 0.2, 1.2])
    set_column(arm, "action", action)
    set_column(arm, "observation.state", state)
    assert not findings(validate_dataset(arm_config(arm), arm), "D08")


@pytest.mark.failure("D05")
def test_an_episode_of_zeros_is_told(arm: Path) -> None:
    action = column(arm, "action")
    action[40:80] = 0
    set_column(arm, "action", action)
    finding = only(arm_config(arm), arm, "D05", "warns")
    assert "all zero in episodes 1" in finding.message and finding.remedy == "dataset: {exclude_episodes: [1]}"


@pytest.mark.failure("D19")
@pytest.mark.parametrize(("rows", "place"), [(slice(0, 13), "episode 0 frame 0 to 11"), (slice(28, 40), "episode 0 frame 28 to 39")])
def test_idle_ends_are_told_with_the_command_that_cuts_them(arm: Path, rows: slice, place: str) -> None:
    action, state = column(arm, "action"), column(arm, "observation.state")
    action[rows] = 0
    state[rows] = state[rows.start]
    set_column(arm, "action", action)
    set_column(arm, "observation.state", state)
    (finding,) = [f for f in findings(validate_dataset(arm_config(arm), arm), "D19") if "stand still" in f.message]
    assert finding.place == place and finding.severity == "warns"
    assert finding.remedy == f"hilserl dataset trim {arm} --into NEW_FOLDER"


@pytest.mark.failure("D19")
def test_a_reset_inside_an_episode_is_a_jump(arm: Path) -> None:
    state = column(arm, "observation.state")
    state[65:80, 0] += 2.0
    set_column(arm, "observation.state", state)
    (finding,) = [f for f in findings(validate_dataset(arm_config(arm), arm), "D19") if "jumps" in f.message]
    assert finding.place == "episode 1 frame 25" and "in episodes 1" in finding.message


@pytest.mark.failure("D19")
def test_a_slow_reset_without_a_command_is_told(arm: Path) -> None:
    action, state = column(arm, "action"), column(arm, "observation.state")
    action[110:120, :3] = 0
    state[110:120, 12] = state[110, 12] + 0.015 * np.arange(10)
    set_column(arm, "action", action)
    set_column(arm, "observation.state", state)
    (finding,) = [f for f in findings(validate_dataset(arm_config(arm), arm), "D19") if "without a command" in f.message]
    assert finding.place == "episode 2 frame 32"


@pytest.mark.failure("D16")
def test_every_constant_of_the_state_is_in_the_line_to_paste(arm: Path) -> None:
    state = column(arm, "observation.state")
    state[:, [4, 10, 15]] = 0.25
    set_column(arm, "observation.state", state)
    stopped = findings(validate_dataset(arm_config(arm), arm), "D16", "stops")
    line = "observation: {allow_constant: [joint_pos.wrist_roll, joint_vel.wrist_roll, ee_euler.roll]}"
    assert len(stopped) == 3 and all(line in finding.remedy for finding in stopped)


@pytest.mark.failure("D17")
def test_joints_in_degrees_are_named_with_the_choice(arm: Path) -> None:
    state = column(arm, "observation.state")
    state[:, :6] = np.degrees(state[:, :6])
    set_column(arm, "observation.state", state)
    stopped = findings(validate_dataset(arm_config(arm), arm), "D17", "stops")
    assert stopped and "these look like degrees" in stopped[0].message
    assert "dataset: {state: [joint_pos, joint_vel, ee_pos, ee_euler], joint_unit: deg}" in stopped[0].remedy


@pytest.mark.failure("D17")
def test_radians_under_the_names_of_degrees_stop(tmp_path: Path) -> None:
    record_leader(tmp_path / "radians", degrees=False)
    config = arm_config(tmp_path / "radians", reward_from="success_at_end", action_from="joints")
    finding = only(config, tmp_path / "radians", "D17")
    assert "look like radians" in finding.message and finding.remedy == "dataset: {state: [joint_pos], joint_unit: rad}"
    assert not validate_dataset(update(config, dataset={"state": ("joint_pos",), "joint_unit": "rad"}), tmp_path / "radians").stops


@pytest.mark.failure("D17")
def test_targets_in_another_unit_than_the_joints_stop(leader: Path) -> None:
    set_column(leader, "action", np.radians(column(leader, "action")))
    config = arm_config(leader, reward_from="success_at_end", action_from="joints")
    assert "one is in degrees and the other in radians" in only(config, leader, "D17").message


@pytest.mark.failure("D20")
def test_what_differs_from_the_configuration_is_listed(arm: Path) -> None:
    edit_info(arm, lambda info: info.update(robot_type="koch_follower"))
    report = validate_dataset(update(arm_config(arm), robot={"control_hz": 20}, task={"type": "reach"}), arm)
    assert [entry.key for entry in report.drift] == ["robot.control_hz", "robot.type"]
    (listed,) = findings(report, "D20", "informs")
    assert "robot.type: dataset koch_follower, config so101_sim" in listed.message
    assert "recorded with `koch_follower`" in findings(report, "D20", "warns")[0].message


@pytest.mark.failure("D02")
def test_a_classifier_must_be_named_and_there(arm: Path, tmp_path: Path) -> None:
    assert only(arm_config(arm, reward_from="classifier"), arm, "D02").place == "dataset.classifier"
    assert "no such folder" in only(arm_config(arm, reward_from="classifier", classifier=str(tmp_path / "no")), arm, "D02").message
    assert "classifier.json is missing" in only(arm_config(arm, reward_from="classifier", classifier=str(tmp_path)), arm, "D02").message
    (tmp_path / "classifier.json").write_text("{}")  # what is in it is read before anything is decoded, by who loads it
    report = validate_dataset(arm_config(arm, reward_from="classifier", classifier=str(tmp_path)), arm)
    assert not report.stops and report.positives_per_episode is None


@pytest.mark.failure("D18")
def test_a_faster_recording_is_brought_to_the_policys_rate_by_choice(arm: Path) -> None:
    config = update(arm_config(arm), robot={"control_hz": 4})
    finding = only(config, arm, "D18")
    assert "dataset: {frame_rate: convert}" in finding.remedy
    converted = update(config, dataset={"frame_rate": "convert"}, robot={"action_scale_m": 0.1}, policy={"offline_buffer_capacity": 48})
    report = validate_dataset(update(converted, dataset={"action_scale_m": STEP_M}), arm)
    report.raise_if_stopped()  # 120 frames at 10 Hz are 48 transitions at 4 Hz
    assert "brought to the policy's 4 Hz" in " ".join(f.message for f in findings(report, "D18", "informs"))
    slower = update(config, robot={"control_hz": 20}, dataset={"frame_rate": "convert"})
    assert "cannot be made" in only(slower, arm, "D18").message


def test_excluded_episodes_are_not_looked_at(arm: Path) -> None:
    action = column(arm, "action")
    action[45, 0] = 7.0
    set_column(arm, "action", action)
    state = column(arm, "observation.state")
    state[47, 2] = np.nan
    set_column(arm, "observation.state", state)
    assert {finding.code for finding in validate_dataset(arm_config(arm), arm).stops} == {"D07", "D18"}
    report = validate_dataset(arm_config(arm, exclude_episodes=[1]), arm)
    report.raise_if_stopped()
    assert (report.episodes, report.frames) == (2, 80) and set(report.positives_per_episode or {}) == {0, 2}
    assert any("1 of 3 episodes (40 frames) are left out" in finding.message for finding in report.findings)


@pytest.mark.failure("D20")
def test_an_unknown_episode_to_exclude_stops(arm: Path) -> None:
    finding = only(arm_config(arm, exclude_episodes=[1, 7]), arm, "D20")
    assert "no episode 7, only 0 to 2" in finding.message and finding.remedy == "dataset: {exclude_episodes: [1]}"
    everything = validate_dataset(arm_config(arm, exclude_episodes=[0, 1, 2]), arm)
    assert "no episode is left" in everything.stops[0].message


def test_one_episode_table_row_wrong_names_that_episode(arm: Path) -> None:
    import polars as pl

    edit_episodes(arm, lambda table: table.with_columns(pl.when(pl.col("episode_index") == 2).then(41).otherwise(40).alias("length")))
    report = validate_dataset(arm_config(arm), arm)
    assert [finding.place for finding in report.stops] == ["meta/episodes, episode 2"]
