"""Remedies can be pasted as they are printed, one by one and all together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from arm_helpers import arm_config, edit_episodes, edit_json
from data_helpers import LENGTHS, drop_feature, edit_frames, edit_info, make_config, set_column, update

from hilserl.config.loader import load_config, merge
from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.sources import Source, sources_of
from hilserl.data.validation import Finding, ValidationReport, validate_dataset, validate_sources
from hilserl.data.validation.remedies import as_offered, everything_to_paste, recommended

FRAMES = sum(LENGTHS)


def paste(config: TrainConfig, root: Path) -> dict:
    text = everything_to_paste(config, [(Source(config, root), validate_dataset(config, root))])
    return yaml.safe_load(text) or {}


def after(config: TrainConfig, change: dict) -> TrainConfig:
    return TrainConfig.model_validate(merge(config.model_dump(mode="json"), change))


@pytest.mark.failure("D02")
@pytest.mark.failure("D18")
def test_what_is_pasted_as_one_block_settles_everything_and_keeps_the_dataset(config: TrainConfig, demos: Path) -> None:
    drop_feature(demos, "next.reward")
    for key, row in (("action", 2), ("observation.state", 15)):
        values = Dataset.open(demos).column(key).copy()
        values[row, 1] = np.nan
        set_column(demos, key, values)
    small = update(config, policy={"offline_buffer_capacity": 5})
    change = paste(small, demos)
    assert change == {
        "dataset": {"reward_from": "success_at_end", "exclude_episodes": [0, 2]},
        "policy": {"offline_buffer_capacity": change["policy"]["offline_buffer_capacity"]},
    }
    settled = after(small, change)
    assert settled.dataset.root == demos
    validate_dataset(settled, demos).raise_if_stopped()


@pytest.mark.failure("D18")
def test_the_block_is_a_configuration_where_it_says_what_it_extends(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    drop_feature(demos, "next.reward")
    parent = tmp_path / "mine.yaml"
    parent.write_text(json.dumps(config.model_dump(mode="json")))
    report = validate_dataset(config, demos)
    text = everything_to_paste(config, [(Source(config, demos), report)], {"extends": str(parent)})
    child = tmp_path / "settled.yaml"
    child.write_text(text)
    assert load_config(child) == after(config, {"dataset": {"reward_from": "success_at_end"}})


def test_what_is_left_out_already_stays_left_out(config: TrainConfig, demos: Path) -> None:
    values = Dataset.open(demos).column("action").copy()
    values[15] = np.nan
    set_column(demos, "action", values)
    (finding,) = validate_dataset(update(config, dataset={"exclude_episodes": (0,)}), demos).stops
    assert finding.remedy.startswith("dataset: {exclude_episodes: [0, 2]}  # ")


@pytest.mark.failure("D18")
def test_leaving_out_every_episode_is_never_recommended(config: TrainConfig, demos: Path) -> None:
    values = Dataset.open(demos).column("action").copy()
    values[:] = np.nan
    set_column(demos, "action", values)
    (finding,) = (f for f in validate_dataset(config, demos).stops if "not finite" in f.message)
    assert finding.remedy == "# restore the file from the recording"


@pytest.mark.failure("D18")
def test_leaving_out_every_episode_by_two_findings_is_not_recommended_either(config: TrainConfig, demos: Path) -> None:
    for key, rows in (("action", slice(0, 14)), ("observation.state", slice(14, FRAMES))):
        values = Dataset.open(demos).column(key).copy()
        values[rows] = np.nan
        set_column(demos, key, values)
    report = validate_dataset(config, demos)
    assert all("exclude_episodes" in recommended(f.remedy).get("dataset", {}) for f in report.stops if "not finite" in f.message)
    text = everything_to_paste(config, [(Source(config, demos), report)])
    assert "exclude_episodes" not in text and "exclude_episodes" not in str(yaml.safe_load(text) if text else "")


def test_a_value_that_is_set_is_not_offered_and_an_invalid_one_is_a_comment(config: TrainConfig) -> None:
    findings = [
        Finding("D09", "warns", "a", "m", "dataset: {gripper: continuous}\n# or: dataset: {gripper: discrete}"),
        Finding("D09", "warns", "b", "m", "dataset: {gripper: continuous}"),
        Finding("D09", "warns", "c", "m", "robot: {control_hz: 5000}"),
    ]
    first, second, third = as_offered(config, findings, (0, 1))
    assert first.remedy == "# or: dataset: {gripper: discrete}"
    assert second.remedy.startswith("# nothing in the configuration settles it")
    assert third.remedy == "# robot: {control_hz: 5000}"


def test_what_contradicts_is_an_alternative(config: TrainConfig, demos: Path) -> None:
    findings = (
        Finding("D02", "stops", "a", "m", "dataset: {reward_from: success_at_end}"),
        Finding("D02", "warns", "b", "m", "dataset: {reward_from: none}"),
        Finding("D02", "informs", "c", "m", "dataset: {action_from: joints}"),
    )
    text = everything_to_paste(config, [(Source(config, demos), ValidationReport(str(demos), findings, 4))])
    assert yaml.safe_load(text) == {"dataset": {"reward_from": "success_at_end"}}
    assert "# or: dataset: {reward_from: none}" in text


def test_each_source_gets_its_own(arm: Path, tmp_path: Path) -> None:
    other = shutil.copytree(arm, tmp_path / "other")
    values = Dataset.open(other).column("action").copy()
    values[50] = np.nan
    set_column(other, "action", values)
    sources = [{"root": str(arm)}, {"root": str(other), "weight": 2.0}]
    config = update(arm_config(arm), dataset={"root": None, "sources": sources}, policy={"offline_buffer_capacity": 100})
    listed = sources_of(config)
    text = everything_to_paste(config, list(zip(listed, validate_sources(config, listed), strict=True)))
    change = yaml.safe_load(text)
    assert change["dataset"]["sources"] == [{"root": str(arm)}, {"root": str(other), "weight": 2.0, "exclude_episodes": [1]}]
    settled = after(config, change)
    assert not any(report.stops for report in validate_sources(settled, sources_of(settled)))


@pytest.mark.failure("D18")
def test_lost_rows_are_one_finding(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda table: table.filter(~table["index"].is_in([8, 9])))
    report = validate_dataset(config, demos)
    told = [finding for finding in report.findings if finding.severity != "informs" and finding.code == "D18"]
    (finding,) = told
    assert "declares 8 frames, data/ has 6 (frame 1 is followed by frame 4)" in finding.message


@pytest.mark.failure("D18")
def test_damage_of_several_episodes_of_the_table_is_one_finding(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda table: table.filter(~table["index"].is_in([2, 8, 22])))
    (finding,) = validate_dataset(config, demos).stops
    assert "episode 1 declares 8 frames" in finding.message and "exclude_episodes: [0, 1, 3]" in finding.remedy


@pytest.mark.failure("D18")
def test_a_camera_that_only_the_metadata_call_otherwise_is_one_finding(config: TrainConfig, demos: Path) -> None:
    features = "features"
    edit_info(demos, lambda info: info[features].update({"observation.images.front": info[features].pop("observation.images.wrist")}))
    report = validate_dataset(config, demos)
    (finding,) = report.stops
    assert "the episode table and videos/ call it `observation.images.wrist`" in finding.message
    assert "in a copy" in finding.remedy and report.episodes == 4 and report.positives_per_episode is not None


@pytest.mark.failure("D18")
def test_without_an_episode_table_the_rows_are_checked_all_the_same(config: TrainConfig, demos: Path) -> None:
    values = Dataset.open(demos).column("action").copy()
    values[:, 1] = 0.5
    set_column(demos, "action", values)
    shutil.rmtree(demos / "meta" / "episodes")
    report = validate_dataset(config, demos)
    assert report.episodes == 4 and {finding.code for finding in report.stops} == {"D18", "D05"}


@pytest.mark.failure("D04")
@pytest.mark.failure("D06")
def test_metadata_that_disagree_with_the_rows_are_told_with_both_numbers(leader: Path) -> None:
    def damage(info: dict) -> None:
        info["features"]["action"]["names"] = info["features"]["action"]["names"][:5]
        info["features"]["observation.state"]["shape"] = [7]

    edit_json(leader / "meta" / "info.json", damage)
    report = validate_dataset(update(arm_config(leader), dataset={"action_from": "joints", "reward_from": "success_at_end"}), leader)
    text = {finding.code: finding for finding in report.stops}
    assert set(text) == {"D04", "D06"} and len(report.stops) == 2
    assert "the rows hold 6 numbers, meta/info.json names 5" in text["D06"].message
    assert "the rows hold 6 numbers, meta/info.json declares 7 numbers" in text["D04"].message
    assert all("in a copy" in finding.remedy for finding in report.stops)


@pytest.mark.failure("D18")
def test_statistics_are_compared_although_a_row_is_damaged(config: TrainConfig, demos: Path) -> None:
    values = Dataset.open(demos).column("action").copy()
    values[3, 0] = np.nan
    set_column(demos, "action", values)
    edit_json(demos / "meta" / "stats.json", lambda stats: stats["action"]["max"].__setitem__(1, 57.0))
    assert any("`action` has max 57" in finding.message for finding in validate_dataset(config, demos).findings)


def test_file_findings_are_named_by_their_cause(config: TrainConfig, demos: Path) -> None:
    values = Dataset.open(demos).column("action").copy()
    values[3, 0] = np.nan
    set_column(demos, "action", values)
    next(demos.rglob("*.mp4")).unlink()
    edit_episodes(demos, lambda table: table)
    titles = {finding.title for finding in validate_dataset(config, demos).stops}
    assert titles == {"Values that are not finite", "A video that is missing"}


def test_names_of_joints_are_not_told_a_second_time(leader: Path) -> None:
    report = validate_dataset(make_config(leader, action_from="joints", reward_from="success_at_end"), leader)
    assert not any("observation.state" in entry.key or "action" in entry.key for entry in report.drift)


@pytest.mark.failure("D18")
def test_a_rate_that_only_the_metadata_say_is_one_finding_and_the_rest_is_checked_at_the_true_one(config: TrainConfig, demos: Path) -> None:
    edit_info(demos, lambda info: info.update(fps=50))
    report = validate_dataset(config, demos)
    (finding,) = report.stops
    assert "says 50 frames/s, timestamps and video say 10" in finding.message and "in a copy" in finding.remedy
    assert report.fps == 10
