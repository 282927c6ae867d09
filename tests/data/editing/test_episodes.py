"""Keep, drop, split and merge: the pictures are the same to the last bit, and everything that counts is counted anew."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from data_helpers import LENGTHS, drop_feature, edit_info, make_config, number_in, record_policy
from editing_testing import CAMERA, columns, pictures, recode, stats_of

from hilserl.data.dataset import Dataset
from hilserl.data.editing import compose as compose_module
from hilserl.data.editing.check import check_result
from hilserl.data.editing.compose import Piece, compose, whole
from hilserl.data.editing.episodes import drop_episodes, keep_episodes, merge_datasets, parse_numbers, split_dataset
from hilserl.data.editing.record import Edit, read_record
from hilserl.data.editing.tables import Tables
from hilserl.data.validation import validate_dataset
from hilserl.data.writer import EpisodeWriter, policy_features
from hilserl.errors import DatasetError

STARTS = np.cumsum([0, *LENGTHS])


def rows_of(*episodes: int) -> list[int]:
    return [row for episode in episodes for row in range(STARTS[episode], STARTS[episode + 1])]


def require_valid(root: Path) -> None:
    report = validate_dataset(make_config(root), root)
    assert not report.stops, report.findings


@pytest.mark.failure("D18")
def test_kept_episodes_are_the_source_to_the_last_bit(recorded, tmp_path):
    source, target = recorded["policy"], tmp_path / "new" / "kept"
    before = Dataset.open(source).content_hash()

    keep_episodes(source, (3, 1), target)

    rows = rows_of(1, 3)
    assert (pictures(target) == pictures(source)[rows]).all()
    old, new = columns(source)[rows], columns(target)
    same = ["observation.state", "action", "next.reward", "next.done", "timestamp", "frame_index", "task_index"]
    assert new.select(same).equals(old.select(same))
    assert new["index"].to_list() == list(range(len(rows)))
    assert new["episode_index"].to_list() == [0] * LENGTHS[1] + [1] * LENGTHS[3]
    assert [(e.index, e.length, e.start, e.stop) for e in Dataset.open(target).episodes] == [(0, 8, 0, 8), (1, 8, 8, 16)]
    require_valid(target)
    assert check_result(target) == (2, 16)
    assert Dataset.open(source).content_hash() == before, "the source is never written"


def test_dropping_is_keeping_the_others(recorded, tmp_path):
    keep_episodes(recorded["policy"], (0, 2), tmp_path / "kept")
    drop_episodes(recorded["policy"], (1, 3), tmp_path / "left")
    assert columns(tmp_path / "kept").equals(columns(tmp_path / "left"))
    assert (pictures(tmp_path / "kept") == pictures(tmp_path / "left")).all()


def test_lerobot_opens_the_result_and_sees_the_same_frames(recorded, tmp_path):
    from lerobot.datasets import LeRobotDataset

    keep_episodes(recorded["policy"], (2, 3), tmp_path / "kept")
    dataset = LeRobotDataset("test/kept", root=tmp_path / "kept", video_backend="pyav")
    assert (dataset.num_episodes, dataset.num_frames, dataset.meta.total_tasks) == (2, 15, 1)
    for row in (0, 6, 7, 14):
        item = dataset[row]
        image = (item[CAMERA].numpy() * (1 if item[CAMERA].max() > 1 else 255)).astype(np.uint8).transpose(1, 2, 0)
        assert number_in(image) == STARTS[2] + row
        assert item["task"] == "reach the cube"
        assert int(item["index"]) == row


def test_statistics_are_those_of_what_is_left(recorded, tmp_path):
    """The oracle for a whole dataset is what LeRobot's writer computed; for a part of it, numpy."""
    source = recorded["policy"]
    keep_episodes(source, (0, 1, 2, 3), tmp_path / "all")
    for key, theirs in stats_of(source).items():
        for name in ("min", "max", "mean", "std", "count"):
            assert np.allclose(stats_of(tmp_path / "all")[key][name], theirs[name], atol=1e-5), (key, name)
    keep_episodes(source, (1, 3), tmp_path / "some")
    stats, frames = stats_of(tmp_path / "some"), columns(tmp_path / "some")
    for key in ("observation.state", "action", "next.reward", "index", "episode_index", "frame_index"):
        values = frames[key].to_numpy().astype(float).reshape(len(frames), -1)
        assert np.allclose(stats[key]["mean"], values.mean(0), atol=1e-6), key
        assert np.allclose(stats[key]["std"], values.std(0), atol=1e-6), key
        assert np.allclose(stats[key]["max"], values.max(0)), key
    assert np.shape(stats[CAMERA]["mean"]) == (3, 1, 1)


