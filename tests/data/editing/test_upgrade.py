"""A dataset in LeRobot's older layout becomes v3.0, with LeRobot's converter, and is the same dataset."""

import json
import shutil

import pytest
from data_helpers import make_config
from editing_testing import CAMERA, columns, pictures, write_v21

from hilserl.data.dataset import Dataset
from hilserl.data.editing.check import check_result
from hilserl.data.editing.record import read_record
from hilserl.data.editing.upgrade import upgrade_dataset
from hilserl.data.validation import validate_dataset
from hilserl.errors import DatasetError


@pytest.fixture(scope="module")
def original(recorded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "v21"
    write_v21(recorded["policy"], folder)
    return folder


@pytest.fixture
def old(original, tmp_path):
    return shutil.copytree(original, tmp_path / "old")


def snapshot(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.failure("D18")
def test_the_upgraded_dataset_is_the_same_dataset(recorded, old, tmp_path):
    before = snapshot(old)
    assert upgrade_dataset(old, tmp_path / "new") == (4, 29)
    assert snapshot(old) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["data", "meta", "videos"]
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_symlink()]
    assert (pictures(tmp_path / "new") == pictures(recorded["policy"])).all()
    same = [name for name in columns(recorded["policy"]).columns]
    assert columns(tmp_path / "new").select(same).equals(columns(recorded["policy"]))
    assert not validate_dataset(make_config(tmp_path / "new"), tmp_path / "new").stops
    assert check_result(tmp_path / "new") == (4, 29)
    assert read_record(tmp_path / "new")["command"] == "upgrade"


def test_the_message_about_an_old_dataset_names_this_command(old, tmp_path):
    with pytest.raises(DatasetError, match=f"hilserl dataset upgrade {old} --into"):
        Dataset.open(old)


def test_what_recorders_leave_out_of_info_is_no_obstacle(old, tmp_path):
    path = old / "meta" / "info.json"
    info = json.loads(path.read_text())
    del info["total_chunks"], info["total_videos"]
    path.write_text(json.dumps(info))
    assert upgrade_dataset(old, tmp_path / "new") == (4, 29)


@pytest.mark.failure("D18")
@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (f"videos/chunk-000/{CAMERA}/episode_000002.mp4", f"{CAMERA} of episode 2"),
        ("data/chunk-000/episode_000001.parquet", "data of episode 1"),
        ("meta/episodes_stats.jsonl", "lacks meta/episodes_stats.jsonl"),
        ("meta/info.json", "meta/info.json is missing"),
    ],
)
def test_a_missing_file_is_named_before_anything_is_written(old, tmp_path, missing, words):
    (old / missing).unlink()
    with pytest.raises(DatasetError, match=words):
        upgrade_dataset(old, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.failure("D18")
def test_a_damaged_file_is_one_message_and_leaves_nothing(old, tmp_path):
    (old / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="converter failed"):
        upgrade_dataset(old, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(("version", "words"), [("v3.0", "is v3.0 already"), ("v2.0", "Bring it to v2.1 first")])
def test_other_versions_are_told_what_to_do(old, tmp_path, version, words):
    path = old / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"codebase_version": version}))
    with pytest.raises(DatasetError, match=words):
        upgrade_dataset(old, tmp_path / "new")
