"""`hilserl dataset …` and `hilserl import-config`, as a person calls them."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from commands import progress_bar
from commands.main import main
from hilserl.config import load_config
from hilserl.data.dataset import Dataset
from hilserl.data.writer import EpisodeWriter, policy_features

USER_FILE = Path(__file__).parents[1] / "config" / "data" / "user_0.5.json"


@pytest.fixture
def call(monkeypatch, capsys, own_home):
    """Run a command; return its exit code, and what it printed and complained."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hilserl", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as ending:
            code = int(ending.code or 0)
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return code, output.out, output.err

    return call


@pytest.fixture
def demos(tiny_demonstrations):
    return tiny_demonstrations


def lengths(root):
    return [episode.length for episode in Dataset.open(root).episodes]


def test_info_says_what_is_in_it(call, demos):
    code, out, _ = call("dataset", "info", demos)
    assert code == 0
    assert "3 episodes" in out and "joint_pos.elbow_flex [rad]" in out and "delta_x" in out and "scalars [unit]" in out


def test_episodes_are_kept_dropped_merged_and_split(call, demos, tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    before = Dataset.open(demos).content_hash()
    code, out, _ = call("dataset", "keep", demos, "--episodes", "0,2", "--into", a)
    assert code == 0 and "2 episodes" in out and lengths(a) == [lengths(demos)[0], lengths(demos)[2]]
    assert call("dataset", "drop", demos, "--episodes", "0,2", "--into", b)[0] == 0
    assert call("dataset", "merge", a, b, "--into", c)[0] == 0
    assert sorted(lengths(c)) == sorted(lengths(demos))
    assert call("dataset", "split", c, "--fraction", "0.67", "--seed", "1", "--into", tmp_path / "d", tmp_path / "e")[0] == 0
    assert (len(lengths(tmp_path / "d")), len(lengths(tmp_path / "e"))) == (2, 1)
    assert Dataset.open(demos).content_hash() == before


def test_trim_shows_before_it_writes(call, demos, tmp_path):
    code, out, _ = call("dataset", "trim", demos, "--dry-run")
    assert code == 0 and "would go" in out and "idle head" in out
    code, _, err = call("dataset", "trim", demos)
    assert code == 1 and "--into NEW" in err
    code, out, _ = call("dataset", "trim", demos, "--head", "--into", tmp_path / "cut")
    assert code == 0 and Dataset.open(tmp_path / "cut").frames.height <= Dataset.open(demos).frames.height


@pytest.mark.failure("D02")
def test_successes_are_marked_from_a_file_or_by_name(call, demos, tmp_path):
    (tmp_path / "ranges.csv").write_text("episode,start,end\n1,0,1\n")
    assert call("dataset", "mark-success", demos, "--from", tmp_path / "ranges.csv", "--into", tmp_path / "a")[0] == 0
    start = lengths(demos)[0]
    assert np.flatnonzero(Dataset.open(tmp_path / "a").frames["next.reward"].to_numpy()).tolist() == [start, start + 1]
    code, _, _ = call("dataset", "mark-success", demos, "--episodes", "1", "--frames", "0-1", "--into", tmp_path / "b")
    assert code == 0
    assert Dataset.open(tmp_path / "b").frames.equals(Dataset.open(tmp_path / "a").frames)
    (tmp_path / "ranges.csv").write_text("episode,start,end\n1,0,1\n7,0,1\nx,0,1\n")
    code, _, err = call("dataset", "mark-success", demos, "--from", tmp_path / "ranges.csv", "--into", tmp_path / "c")
    assert code == 1 and "line 4" in err and not (tmp_path / "c").exists()


def test_a_crop_is_drawn(tmp_path, call):
    seen = {"robot.cameras": {"wrist": {"height": 96, "width": 128}}, "observation.images": {"wrist": {"resize": [48, 48]}}}
    config = load_config("reach_state", seen)
    features = policy_features(config)
    with EpisodeWriter(tmp_path / "seen", "test/seen", features, 10) as writer:
        for number in range(3):
            image = np.full((96, 128, 3), 80 * number, np.uint8)
            state = np.zeros(features["observation.state"]["shape"], np.float32)
            action = np.zeros(features["action"]["shape"], np.float32)
            writer.add_frame({"observation.state": state, "observation.images.wrist": image}, action, 0.0, task="look")
        writer.save_episode()
    out = tmp_path / "crop.png"
    code, text, _ = call("dataset", "crop-preview", tmp_path / "seen", "--crop", "0,0,64,64", "--resize", "32,32", "--out", out)
    assert code == 0 and out.read_bytes()[:4] == b"\x89PNG" and "Largest centred square" in text
    code, _, err = call("dataset", "crop-preview", tmp_path / "seen", "--crop", "0,0,64", "--out", tmp_path / "other.png")
    assert code == 1 and "top,left,height,width" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keep", "DEMOS", "--episodes", "0", "--into", "DEMOS"], "exists"),
        (["keep", "DEMOS", "--episodes", "0-99", "--into", "NEW"], "has no episode 3-99"),
        (["keep", "DEMOS", "--episodes", "first", "--into", "NEW"], "such as 0-9,12"),
        (["keep", "NOWHERE", "--episodes", "0", "--into", "NEW"], "no such folder"),
        (["upgrade", "DEMOS", "--into", "NEW"], "is v3.0 already"),
        (["split", "DEMOS", "--into", "NEW", "NEW2"], "exactly one of --fraction"),
        (["mark-success", "DEMOS", "--into", "NEW"], "either --from FILE, or --episodes"),
    ],
)
def test_mistakes_are_one_message_and_write_nothing(call, demos, tmp_path, arguments, words):
    places = {"DEMOS": demos, "NEW": tmp_path / "new", "NEW2": tmp_path / "new2", "NOWHERE": tmp_path / "nowhere"}
    code, _, err = call("dataset", *[places.get(argument, argument) for argument in arguments])
    assert code == 1 and err.count("error:") == 1 and words in err, err
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.failure("R19")
def test_ctrl_c_leaves_nothing_and_says_so(call, demos, tmp_path, monkeypatch):
    from hilserl.data.editing import compose

    def interrupted(_report):
        raise KeyboardInterrupt

    monkeypatch.setattr(compose, "publish", interrupted)
    code, _, err = call("dataset", "keep", demos, "--episodes", "0", "--into", tmp_path / "work" / "new")
    assert code == 130 and "Nothing that was finished is lost" in err
    assert list((tmp_path / "work").iterdir()) == []