def test_the_record_says_how_it_was_made(recorded, tmp_path):
    keep_episodes(recorded["policy"], (1, 2, 3), tmp_path / "first")
    drop_episodes(tmp_path / "first", (1,), tmp_path / "second")
    record = read_record(tmp_path / "second")
    assert (record["command"], record["arguments"]) == ("drop", {"episodes": [1]})
    assert [e["episode"] for e in record["episodes"]] == [0, 2]
    (source,) = record["sources"]
    assert source["folder"] == str((tmp_path / "first").resolve())
    assert source["content_hash"] == Dataset.open(tmp_path / "first").content_hash()
    assert source["record"]["command"] == "keep"
    assert source["record"]["sources"][0]["content_hash"] == Dataset.open(recorded["policy"]).content_hash()


def test_a_merge_has_both_in_order_and_tasks_by_text(recorded, tmp_path):
    keep_episodes(recorded["policy"], (2,), tmp_path / "a")
    keep_episodes(recorded["policy"], (0, 1), tmp_path / "b")
    tasks = tmp_path / "b" / "meta" / "tasks.parquet"
    table = pq.read_table(tasks)
    place = table.schema.get_field_index("task")
    pq.write_table(table.set_column(place, table.schema.field(place), [["push the cube"]]), tasks)

    merge_datasets([tmp_path / "a", tmp_path / "b", tmp_path / "a"], tmp_path / "c")

    assert (pictures(tmp_path / "c") == pictures(recorded["policy"])[rows_of(2, 0, 1, 2)]).all()
    assert columns(tmp_path / "c")["task_index"].to_list() == [0] * 7 + [1] * 14 + [0] * 7
    assert Tables.open(tmp_path / "c").tasks == {0: "reach the cube", 1: "push the cube"}
    require_valid(tmp_path / "c")


def test_another_codec_begins_a_new_file(demos, recorded, tmp_path):
    recode(demos, "libx264", {"g": "2"})
    merge_datasets([recorded["policy"], demos], tmp_path / "both")
    assert len(list((tmp_path / "both" / "videos").rglob("*.mp4"))) == 2
    expected = np.concatenate([pictures(recorded["policy"]), pictures(demos)])
    assert (pictures(tmp_path / "both") == expected).all()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: edit_info(root, lambda info: info.update(fps=30)), ["frames per second", "10 in", "30 in"]),
        (lambda root: edit_info(root, lambda info: info.update(robot_type="koch")), ["robot_type", "koch"]),
        (lambda root: drop_feature(root, "next.done"), ["`next.done`", "there is none"]),
        (lambda root: edit_info(root, lambda info: info["features"][CAMERA].update(shape=[48, 64, 3])), ["size of", "(48, 64, 3)"]),
        (lambda root: edit_info(root, lambda info: info["features"]["action"].update(names=["x", "y", "z"])), ["names of `action`"]),
    ],
)
def test_what_differs_is_named_and_nothing_is_written(demos, recorded, tmp_path, damage, words):
    damage(demos)
    with pytest.raises(DatasetError, match="cannot be one") as error:
        merge_datasets([recorded["policy"], demos], tmp_path / "both")
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "both").exists()


@pytest.mark.failure("D17")
def test_degrees_and_radians_are_not_merged(recorded, teleop, tmp_path):
    state = np.radians(np.stack(columns(teleop)["observation.state"].to_numpy())[:6])
    compose(tmp_path / "rad", [Piece(Tables.open(teleop), 0, 0, 6, {"observation.state": list(state)})], Edit("test", {}))
    with pytest.raises(DatasetError, match=r"unit of `observation.state`, by its values: degrees in .*, radians in"):
        merge_datasets([recorded["teleop"], tmp_path / "rad"], tmp_path / "both")


def test_a_split_is_by_episode_and_by_its_seed(recorded, tmp_path):
    parts = split_dataset(recorded["policy"], (tmp_path / "a", tmp_path / "b"), fraction=0.5, seed=3)
    assert sorted(parts[0] + parts[1]) == [0, 1, 2, 3] and len(parts[0]) == 2
    assert (pictures(tmp_path / "a") == pictures(recorded["policy"])[rows_of(*parts[0])]).all()
    again = split_dataset(recorded["policy"], (tmp_path / "c", tmp_path / "d"), fraction=0.5, seed=3)
    assert again == parts
    named = split_dataset(recorded["policy"], (tmp_path / "e", tmp_path / "f"), episodes=(1,))
    assert named == ([1], [0, 2, 3])
    with pytest.raises(DatasetError, match="0 episodes would go to the first"):
        split_dataset(recorded["policy"], (tmp_path / "g", tmp_path / "h"), fraction=0.1)


