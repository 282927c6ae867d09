from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_helpers import LENGTHS, drop_feature, edit_frames, edit_info, make_config, set_column, states, update

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.validation import validate_dataset, validation_inputs
from hilserl.data.validation.findings import Finding, ValidationReport
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import DatasetError

LAST = np.cumsum(LENGTHS) - 1


def stops(config: TrainConfig, root: Path) -> list[Finding]:
    return list(validate_dataset(config, root).stops)


def only_stop(config: TrainConfig, root: Path, code: str) -> Finding:
    """Exactly this stops: nothing is missed, and nothing else is blamed."""
    found = stops(config, root)
    assert [finding.code for finding in found] == [code], [str(finding) for finding in found]
    return found[0]


def found(report: ValidationReport, code: str, severity: str) -> str:
    return " ".join(
        f"{finding.message} {finding.remedy}" for finding in report.findings if (finding.code, finding.severity) == (code, severity)
    )


def test_a_good_dataset_passes_with_its_numbers(config: TrainConfig, demos: Path) -> None:
    report = validate_dataset(config, demos)
    report.raise_if_stopped()
    assert (report.episodes, report.frames, report.fps) == (4, sum(LENGTHS), 10)
    assert report.positives_per_episode == {0: 1, 1: 1, 2: 1, 3: 0}
    assert report.summary()["positives"] == 3 and report.summary()["episodes_with_positives"] == 3
    assert [row["severity"] for row in report.rows()] == ["warns", "informs", "informs", "informs"]
    assert "are only 13 frames to compare" in found(report, "D09", "informs")
    assert "3 episodes terminated (rewarded) and 1 were truncated" in found(report, "D03", "informs")


def test_a_good_teleoperated_dataset_passes(teleop_config: TrainConfig, teleop: Path) -> None:
    report = validate_dataset(teleop_config, teleop)
    report.raise_if_stopped()
    assert "computed" in found(report, "D04", "informs")


def test_all_reasons_are_reported_together(config: TrainConfig, demos: Path) -> None:
    drop_feature(demos, "next.reward")
    config = update(config, robot={"control_hz": 20}, policy={"offline_buffer_capacity": 10})
    with pytest.raises(DatasetError) as caught:
        validate_dataset(config, demos).raise_if_stopped()
    message = str(caught.value)
    assert [code for code in ("D02", "D10", "D18") if f"[{code}]" in message] == ["D02", "D10", "D18"] and "3 thing(s)" in message


@pytest.mark.failure("D01")
def test_a_camera_under_another_name_is_suggested(config: TrainConfig, demos: Path) -> None:
    key, other = "observation.images.wrist", "observation.images.gripper_cam"
    edit_info(demos, lambda info: info["features"].update({other: info["features"].pop(key)}))
    (path,) = (demos / "meta" / "episodes").rglob("*.parquet")
    table = pl.read_parquet(path)
    table.rename({name: name.replace(key, other) for name in table.columns if key in name}).write_parquet(path)
    (demos / "videos" / key).rename(demos / "videos" / other)
    finding = only_stop(config, demos, "D01")
    assert f"the policy wants `{key}`" in finding.message
    assert f"did you mean `{other}`" in finding.remedy and "images: {gripper_cam:" in finding.remedy


@pytest.mark.failure("D01")
def test_a_declared_column_that_is_not_there_stops(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda table: table.drop("action"))
    assert "no column of data/" in only_stop(config, demos, "D01").message


@pytest.mark.failure("D02")
def test_without_reward_a_choice_is_asked_for(config: TrainConfig, demos: Path) -> None:
    drop_feature(demos, "next.reward")
    finding = only_stop(config, demos, "D02")
    assert "nothing would be learned" in finding.message and "reward_from: success_at_end" in finding.remedy
    assert "says `column`" in only_stop(make_config(demos, reward_from="column"), demos, "D02").message


@pytest.mark.failure("D02")
def test_success_at_end_counts_one_positive_an_episode(demos: Path) -> None:
    drop_feature(demos, "next.reward")
    report = validate_dataset(make_config(demos, reward_from="success_at_end"), demos)
    report.raise_if_stopped()
    assert report.positives_per_episode == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.failure("D02")