def test_what_takes_long_shows_a_bar(call, demos, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_bar, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(progress_bar, "_LINE_PERIOD_S", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, _, err = call("dataset", "keep", demos, "--episodes", "0-1", "--into", tmp_path / "new")
    assert "frames" in err and "/" in err


@pytest.mark.failure("D21")
def test_a_lerobot_configuration_becomes_ours(call, tmp_path):
    file = shutil.copy(USER_FILE, tmp_path / "train_config.json")
    code, out, _ = call("import-config", file)
    written = tmp_path / "train_config.yaml"
    assert code == 0 and f"written: {written}" in out and "-> policy.utd_ratio" in out and "Without effect here" in out
    assert load_config(written) == load_config(file)
    assert yaml.safe_load(written.read_text())["policy"]["utd_ratio"] == 20


@pytest.mark.failure("D21")
def test_an_import_overwrites_nothing_unasked_and_refuses_other_algorithms(call, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\n")
    code, _, err = call("import-config", USER_FILE, "--out", mine)
    assert code == 1 and "--force" in err and mine.read_text() == "name: mine\n"
    assert call("import-config", USER_FILE, "--out", mine, "--force")[0] == 0
    assert load_config(mine) == load_config(USER_FILE)
    raw = json.loads(USER_FILE.read_text())
    raw["policy"]["type"] = "drqv2"
    (tmp_path / "other.json").write_text(json.dumps(raw))
    code, _, err = call("import-config", tmp_path / "other.json")
    assert code == 1 and "DrQ-v2" in err and "HIL-SERL is SAC" in err and not (tmp_path / "other.yaml").exists()
