"""D18: damaged files, each found with its place, and never hiding what is wrong elsewhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from arm_helpers import arm_config, edit_episodes, edit_json, split_files
from data_helpers import LENGTHS, edit_frames, edit_info, set_column, update

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.validation import Finding, ValidationReport, validate_dataset


def d18(report: ValidationReport, severity: str = "stops") -> list[Finding]:
    return [finding for finding in report.findings if (finding.code, finding.severity) == ("D18", severity)]


def texts(findings: list[Finding]) -> str:
    return "\n".join(map(str, findings))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-200:] = bytes(200)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.failure("D18")
@pytest.mark.parametrize("damage", [truncate, garble, empty, Path.unlink])
def test_a_damaged_data_file_names_its_episodes_and_hides_nothing(config: TrainConfig, demos: Path, damage) -> None:
    action = Dataset.open(demos).column("action").copy()
    action[2, 0] = 5.0
    set_column(demos, "action", action)
    _, other = split_files(demos, 2)
    damage(other)
    report = validate_dataset(config, demos)
    assert {finding.code for finding in report.stops} == {"D07", "D18"}
    (finding,) = d18(report)
    assert finding.place == "data/chunk-000/file-001.parquet" and "episodes 2, 3" in finding.message
    assert finding.remedy.startswith("dataset: {exclude_episodes: [2, 3]}")
    assert (report.episodes, report.frames) == (4, sum(LENGTHS[:2])) and set(report.positives_per_episode or {}) == {0, 1}


@pytest.mark.failure("D18")
def test_a_damaged_file_of_excluded_episodes_does_not_matter(config: TrainConfig, demos: Path) -> None:
    truncate(split_files(demos, 2)[1])
    validate_dataset(update(config, dataset={"exclude_episodes": (2, 3)}), demos).raise_if_stopped()


@pytest.mark.failure("D18")
@pytest.mark.parametrize("damage", [truncate, empty, Path.unlink])
def test_a_damaged_episode_table_hides_nothing(config: TrainConfig, demos: Path, damage) -> None:
    damage(next((demos / "meta" / "episodes").rglob("*.parquet")))
    values = Dataset.open(demos).column("frame_index").copy()
    values[8] = 5
    set_column(demos, "frame_index", values)
    text = texts(d18(validate_dataset(config, demos)))
    assert "meta/episodes/" in text and "frame_index does not count" in text and "episode 1 frame 5" in text


@pytest.mark.failure("D18")
@pytest.mark.parametrize("content", ["", "{", '{"codebase_version": "v3.0"}', '{"codebase_version": "v3.0", "features": [], "fps": 10}'])
def test_unreadable_metadata_do_not_hide_damaged_files(config: TrainConfig, demos: Path, content: str) -> None:
    (demos / "meta" / "info.json").write_text(content)
    truncate(next((demos / "data").rglob("*.parquet")))
    next(demos.rglob("*.mp4")).write_bytes(b"nothing")
    stopped = validate_dataset(config, demos).stops
    assert len(stopped) == 3 and all(finding.remedy for finding in stopped)
    assert any("file-000.parquet" in finding.place for finding in stopped) and any("file-000.mp4" in finding.place for finding in stopped)


@pytest.mark.failure("D18")
def test_an_older_dataset_is_sent_to_the_upgrade(config: TrainConfig, demos: Path) -> None:
    edit_info(demos, lambda info: info.update(codebase_version="v2.1"))
    (finding,) = validate_dataset(config, demos).stops
    assert finding.remedy.startswith(f"hilserl dataset upgrade {demos} --into NEW_FOLDER")


@pytest.mark.failure("D18")
def test_a_feature_without_a_shape_is_named(config: TrainConfig, demos: Path) -> None:
    edit_info(demos, lambda info: info["features"]["next.done"].pop("shape"))
    (finding,) = validate_dataset(config, demos).stops
    assert "`next.done` has no readable dtype and shape" in finding.message


@pytest.mark.failure("D18")
def test_files_of_different_columns_are_told(config: TrainConfig, demos: Path) -> None:
    _, other = split_files(demos, 2)
    pl.read_parquet(other).drop("next.reward").write_parquet(other)
    (finding,) = validate_dataset(config, demos).stops
    assert finding.place.endswith("file-001.parquet") and "columns differ" in finding.message and "next.reward" in finding.message


@pytest.mark.failure("D18")
def test_rows_in_another_file_than_the_table_says_are_told(config: TrainConfig, demos: Path) -> None:
    split_files(demos, 2)
    edit_episodes(demos, lambda t: t.with_columns((pl.col("episode_index") >= 3).cast(pl.Int64).alias("data/file_index")))
    (finding,) = validate_dataset(config, demos).stops
    assert finding.place.endswith("file-001.parquet") and "rows of episodes 2, which the episode table places in" in finding.message


@pytest.mark.failure("D18")
def test_a_vector_of_another_length_is_placed(config: TrainConfig, demos: Path) -> None:
    def shorten(table: pl.DataFrame) -> pl.DataFrame:
        lists = table["action"].to_list()
        lists[9] = lists[9][:2]
        return table.with_columns(pl.Series("action", lists, dtype=pl.List(pl.Float32)))

    edit_frames(demos, shorten)
    text = texts(d18(validate_dataset(config, demos)))
    assert "`action` has another number of values in 1 rows, first at episode 1 frame 3 (2 for 3)" in text


@pytest.mark.failure("D18")
@pytest.mark.parametrize("key", ["next.reward", "observation.state"])
def test_an_empty_cell_is_placed(config: TrainConfig, demos: Path, key: str) -> None:
    edit_frames(demos, lambda t: t.with_columns(pl.when(pl.int_range(pl.len()) == 15).then(None).otherwise(pl.col(key)).alias(key)))
    (finding,) = d18(validate_dataset(config, demos))
    assert finding.place == f"`{key}` at episode 2 frame 1" and "exclude_episodes: [2]" in finding.remedy


@pytest.mark.failure("D18")
def test_timestamps_of_another_rate_are_recognised(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda t: t.with_columns((pl.col("frame_index") / 30).cast(pl.Float32).alias("timestamp")))
    (finding,) = d18(validate_dataset(config, demos))
    assert "timestamps are 1/30 s apart" in finding.message and '"fps": 30' in finding.remedy


@pytest.mark.failure("D18")
def test_interleaved_episodes_are_found(config: TrainConfig, demos: Path) -> None:
    edit_frames(demos, lambda t: t.sort("frame_index", "episode_index"))
    assert "episode_index goes back" in texts(d18(validate_dataset(config, demos)))


@pytest.mark.failure("D18")
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("length", 9, "declares 9 frames, data/ has 8"),
        ("dataset_from_index", 7, "expected 6-14"),
        ("episode_index", 5, "stands where episode 1"),
    ],
)
def test_an_episode_table_that_disagrees_is_found(config: TrainConfig, demos: Path, column: str, value: int, said: str) -> None:
    edit_episodes(demos, lambda t: t.with_columns(pl.when(pl.int_range(pl.len()) == 1).then(value).otherwise(pl.col(column)).alias(column)))
    assert said in texts(d18(validate_dataset(config, demos)))


@pytest.mark.failure("D18")
def test_an_empty_cell_of_the_episode_table_is_found(config: TrainConfig, demos: Path) -> None:
    edit_episodes(
        demos, lambda t: t.with_columns(pl.when(pl.col("episode_index") == 1).then(None).otherwise(pl.col("length")).alias("length"))
    )
    assert "empty cells in ['length']" in texts(d18(validate_dataset(config, demos)))


@pytest.mark.failure("D19")
def test_a_recording_resumed_over_an_old_one_is_found(config: TrainConfig, demos: Path) -> None:
    """Episode 2 recorded again, without the first one's rows being removed."""
    edit_frames(demos, lambda t: pl.concat([t, t.filter(pl.col("episode_index") == 2)]))
    text = texts(d18(validate_dataset(config, demos)))
    assert "declares 7 frames, data/ has 14 (frame 6 is followed by frame 0)" in text


