"""What a person said of frames: beside the dataset, known by content, refused where the episode changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hilserl.data.dataset import Dataset
from hilserl.data.editing.episodes import drop_episodes
from hilserl.errors import DatasetError
from hilserl.reward.labels import Labels, labels_file


@pytest.fixture
def dataset(other: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(other, tmp_path / "lamp"))


def test_labels_come_back(dataset: Path) -> None:
    labels = Labels.load(Dataset.open(dataset))
    assert {labels.state(episode) for episode in labels.episodes} == {"unseen"} and labels.success(0) is None
    labels.set(0, [(8, 10), (10, 14), (2, 4)], by="anna")
    labels.set(3, [])
    assert labels.save() == labels_file(dataset) == dataset.parent / "lamp.labels.json"
    again = Labels.load(Dataset.open(dataset))
    np.testing.assert_array_equal(np.flatnonzero(again.success(0)), [2, 3, 8, 9, 10, 11, 12, 13])
    assert again.get(0).success == ((2, 4), (8, 14)) and again.get(0).by == "anna"  # type: ignore[union-attr]
    assert [again.state(episode) for episode in (0, 1, 3)] == ["success", "unseen", "failure"]
    assert again.success(3).dtype == bool and not again.success(3).any()  # type: ignore[union-attr]
    again.clear(0)
    again.save()
    assert Labels.load(Dataset.open(dataset)).success(0) is None


@pytest.mark.failure("D12")
def test_an_episode_that_changed_since_is_refused_and_the_others_are_not(dataset: Path) -> None:
    labels = Labels.load(Dataset.open(dataset))
    labels.set(0, [(8, 14)])
    labels.set(1, [(6, 14)])
    labels.save()
    (table,) = (dataset / "data").rglob("*.parquet")
    rows = pl.read_parquet(table)
    action = rows["action"].to_numpy().copy()
    action[3] += 0.5
    rows.with_columns(pl.Series("action", action, dtype=rows.schema["action"])).write_parquet(table)
    changed = Labels.load(Dataset.open(dataset))
    with pytest.raises(DatasetError, match=r"episode 0 was labelled .* changed since.*hilserl label"):
        changed.success(0)
    assert list(changed.changed) == [0] and changed.state(0) == "changed" and changed.success(1).any()  # type: ignore[union-attr]
    changed.set(0, [(4, 6)])
    assert changed.state(0) == "success" and not changed.changed


def test_labels_move_with_their_episode(dataset: Path) -> None:
    labels = Labels.load(Dataset.open(dataset))
    labels.set(1, [(6, 14)])
    labels.set(2, [(4, 9)])
    labels.save()
    drop_episodes(dataset, [0, 1], dataset.parent / "fewer")
    moved = Labels.load(Dataset.open(dataset.parent / "fewer"), labels_file(dataset))
    np.testing.assert_array_equal(np.flatnonzero(moved.success(0)), np.arange(4, 9))  # it was episode 2
    assert moved.success(1) is None and not moved.changed


def test_marks_in_the_dataset_are_not_its_content(dataset: Path) -> None:
    labels = Labels.load(Dataset.open(dataset))
    labels.set(0, [(8, 14)])
    labels.save()
    (table,) = (dataset / "data").rglob("*.parquet")
    rows = pl.read_parquet(table)
    rows.with_columns(pl.lit(0.0, dtype=rows.schema["next.reward"]).alias("next.reward")).write_parquet(table)
    assert Labels.load(Dataset.open(dataset)).success(0).sum() == 6  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 9, "episodes": []}', '{"version": 1}', '{"version": 1, "episodes": [{"episode": 0}]}']
)
def test_a_damaged_file_is_refused(dataset: Path, text: str) -> None:
    labels_file(dataset).write_text(text)
    with pytest.raises(DatasetError, match=r"lamp\.labels\.json"):
        Labels.load(Dataset.open(dataset))


def test_frames_that_are_not_there_are_refused(dataset: Path) -> None:
    labels = Labels.load(Dataset.open(dataset))
    for episode, ranges in ((0, [(0, 15)]), (0, [(3, 3)]), (0, [(-1, 2)]), (99, [])):
        with pytest.raises(DatasetError):
            labels.set(episode, ranges)
    assert labels.state(0) == "unseen"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("verdict", "sucess", "`success` or `failure`"),
        ("verdict", "failure", "only `success`"),
        ("episode", "7", "without quotes"),
        ("frames", 14.0, "without quotes"),
        ("success", [[1.5, 3]], "ranges"),
    ],
)
def test_a_misspelt_label_is_refused_and_named(dataset: Path, name: str, value: object, allowed: str) -> None:
    labels = Labels.load(Dataset.open(dataset))
    labels.set(1, [(6, 14)])
    file = labels.save()
    content = json.loads(file.read_text())
    content["episodes"][0][name] = value
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=rf"lamp\.labels\.json: episode ('7'|1): `{name}` is .*{allowed}"):
        Labels.load(Dataset.open(dataset))