@pytest.mark.failure("D19")
def test_an_existing_folder_is_never_written(recorded, demos, tmp_path):
    before = Dataset.open(demos).content_hash()
    for act in (
        lambda: keep_episodes(recorded["policy"], (0,), demos),
        lambda: merge_datasets([recorded["policy"], recorded["policy"]], demos),
        lambda: split_dataset(recorded["policy"], (tmp_path / "a", demos), fraction=0.5),
    ):
        with pytest.raises(DatasetError, match="exists"):
            act()
    assert Dataset.open(demos).content_hash() == before
    assert not (tmp_path / "a").exists()


@pytest.mark.failure("D18")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("encoder")])
def test_an_interrupted_edit_leaves_nothing(recorded, tmp_path, monkeypatch, error):
    def interrupt(report):
        if report.done > 6:
            raise error

    monkeypatch.setattr(compose_module, "publish", interrupt)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        keep_episodes(recorded["policy"], (0, 1, 2), tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.failure("D18")
def test_a_truncated_video_is_named_with_its_episode(demos, tmp_path):
    tables = tmp_path / "demos" / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    late = pl.when(pl.col("episode_index") == 3).then(0.5).otherwise(0)
    pl.read_parquet(tables).with_columns(pl.col(f"videos/{CAMERA}/from_timestamp") + late).write_parquet(tables)
    with pytest.raises(DatasetError, match=r"file-000.mp4: episode 3 frame 3: no picture at 2.900 s"):
        keep_episodes(demos, (1, 3), tmp_path / "kept")
    keep_episodes(demos, (1, 2), tmp_path / "kept")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_unknown_episodes_are_all_named(recorded, tmp_path):
    with pytest.raises(DatasetError, match=r"has no episode 4-6, 9. It has 4: 0-3"):
        keep_episodes(recorded["policy"], (1, 4, 5, 6, 9), tmp_path / "kept")
    with pytest.raises(DatasetError, match="all 4 episodes would be dropped"):
        drop_episodes(recorded["policy"], (0, 1, 2, 3), tmp_path / "kept")


def test_numbers_are_read_with_both_ends():
    assert parse_numbers("0-2, 5,4-4") == (0, 1, 2, 4, 5)
    for text in ("", "a", "3-1", "1,,2", "-1"):
        with pytest.raises(DatasetError, match="such as 0-9,12"):
            parse_numbers(text)


@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", {"g": "30", "bf": "3"}), ("libx265", {"x265-params": "keyint=12:bframes=3:log-level=none"})],
)
@pytest.mark.parametrize("start", [1, 4])
def test_a_part_of_a_long_group_of_pictures_is_copied_exactly(demos, tmp_path, codec, options, start):
    """Frames that refer to others, in both directions, and starts that are no keyframes: what is not wanted stays unseen in the file."""
    recode(demos, codec, options)
    tables = Tables.open(demos)
    pieces = [Piece(tables, 1, start, 7), Piece(tables, 3, 2, 6), whole(tables, 0)]
    compose(tmp_path / "parts", pieces, Edit("test", {}))
    rows = [*range(6 + start, 13), *range(23, 27), *range(6)]
    assert (pictures(tmp_path / "parts") == pictures(demos)[rows]).all()
    frames = columns(tmp_path / "parts")
    assert frames["timestamp"].to_numpy() == pytest.approx(frames["frame_index"].to_numpy() / 10, abs=1e-6)
    assert check_result(tmp_path / "parts") == (3, len(rows))


def test_files_are_begun_anew_where_they_are_full(recorded, demos, tmp_path):
    edit_info(demos, lambda info: info.update(data_files_size_in_mb=0.0001, video_files_size_in_mb=0.001))
    merge_datasets([demos, demos], tmp_path / "many")
    files = {path.relative_to(tmp_path / "many").parts[0] for path in (tmp_path / "many").rglob("file-003.*")}
    assert files == {"data", "videos"}
    assert (pictures(tmp_path / "many") == np.concatenate([pictures(recorded["policy"])] * 2)).all()
    assert json.loads((tmp_path / "many/meta/info.json").read_text())["splits"] == {"train": "0:8"}


def test_two_cameras_are_both_copied(tmp_path):
    config = make_config()
    features = policy_features(config)
    features["observation.images.front"] = features[CAMERA]
    real = EpisodeWriter.add_frame

    def both(self, observation, action, reward=None, *, task):
        real(self, observation | {"observation.images.front": 255 - observation[CAMERA]}, action, reward, task=task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpisodeWriter, "add_frame", both)
        record_policy(tmp_path / "two", config, features, (4, 5))
    keep_episodes(tmp_path / "two", (1,), tmp_path / "one")
    assert check_result(tmp_path / "one") == (1, 5)
    assert (pictures(tmp_path / "one") == pictures(tmp_path / "two")[4:]).all()