@pytest.mark.failure("D18")
@pytest.mark.parametrize(
    ("key", "value"), [("total_frames", 31), ("total_episodes", 3), ("splits", {"train": "0:9"}), ("splits", {"train": "x"})]
)
def test_totals_that_disagree_are_told(config: TrainConfig, demos: Path, key: str, value: object) -> None:
    edit_info(demos, lambda info: info.update({key: value}))
    (finding,) = d18(validate_dataset(config, demos), "warns")
    assert finding.place == "meta/info.json" and f'"{key}":' in finding.remedy and "in a copy" in finding.remedy


@pytest.mark.failure("D18")
def test_small_files_that_disagree_are_told(config: TrainConfig, demos: Path) -> None:
    meta = demos / "meta"
    edit_json(meta / "stats.json", lambda stats: stats["action"]["max"].__setitem__(1, 57.0))
    assert "`action` has max 57 in dimension 1" in texts(d18(validate_dataset(config, demos), "warns"))
    (meta / "stats.json").write_text("{")
    set_column(demos, "task_index", np.full(sum(LENGTHS), 4))
    text = texts(d18(validate_dataset(config, demos), "warns"))
    assert "stats.json" in text and "data/ uses task_index 4, the file knows 0" in text
    truncate(meta / "tasks.parquet")
    assert "meta/tasks.parquet: is not readable" in texts(d18(validate_dataset(config, demos), "warns"))


