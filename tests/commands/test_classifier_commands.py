"""`hilserl classifier …`, as a person calls it."""

import sys
from pathlib import Path

import pytest
import yaml

from commands.main import main

REWARD_TESTS = Path(__file__).parents[1] / "reward"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REWARD_TESTS))
        from reward_helpers import lamps, record
    folder = tmp_path_factory.mktemp("datasets")
    record(folder / "marked", lamps(12))
    record(folder / "new", ["......########", ".............."], seed=9)
    return folder


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


@pytest.mark.failure("L19")
def test_train_states_counts_and_what_to_paste_and_judge_compares(call, datasets, tmp_path):
    folder = tmp_path / "classifier"
    code, out, _ = call("classifier", "train", datasets / "marked", "--into", folder, "--seed", 1)
    assert code == 0
    assert "held out: 3 episodes (2 with success), 42 frames" in out and "learned from: 6 episodes (5 with success)" in out
    assert "chosen on: 3 episodes (2 with success)" in out and (tmp_path / "classifier.html").read_text().startswith("<!doctype html>")
    assert "held-out episodes: 3 of 3 right" in out and "95 % interval" in out and "has the last word" in out
    assert "note: 3 held-out episodes say little" in out
    pasted = yaml.safe_load(out.strip().splitlines()[-1])
    assert pasted == {"dataset": {"reward_from": "classifier", "classifier": str(folder)}}

    code, out, _ = call("classifier", "judge", datasets / "new", "--classifier", folder)
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in rows[0].split("│")[1:5]] == ["0", "14", "8", "6"] and "new" in rows[0]
    assert [cell.strip() for cell in rows[1].split("│")[1:5]] == ["1", "14", "never", "never"]
    assert "1 of 2 episodes contain success" in out and "episodes not trained on: 2 of 2 right" in out
    _, out, _ = call("classifier", "judge", datasets / "marked", "--classifier", folder)
    assert "episodes trained on, which proves nothing: 9 of 9 right" in out and "episodes not trained on: 3 of 3 right" in out


def test_mistakes_are_one_message(call, datasets, tmp_path):
    code, _, err = call("classifier", "train", datasets / "marked", "--into", datasets)
    assert code == 1 and "Training never overwrites" in err
    code, _, err = call("classifier", "judge", datasets / "new", "--classifier", tmp_path / "none")
    assert code == 1 and "no such folder" in err
    code, _, err = call("classifier", "train", datasets / "new", "--into", tmp_path / "c")
    assert code == 1 and "1 of 2 episodes contain a success, and two are needed" in err and not (tmp_path / "c").exists()
