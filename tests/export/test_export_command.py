import pytest

from commands.export import run_export
from hilserl.errors import CheckpointError, ConfigError


def test_it_says_what_it_wrote_how_it_was_checked_and_what_is_next(make_source, tmp_path, own_home, capsys) -> None:
    source = make_source("reach_state")
    run_export(str(source.folder), "lerobot", tmp_path / "out")
    said = capsys.readouterr().out
    assert f"written: {tmp_path / 'out'}, policy type `gaussian_actor`" in said
    assert "checked: loaded by LeRobot, largest action difference" in said
    assert "success: 90.0% of 20 episodes" in said
    assert "not joint angles" in said and "next:" in said
    assert "Loading weights" not in said  # LeRobot's own chatter


@pytest.mark.parametrize("to", ["lerobot", "onnx"])
def test_an_unknown_policy_is_refused_with_the_names_that_there_are(tmp_path, own_home, to) -> None:
    with pytest.raises(CheckpointError, match="no trained policy called `nothing`"):
        run_export("nothing", to, tmp_path / "out")


def test_only_an_earlier_export_is_replaced_and_only_with_force(make_source, tmp_path, own_home) -> None:
    source, out = make_source("reach_state"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(ConfigError, match="is not an earlier export"):
            run_export(str(source.folder), "lerobot", out, force=force)
    assert (out / "thesis.txt").read_text() == "mine"
    (out / "thesis.txt").unlink()
    run_export(str(source.folder), "lerobot", out)  # an empty folder is as good as none
    with pytest.raises(ConfigError, match="--force to replace it"):
        run_export(str(source.folder), "lerobot", out)
    (out / "README.md").unlink()
    run_export(str(source.folder), "lerobot", out, force=True)
    assert (out / "README.md").is_file()
