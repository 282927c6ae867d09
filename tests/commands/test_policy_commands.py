"""`hilserl eval`, `run` and `policies` on a tiny policy."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from pipeline_testing import make_tiny_config

from commands import evaluate as evaluate_command
from commands.main import main
from hilserl.data.preprocess import Preprocessor
from hilserl.learner.checkpoint import Checkpoint, CheckpointFolder
from hilserl.policy import Policy, PolicyArchitecture


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["hilserl", *arguments])
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """What a training leaves: a run with a policy."""
    config = make_tiny_config(task__control_time_s=0.5, evaluation__episodes=3, evaluation__video_episodes=1, actor__pace="unthrottled")
    folder = tmp_path_factory.mktemp("runs") / "tiny" / "20261123-000000"
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    generator = torch.Generator().manual_seed(3)
    tensors = {
        name: torch.randn(t.shape, generator=generator) * 0.1 + (name.endswith("half_range")) for name, t in policy.tensors().items()
    }
    policy.load_tensors(tensors, 5)
    policy.save(folder / "policy" / "best", {"weights_version": 5})
    (folder / "resolved.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (folder / "run.json").write_text(json.dumps({"run_id": "tiny-20261123-000000"}))
    return folder


def test_two_policies_are_compared_on_the_same_starts(trained, tmp_path, own_home, monkeypatch, capsys) -> None:
    arguments = ("eval", str(trained), "--against", str(trained / "policy" / "best"), "--grid", "--into", str(tmp_path / "out"))
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "no difference can be told: 3 same starts" in said and "judged by the simulator" in said
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert evaluation["episodes"] == 3 and evaluation["played"][0]["placed"] is True
    assert (
        "Side by side" in (tmp_path / "out" / "evaluation.html").read_text() and (tmp_path / "out" / "episodes.mp4").stat().st_size > 1000
    )


def test_a_checkpoint_is_played_with_the_weights_that_it_holds(trained, own_home, monkeypatch, capsys) -> None:
    from hilserl.evaluation.source import find_policy

    best = Policy.load(trained / "policy" / "best").tensors()
    other = {name: tensor + 1 for name, tensor in best.items()}
    learned = {**other, "critic.weight": torch.zeros(2), "log_temperature": torch.zeros(1)}
    saved = CheckpointFolder(trained / "checkpoints", keep=2).save(Checkpoint(learned, {"environment_steps": 70, "updates": 90}), 70, 90)
    source = find_policy(saved)
    assert all(torch.equal(other[name], tensor) for name, tensor in Policy.load(source.folder).tensors().items())
    assert "step 70" in source.shown and source.config(None, {}).name == "tiny"
    assert run("eval", str(saved), "--episodes", "1", monkeypatch=monkeypatch) == 0


def test_it_works_until_ctrl_c_and_says_what_it_did(trained, own_home, monkeypatch, capsys) -> None:
    pid, asked = os.getpid(), threading.Event()

    def press() -> None:
        deadline = time.monotonic() + 60
        while "episode 2" not in seen() and time.monotonic() < deadline:
            time.sleep(0.02)
        asked.set()
        os.kill(pid, signal.SIGINT)

    texts: list[str] = []

    def seen() -> str:
        texts.append(capsys.readouterr().out)
        return "".join(texts)

    thread = threading.Thread(target=press)
    thread.start()
    assert run("run", "--policy", str(trained), monkeypatch=monkeypatch) == 0
    thread.join()
    assert asked.is_set() and "episodes succeeded. This is work, not an evaluation" in seen()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the terminal's own Ctrl-C is back"


def test_an_unknown_policy_is_one_message(own_home, monkeypatch, capsys) -> None:
    assert run("run", "--policy", "nobody", monkeypatch=monkeypatch) == 1
    assert "no trained policy called `nobody`" in capsys.readouterr().err


def test_a_registry_is_that_of_the_configuration() -> None:
    assert evaluate_command._tracking(None, {"tracking.uri": "http://there:5000"}).uri == "http://there:5000"
    assert evaluate_command._tracking("reach_state", {"tracking.uri": "http://here:5000"}).uri == "http://here:5000"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_a_policy_is_registered_by_hand_and_listed(trained, own_home, monkeypatch, capsys) -> None:
    assert run("policies", "register", str(trained), monkeypatch=monkeypatch) == 0
    assert run("policies", "list", monkeypatch=monkeypatch) == 0
    assert "models:/hilserl-reach/1 @candidate" in capsys.readouterr().out
    assert run("run", "--policy", "models:/hilserl-reach@candidate", "--episodes", "1", monkeypatch=monkeypatch) == 0
    assert "version 1 of hilserl-reach" in capsys.readouterr().out
    assert run("run", "--policy", "models:/hilserl-reach@champion", monkeypatch=monkeypatch) == 1
    assert "There are: @candidate, /1" in capsys.readouterr().err