def test_training_without_reward_is_possible_but_said(demos: Path) -> None:
    report = validate_dataset(make_config(demos, reward_from="none"), demos)
    report.raise_if_stopped()
    assert "no learning signal" in found(report, "D02", "warns") and "the column exists and is ignored" in found(report, "D02", "warns")


@pytest.mark.failure("D02")
def test_a_reward_column_of_zeros_stops(config: TrainConfig, demos: Path) -> None:
    set_column(demos, "next.reward", np.zeros(sum(LENGTHS), np.float32))
    assert "no frame of 4 episodes is rewarded" in only_stop(config, demos, "D02").message


def test_rewards_before_the_end_are_told(config: TrainConfig, demos: Path) -> None:
    reward = np.zeros(sum(LENGTHS), np.float32)
    reward[[2, *LAST]] = 1
    set_column(demos, "next.reward", reward)
    report = validate_dataset(config, demos)
    assert "first at episode 0 frame 2" in found(report, "L13", "warns") and not report.stops


@pytest.mark.failure("D03")
def test_without_done_the_episode_table_ends_episodes(config: TrainConfig, demos: Path) -> None:
    drop_feature(demos, "next.done")
    report = validate_dataset(config, demos)
    assert not report.stops and "terminated where the last frame was rewarded" in found(report, "D03", "informs")
    assert "column_is_terminated" in only_stop(make_config(demos, done_from="column_is_terminated"), demos, "D03").message


@pytest.mark.failure("D03")
def test_a_done_inside_an_episode_needs_a_choice(config: TrainConfig, demos: Path) -> None:
    done = np.zeros(sum(LENGTHS), bool)
    done[[3, *LAST]] = True
    set_column(demos, "next.done", done)
    finding = only_stop(config, demos, "D03")
    assert "true 1 times inside an episode, first at episode 0 frame 3" in finding.message and "done_from" in finding.remedy
    chosen = validate_dataset(make_config(demos, done_from="episode_table"), demos)
    assert not chosen.stops and "inside an episode" in found(chosen, "D03", "warns")
    assert "belong to no episode" in only_stop(make_config(demos, done_from="column_is_terminated"), demos, "D03").message


@pytest.mark.failure("D03")
def test_a_done_that_marks_some_ends_needs_a_choice_unless_it_is_the_reward(config: TrainConfig, demos: Path) -> None:
    done = np.zeros(sum(LENGTHS), bool)
    done[LAST[:3]] = True
    set_column(demos, "next.done", done)
    assert not stops(config, demos)
    done[LAST[1]] = False
    set_column(demos, "next.done", done)
    assert "first at episode 1 frame 7" in only_stop(config, demos, "D03").message


@pytest.mark.failure("D03")
def test_time_outs_written_as_task_ends_stop(demos: Path) -> None:
    """LeRobot's recorder writes terminated-or-truncated: read as task ends, episode 3 (unrewarded, 8 steps) is one."""
    config = make_config(demos, done_from="column_is_terminated")
    timed = update(config, task={"control_time_s": 0.8})
    assert "episodes [3] end unrewarded at the time limit (8 steps)" in only_stop(timed, demos, "D03").message
    longer = validate_dataset(update(config, task={"control_time_s": 2}), demos)
    assert not longer.stops and "right for failures" in found(longer, "D03", "warns")


@pytest.mark.failure("D04")
def test_the_same_parts_in_another_order_are_taken_by_name(config: TrainConfig, demos: Path) -> None:
    names = edit_names(demos)
    state = Dataset.open(demos).column("observation.state")
    rename_state(demos, names[6:12] + names[:6] + names[12:])
    set_column(demos, "observation.state", state[:, [*range(6, 12), *range(6), *range(12, 18)]])
    report = validate_dataset(config, demos)
    report.raise_if_stopped()
    assert "['joint_vel', 'joint_pos', 'ee_pos', 'ee_euler'] are recorded" in found(report, "D04", "informs")