@pytest.mark.failure("D16")
def test_statistics_without_a_range_are_told(config: TrainConfig, demos: Path) -> None:
    path = demos / "meta" / "stats.json"
    edit_json(path, lambda stats: stats["observation.state"].update(max=stats["observation.state"]["min"]))
    assert "`observation.state` has max" in texts(d18(validate_dataset(config, demos), "warns"))


@pytest.mark.failure("D15")
def test_a_recording_smaller_than_the_policys_picture_stops(config: TrainConfig, demos: Path) -> None:
    larger = update(
        config,
        robot={"cameras": {"wrist": {"height": 480, "width": 640}}},
        observation={"images": {"wrist": {"crop": None, "resize": (128, 128)}}},
    )
    (finding,) = validate_dataset(larger, demos).stops
    assert finding.code == "D15" and "recorded at 96x128" in finding.message and "resize: [96, 128]" in finding.remedy


@pytest.mark.failure("D18")
def test_everything_that_is_wrong_is_found_in_one_pass(config: TrainConfig, demos: Path) -> None:
    values = Dataset.open(demos).column("timestamp").copy()
    values[10] += 0.05
    set_column(demos, "timestamp", values)
    state = Dataset.open(demos).column("observation.state").copy()
    state[1, 3], state[:, 8] = np.nan, 0.1
    set_column(demos, "observation.state", state)
    action = Dataset.open(demos).column("action").copy()
    action[20, 1] = 3.0
    set_column(demos, "action", action)
    next(demos.rglob("*.mp4")).write_bytes(b"x" * 100)
    edit_info(demos, lambda info: info.update(total_frames=7))
    report = validate_dataset(update(config, robot={"control_hz": 30}, policy={"offline_buffer_capacity": 5}), demos)
    assert {"D07", "D10", "D16", "D18"} == {finding.code for finding in report.stops}
    assert len(d18(report)) == 4  # rate, timestamp, NaN, video
    assert "total_frames is 7" in texts(d18(report, "warns"))
    with pytest.raises(Exception, match=r"7 thing\(s\)"):
        report.raise_if_stopped()


def test_a_state_only_dataset_has_no_videos_to_open(arm: Path) -> None:
    validate_dataset(arm_config(arm), arm, check_videos="all").raise_if_stopped()
    shutil.rmtree(arm / "data")
    assert "the file is missing" in texts(d18(validate_dataset(arm_config(arm), arm)))
    assert json.loads((arm / "meta" / "info.json").read_text())["total_frames"] == 120
