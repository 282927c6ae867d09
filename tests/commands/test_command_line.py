"""Mistakes at the command line: one message, a non-zero code, no traceback."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from commands import demo
from commands.main import main
from hilserl.errors import RobotError
from hilserl.files import disk_error


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["hilserl", *arguments])
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


@pytest.mark.failure("R19")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "reach_state", "--set", "policy.utd_ration=3"], ["policy.utd_ration", "Did you mean `utd_ratio`?"]),
        (["demo", "reech"], ["reech: no such configuration", "Did you mean `reach`?"]),
        (["demo", "reach_state", "--set", "policy.utd_ratio=many"], ["policy.utd_ratio", "many"]),
        (["demo", "reach_state", "--set", "policy.utd_ratio"], ["is not `key=value`"]),
        (["config", "reach_state", "--set", "policy.discount=1.5"], ["policy.discount", "less than 1"]),
        (["eval", "/nowhere/policy"], ["/nowhere/policy"]),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    assert run(*arguments, monkeypatch=monkeypatch) == 1
    output = capsys.readouterr()
    assert output.err.count("error:") == 1
    assert all(word in output.err for word in words), output.err
    assert "Traceback" not in output.err + output.out
    assert not own_home.exists() or list(own_home.iterdir()) == [], "a mistake leaves nothing behind"


def test_config_prints_the_complete_configuration(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "reach_state", "--set", "policy.utd_ratio=7", monkeypatch=monkeypatch) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["policy"]["utd_ratio"] == 7 and printed["observation"]["privileged"] is True
    assert {"robot", "task", "learner", "actor", "evaluation", "link", "tracking"} <= printed.keys()


@pytest.mark.failure("R19")
def test_ctrl_c_is_answered_with_a_message_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupted)
    assert run("demo", "reach_state", monkeypatch=monkeypatch) == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.failure("L15")
def test_a_full_disk_is_one_message_whatever_library_met_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        try:
            raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
        except RuntimeError as error:
            raise ValueError("the checkpoint failed") from error

    monkeypatch.setattr(demo, "run_demo", full)
    assert run("demo", "reach_state", monkeypatch=monkeypatch) == 1
    error = capsys.readouterr().err
    assert f"{own_home}: the disk is full" in error and "HILSERL_HOME" in error and "Traceback" not in error
    other = ValueError("something else")
    assert disk_error(other, own_home) is other


def test_an_actor_that_died_of_a_full_disk_is_told_as_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    def died(*_arguments: object, **_options: object) -> None:
        raise RobotError("the actor ended with code 1 while the learner was training. It wrote no log.")

    monkeypatch.setattr(demo, "run_demo", died)
    assert run("demo", "reach_state", monkeypatch=monkeypatch) == 1
    assert "the actor ended" in capsys.readouterr().err
    usage = shutil.disk_usage("/")._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    own_home.mkdir(exist_ok=True)
    assert run("demo", "reach_state", monkeypatch=monkeypatch) == 1
    error = capsys.readouterr().err
    assert "the disk is full" in error and error.count("error:") == 1


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(demo, "run_demo", broken)
    with pytest.raises(ZeroDivisionError):
        run("demo", "reach_state", monkeypatch=monkeypatch)