@pytest.mark.failure("D04")
def test_numbers_mixed_within_a_part_stop(config: TrainConfig, demos: Path) -> None:
    names = edit_names(demos)
    rename_state(demos, [names[1], names[0], *names[2:]])
    finding = only_stop(config, demos, "D04")
    assert "number 0 is `joint_pos.shoulder_lift`, its component has `joint_pos.shoulder_pan` there" in finding.message
    assert "the order of ['joint_pos', 'joint_vel', 'ee_pos', 'ee_euler'] in a copy" in finding.remedy


@pytest.mark.failure("D04")
@pytest.mark.parametrize(
    ("size", "said"), [(6, "['joint_vel', 'ee_pos', 'ee_euler'] are computed"), (12, "['ee_pos', 'ee_euler'] are computed")]
)
def test_what_joints_allow_to_compute_is_computed(config: TrainConfig, demos: Path, size: int, said: str) -> None:
    resize_state(demos, edit_names(demos)[:size])
    report = validate_dataset(config, demos)
    report.raise_if_stopped()
    assert said in found(report, "D04", "informs")


@pytest.mark.failure("D04")
def test_the_cubes_position_is_told_and_left_out(config: TrainConfig, demos: Path) -> None:
    resize_state(demos, [*edit_names(demos), "cube_from_tool.x", "cube_from_tool.y", "cube_from_tool.z"])
    report = validate_dataset(config, demos)
    report.raise_if_stopped()
    assert "known in simulation only" in found(report, "D04", "informs")


@pytest.mark.failure("D04")
def test_a_state_without_joints_cannot_become_the_policys(config: TrainConfig, demos: Path) -> None:
    resize_state(demos, edit_names(demos)[12:])
    finding = only_stop(config, demos, "D04")
    assert "6 numbers, the policy wants 18; ['joint_pos', 'joint_vel'] was not recorded" in finding.message
    assert finding.remedy == "observation: {state: [ee_pos, ee_euler]}"


@pytest.mark.failure("D04")
def test_sixty_three_unknown_names_stop(config: TrainConfig, demos: Path) -> None:
    resize_state(demos, [f"value_{i}" for i in range(63)])
    assert "63 numbers, the policy wants 18; 63 have names that nobody knows" in only_stop(config, demos, "D04").message


@pytest.mark.failure("D04")
def test_the_configuration_names_numbers_without_names(config: TrainConfig, demos: Path) -> None:
    edit_info(demos, lambda info: info["features"]["observation.state"].update(names=None))
    parts = ("joint_pos", "joint_vel", "ee_pos", "ee_euler")
    validate_dataset(update(config, dataset={"state": parts}), demos).raise_if_stopped()
    finding = only_stop(update(config, dataset={"state": parts[:2]}), demos, "D04")
    assert "holds 18 numbers, dataset.state names 12" in finding.message
    assert only_stop(update(config, dataset={"state": ("joints",)}), demos, "D04").place == "dataset.state"


@pytest.mark.failure("D04")
def test_the_configuration_cannot_contradict_names(config: TrainConfig, demos: Path) -> None:
    finding = only_stop(update(config, dataset={"state": ("joint_vel", "joint_pos", "ee_pos", "ee_euler")}), demos, "D04")
    assert "names its numbers otherwise" in finding.message and finding.remedy.startswith("dataset: {state: null}")


def edit_names(root: Path) -> list[str]:
    return list(Dataset.open(root).names("observation.state") or ())


def rename_state(root: Path, names: list[str]) -> None:
    edit_info(root, lambda info: info["features"]["observation.state"].update(names=names, shape=[len(names)]))


def resize_state(root: Path, names: list[str]) -> None:
    """Other numbers, inside every limit, of the given names."""
    values = np.random.default_rng(0).uniform(-0.5, 0.5, (sum(LENGTHS), len(names))).astype(np.float32)
    edit_frames(root, lambda table: table.with_columns(pl.Series("observation.state", values)))
    rename_state(root, names)


