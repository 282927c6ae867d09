"""Marking successes: stated by a person, checked to the line, written with what belongs to it."""

import json

import numpy as np
import pytest
from data_helpers import LENGTHS, make_config
from editing_testing import columns, pictures, stats_of

from hilserl.data.dataset import Dataset
from hilserl.data.editing.success import SuccessRange, mark_success, read_ranges
from hilserl.data.validation import validate_dataset
from hilserl.errors import DatasetError


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.failure("D02")
def test_a_teleoperated_dataset_gets_reward_and_done(teleop, tmp_path):
    file = write(tmp_path, "ranges.csv", "episode,start,end\n# a remark\n1, 5, 7\n")
    remarks = mark_success(teleop, read_ranges(file), tmp_path / "marked")
    frames = columns(tmp_path / "marked")
    reward = [0.0] * 6 + [0.0] * 5 + [1.0] * 3
    assert frames["next.reward"].to_list() == reward
    assert np.flatnonzero(frames["next.done"].to_numpy()).tolist() == [5, 13]
    assert frames.drop("next.reward", "next.done").equals(columns(teleop))
    assert (pictures(tmp_path / "marked") == pictures(teleop)).all()
    dataset = Dataset.open(tmp_path / "marked")
    assert dataset.features["next.reward"]["dtype"] == "float32" and dataset.features["next.done"]["dtype"] == "bool"
    assert stats_of(tmp_path / "marked")["next.reward"]["mean"] == pytest.approx([np.mean(reward)])
    assert stats_of(tmp_path / "marked")["next.done"]["max"] == [1.0]
    assert remarks == ("episodes without success: [0]; they count as failures",)
    config = make_config(tmp_path / "marked", reward_from="column", action_from="joints")
    assert not [f for f in validate_dataset(config, tmp_path / "marked").findings if f.code in ("D02", "D03") and f.severity == "stops"]


def test_lerobot_reads_the_new_columns(teleop, tmp_path):
    from lerobot.datasets import LeRobotDataset

    mark_success(teleop, [SuccessRange(0, None, None, "here")], tmp_path / "marked")
    dataset = LeRobotDataset("test/marked", root=tmp_path / "marked", video_backend="pyav")
    assert [float(dataset[row]["next.reward"]) for row in (4, 5, 6)] == [0, 1, 0]
    assert bool(dataset[5]["next.done"])


def test_columns_that_are_there_are_replaced(demos, tmp_path):
    remarks = mark_success(demos, [SuccessRange(3, 2, 4, "here")], tmp_path / "marked")
    reward = columns(tmp_path / "marked")["next.reward"].to_numpy()
    assert np.flatnonzero(reward).tolist() == [23, 24, 25]
    assert "in episodes [3] the success ends before the episode does" in remarks[0]
    mark_success(demos, [SuccessRange(3, 2, 4, "here")], tmp_path / "ended", cut_after=True)
    assert [e.length for e in Dataset.open(tmp_path / "ended").episodes] == [*LENGTHS[:3], 5]
    ended = columns(tmp_path / "ended")
    assert ended["next.reward"].to_list()[-5:] == [0, 0, 1, 1, 1]
    assert ended["next.done"].to_list()[-2:] == [False, True]


def test_json_and_several_ranges_of_an_episode(tmp_path):
    rows = [{"episode": 1, "start": 0, "end": 1}, {"episode": 1, "start": 6}, {"episode": 0}]
    file = write(tmp_path, "ranges.json", json.dumps(rows))
    assert [(r.episode, r.start, r.end) for r in read_ranges(file)] == [(1, 0, 1), (1, 6, None), (0, None, None)]


@pytest.mark.failure("D02")
def test_every_bad_row_is_named_with_its_line(tmp_path):
    text = "episode,start,end\n0,3,2\n1,a,5\n2,1,4\n,1,2\n3,,4\n4,1,2,9\n5,1.5,2\n6,-1,2\n"
    with pytest.raises(DatasetError) as error:
        read_ranges(write(tmp_path, "bad.csv", text))
    message = str(error.value)
    for line, words in ((2, "`end` 2 is before"), (3, "'a'"), (5, "`episode` is missing"), (6, "`start` is missing"), (7, "4 cells")):
        assert f"line {line}: " in message and words in message
    assert "line 8: " in message and "line 9: " in message and "line 4" not in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "ep,from,to\n1,2,3\n", "line 1: the header is ep,from,to, expected episode,start,end"),
        ("a.csv", "", "header is missing"),
        ("a.csv", "episode,start,end\n", "holds no success range"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"1": [2, 3]}', "expected a list of objects"),
        ("a.json", '[{"episode": 1, "begin": 2}]', "entry 1: .*unknown keys .*begin"),
        ("a.json", '[{"episode": true}]', "entry 1: `episode` is True"),
    ],
)
def test_a_file_that_says_nothing_is_refused(tmp_path, name, text, words):
    with pytest.raises(DatasetError, match=words):
        read_ranges(write(tmp_path, name, text))


def test_ranges_outside_the_dataset_are_all_named(demos, tmp_path):
    ranges = [SuccessRange(9, 0, 1, "line 2"), SuccessRange(0, 2, 6, "line 3"), SuccessRange(1, 2, 7, "line 4")]
    with pytest.raises(DatasetError) as error:
        mark_success(demos, ranges, tmp_path / "marked")
    assert "line 2: the dataset has no episode 9; it has 0 to 3" in str(error.value)
    assert "line 3: frame 6 is outside episode 0, whose last frame is 5" in str(error.value)
    assert "line 4" not in str(error.value)
    assert not (tmp_path / "marked").exists()