@pytest.mark.failure("D04")
def test_numbers_without_names_stop(config: TrainConfig, demos: Path) -> None:
    edit_info(demos, lambda info: info["features"]["observation.state"].update(names=None))
    assert "18 numbers without names" in only_stop(config, demos, "D04").message


@pytest.mark.failure("D04")
def test_a_cube_cannot_be_computed_from_joints(teleop_config: TrainConfig, teleop: Path) -> None:
    assert "cube" in only_stop(update(teleop_config, observation={"privileged": True}), teleop, "D04").message


@pytest.mark.failure("D05")
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_action_dimension_stops(config: TrainConfig, demos: Path, value: float) -> None:
    action = Dataset.open(demos).column("action").copy()
    action[:, 1] = value
    set_column(demos, "action", action)
    assert f"`delta_y` (always {value:.4g}) never changes" in only_stop(config, demos, "D05").message


@pytest.mark.failure("D06")
def test_joint_targets_for_an_end_effector_policy_stop(teleop: Path) -> None:
    finding = only_stop(make_config(teleop, reward_from="success_at_end"), teleop, "D06")
    assert "action_from: joints" in finding.remedy


def test_policy_actions_are_not_taken_for_joint_targets(demos: Path) -> None:
    finding = only_stop(make_config(demos, action_from="joints"), demos, "D06")
    assert "dataset: {action_from: column}" in finding.remedy


def test_actions_for_another_task_stop(config: TrainConfig, demos: Path) -> None:
    finding = only_stop(update(config, task={"type": "lift"}), demos, "D06")
    assert "['delta_x', 'delta_y', 'delta_z'], expected ['delta_x', 'delta_y', 'delta_z', 'gripper']" in finding.message


@pytest.mark.failure("D07")
def test_an_action_outside_the_policys_range_is_placed(config: TrainConfig, demos: Path) -> None:
    action = Dataset.open(demos).column("action").copy()
    action[7, 2] = 2.0
    set_column(demos, "action", action)
    assert "`delta_z` is 2 at episode 1 frame 1 (1 values in all, up to 2)" in only_stop(config, demos, "D07").message


@pytest.mark.failure("D10")
def test_capacity_is_checked_whatever_the_videos_are(config: TrainConfig, demos: Path) -> None:
    next(demos.rglob("*.mp4")).write_bytes(b"never read")
    small = update(config, policy={"offline_buffer_capacity": 28})
    assert sorted(finding.code for finding in stops(small, demos)) == ["D10", "D18"]
    (finding,) = validate_dataset(small, demos, check_videos="none").stops
    row = 48 * 48 * 3 + 18 * 4 + 3 * 4
    assert f"29 transitions = {29 * row / 1e9:.2f} GB" in finding.message and "offline_buffer_capacity: 58" in finding.remedy
    assert not validate_dataset(update(config, policy={"offline_buffer_capacity": 29}), demos, check_videos="none").stops


@pytest.mark.failure("D14")
def test_frames_of_another_size_than_the_camera_stop(config: TrainConfig, demos: Path) -> None:
    finding = only_stop(update(config, robot={"cameras": {"wrist": {"height": 480, "width": 640}}}), demos, "D14")
    assert "(96, 128, 3)" in finding.message and "{wrist: {height: 96, width: 128}}" in finding.remedy


@pytest.mark.failure("D16")
@pytest.mark.failure("D17")
def test_state_scaling_problems_are_found_with_the_rest(config: TrainConfig, demos: Path) -> None:
    state = states(np.random.default_rng(2), config, sum(LENGTHS))
    state[:, 5] = 0.5
    state[:, 0] = np.degrees(state[:, 0])
    set_column(demos, "observation.state", state)
    assert sorted(finding.code for finding in stops(config, demos)) == ["D16", "D17"]
    assert not stops(update(config, observation={"allow_constant": ["joint_pos.gripper"]}), demos)[1:]


@pytest.mark.failure("D18")
def test_another_rate_stops(config: TrainConfig, demos: Path) -> None:
    finding = only_stop(update(config, robot={"control_hz": 30}), demos, "D18")
    assert "recorded at 10 Hz, the policy acts at 30 Hz" in finding.message and "control_hz: 10" in finding.remedy


@pytest.mark.failure("D18")
@pytest.mark.parametrize(
    ("key", "row", "value", "expected"),
    [
        ("frame_index", 8, 5, "`frame_index` does not count|frame_index does not count"),
        ("index", 9, 4, "index does not count"),
        ("timestamp", 3, 0.4, "timestamp is not frame_index / fps"),
        ("next.reward", 10, np.nan, "not finite"),
    ],
)
def test_a_bad_row_is_found_and_placed(config: TrainConfig, demos: Path, key: str, row: int, value: float, expected: str) -> None:
    values = Dataset.open(demos).column(key).copy()
    values[row] = value
    set_column(demos, key, values)
    findings = [finding for finding in stops(config, demos) if any(part in finding.message for part in expected.split("|"))]
    assert len(findings) == 1
    assert f"episode {0 if row < 6 else 1} frame" in findings[0].place


@pytest.mark.failure("D18")
def test_an_episode_that_starts_at_frame_one_is_found(config: TrainConfig, demos: Path) -> None:
    values = Dataset.open(demos).column("frame_index").copy()
    values[6:14] += 1  # still increases by one inside the episode
    set_column(demos, "frame_index", values)
    assert any("frame_index does not count" in finding.message for finding in stops(config, demos))


@pytest.mark.failure("D18")
@pytest.mark.parametrize("key", ["observation.state", "action"])
def test_nan_in_a_vector_is_placed(config: TrainConfig, demos: Path, key: str) -> None:
    values = Dataset.open(demos).column(key).copy()
    values[15, 2] = np.nan
    set_column(demos, key, values)
    assert only_stop(config, demos, "D18").place == f"`{key}` at episode 2 frame 1"


@pytest.mark.failure("D18")
def test_a_column_of_another_type_stops(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda table: table.with_columns(pl.col("frame_index").cast(pl.Float64)))
    assert "Int64" in only_stop(config, demos, "D18").message


@pytest.mark.failure("D18")
def test_a_missing_index_column_stops(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda table: table.drop("timestamp"))
    assert "['timestamp']" in only_stop(config, demos, "D18").message


@pytest.mark.failure("D18")
def test_lost_rows_disagree_with_the_episode_table(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda table: table.filter(pl.col("index") != 28))
    assert "declares 8 frames, data/ has 7" in only_stop(config, demos, "D18").message


@pytest.mark.failure("D18")
def test_an_episode_the_table_does_not_know_stops(config: TrainConfig, demos: Path) -> None:
    (path,) = (demos / "meta" / "episodes").rglob("*.parquet")
    pl.read_parquet(path).head(3).write_parquet(path)
    assert "frames of episodes 3 that the episode table does not know" in only_stop(config, demos, "D18").message


@pytest.mark.failure("D18")
def test_a_missing_video_is_found_without_decoding(config: TrainConfig, demos: Path) -> None:
    next(demos.rglob("*.mp4")).unlink()
    assert "the video of episodes 0, 1, 2, 3 is missing" in only_stop(config, demos, "D18").message


@pytest.mark.failure("D18")
def test_a_missing_folder_is_one_finding(config: TrainConfig, tmp_path: Path) -> None:
    assert "no such folder" in only_stop(config, tmp_path / "nowhere", "D18").message


def test_joint_names_are_lerobots() -> None:
    assert LEROBOT_JOINT_NAMES[0] == "shoulder_pan.pos" and len(LEROBOT_JOINT_NAMES) == 6


@pytest.mark.failure("D11")
def test_a_cached_report_follows_everything_it_depends_on(config: TrainConfig) -> None:
    variants = [
        update(config, policy={"offline_buffer_capacity": 99}),
        update(config, robot={"control_hz": 20}),
        update(config, task={"control_time_s": 2}),
        update(config, robot={"cameras": {"wrist": {"height": 100, "width": 128}}}),
    ]
    assert all(validation_inputs(variant) != validation_inputs(config) for variant in variants)
    assert validation_inputs(update(config, policy={"discount": 0.9})) == validation_inputs(config)
