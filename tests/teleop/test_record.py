"""Demonstrations by hand: what was executed, from the first motion on, in a dataset that is never overwritten and survives a kill."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset as arrow
import pytest

from hilserl.config.models import ObservationConfig, TaskConfig, TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.writer import policy_features
from hilserl.errors import DatasetError
from hilserl.sim.env import So101Env
from hilserl.sim.expert import ScriptedExpert
from hilserl.teleop.events import NO_EVENTS, TeleopEvent
from hilserl.teleop.record import Recorded, Recorder
from hilserl.teleop.recording_folder import RecordingFolder

CONFIG = TrainConfig(task=TaskConfig(control_time_s=3), observation=ObservationConfig(images={}, privileged=True), seed=4)
HZ = CONFIG.robot.control_hz


class Demonstrator:
    """The scripted expert, who thinks for a while before each episode; `says` is what is said at a step of an episode."""

    def __init__(self, environment: So101Env, says: list[dict[int, TeleopEvent]] | None = None, thinks: int = 3) -> None:
        self.environment, self.expert = environment, ScriptedExpert(environment.config)
        self.says, self.thinks = says or [], thinks
        self.episode, self.looks, self.steps = -1, 0, 0

    def reset(self) -> None:
        self.expert.reset()
        self.episode, self.looks, self.steps = self.episode + 1, 0, 0

    def intervene(self) -> np.ndarray | None:
        self.looks += 1
        return 1.5 * self.expert.action(self.environment.privileged_state) if self.looks > self.thinks else None  # beyond what is allowed

    def events(self) -> frozenset[TeleopEvent]:
        if self.looks <= self.thinks + 1 and self.steps == 0 and not self.environment._steps:
            return NO_EVENTS
        self.steps += 1
        said = self.says[self.episode].get(self.steps) if self.episode < len(self.says) else None
        return NO_EVENTS if said is None else frozenset({said})

    def observe_outcome(self, success: bool) -> None:
        pass


def open_folder(root: Path, *, resume: bool = False, config: TrainConfig = CONFIG) -> RecordingFolder:
    return RecordingFolder(root, policy_features(config), HZ, resume=resume)


def record(root: Path, episodes: int, *, resume: bool = False, finish: bool = True, says=None, **options) -> Recorded:
    folder = open_folder(root, resume=resume)
    environment = So101Env(CONFIG)
    recorded = Recorder(CONFIG, environment, Demonstrator(environment, says), folder, paced=False, **options).record(episodes)
    if finish:
        folder.finish()
    return recorded


def rows(root: Path) -> dict[str, np.ndarray]:
    table = arrow.dataset(root / "data", format="parquet").to_table().sort_by("index")
    return {name: np.stack(table[name].to_numpy()) for name in table.column_names}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("record") / "demos"
    assert record(root, 2) == Recorded(saved=2)
    return root


@pytest.mark.failure("D08")
@pytest.mark.failure("R06")
@pytest.mark.failure("D19")
def test_what_was_executed_is_recorded_from_the_first_motion_on(two):
    data = rows(two)
    assert set(data["episode_index"]) == {0, 1}
    ends = np.flatnonzero(data["next.reward"] == 1.0)
    np.testing.assert_array_equal(ends, np.flatnonzero(data["next.done"]))
    assert len(ends) == 2 and ends[-1] == len(data["index"]) - 1
    assert np.abs(data["action"]).max() == 1.0  # as executed, not as asked for
    assert np.abs(data["action"][0]).max() > 0.5  # no idle head, though the person thought for a while

    environment = So101Env(CONFIG)  # the stored actions, replayed from the stored start, go where the stored states went
    environment.reset(seed=0)
    states = data["observation.state"][data["episode_index"] == 0]
    environment.arrange(states[0, :6], [0.25, 0.0, 0.0125], 0.0)
    environment._running, environment._data.ctrl[:] = True, states[0, :6]
    environment._data.qvel[:] = 0.0
    for action in data["action"][: len(states) - 1]:
        *_, info = environment.step(action)
    np.testing.assert_allclose(info["joint_pos_rad"], states[-1, :6], atol=0.01)


@pytest.mark.failure("D19")
def test_a_recording_is_never_overwritten_and_a_resumed_one_keeps_what_was_there(two, tmp_path):
    with pytest.raises(DatasetError, match="recording never overwrites"):
        open_folder(two)
    before = rows(two)
    root = tmp_path / "demos"
    subprocess.run(["cp", "-r", str(two), str(root)], check=True)
    assert record(root, 1, resume=True) == Recorded(saved=1)
    after = rows(root)
    assert set(after["episode_index"]) == {0, 1, 2}
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][: len(values)], values)
    starts = [after["observation.state"][after["episode_index"] == episode][0] for episode in range(3)]
    assert len({start.tobytes() for start in starts}) == 3  # every episode has a start of its own
    assert not list(tmp_path.glob(".demos.*"))


def test_what_the_person_says_decides(tmp_path):
    says = [{3: TeleopEvent.RERECORD_EPISODE}, {2: TeleopEvent.FAILURE}, {4: TeleopEvent.SUCCESS}]
    root = tmp_path / "demos"
    assert record(root, 1, says=says) == Recorded(saved=1, failed=1, discarded=1)
    data = rows(root)
    assert len(data["index"]) == 4
    np.testing.assert_array_equal(data["next.reward"], [0, 0, 0, 1])


def test_failures_are_kept_when_asked_for(tmp_path):
    root = tmp_path / "demos"
    assert record(root, 1, says=[{2: TeleopEvent.FAILURE}], keep_failures=True) == Recorded(saved=1)
    np.testing.assert_array_equal(rows(root)["next.reward"], [0, 0])


def test_another_kind_of_recording_is_not_mixed_in(two):
    other = CONFIG.model_copy(update={"task": TaskConfig(type="lift")})
    with pytest.raises(DatasetError, match=r"`action` is float32 \[3\] .* now float32 \[4\]"):
        open_folder(two, resume=True, config=other)


@pytest.mark.slow  # imports LeRobot again, in a process of its own
@pytest.mark.failure("D19")
def test_a_kill_loses_the_episode_that_was_going_on_and_no_other(tmp_path):
    root = tmp_path / "demos"
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_record import CONFIG, Demonstrator, open_folder
from hilserl.sim.env import So101Env
from hilserl.teleop.record import Recorder
class Killer(Demonstrator):
    def intervene(self):
        if self.episode == 2 and self.looks == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().intervene()
environment = So101Env(CONFIG)
Recorder(CONFIG, environment, Killer(environment), open_folder(Path({str(root)!r})), paced=False).record(5)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert not root.exists()
    with pytest.raises(DatasetError, match="2 episodes of an interrupted recording"):
        open_folder(root)
    folder = open_folder(root, resume=True)
    assert folder.episodes == 2
    folder.finish()
    assert Dataset.open(root).info["total_episodes"] == 2
    assert not list(tmp_path.glob(".demos.*"))


@pytest.mark.failure("D19")
@pytest.mark.parametrize("fails_at", range(1, 5))
@pytest.mark.parametrize("there", [False, True], ids=["first", "resumed"])
def test_an_interrupted_finish_is_finished_later_without_losing_or_doubling(two, tmp_path, monkeypatch, there, fails_at):
    root = tmp_path / "demos"
    if there:
        subprocess.run(["cp", "-r", str(two), str(root)], check=True)
    folder = open_folder(root, resume=True)
    for _ in range(1 if there or fails_at > 2 else 2):
        subprocess.run(["cp", "-r", str(two), str(folder.next_episode())], check=True)  # two episodes, as one part
    expected = (2 if there else 0) + 2 * len(folder._finished())
    rename, count = Path.rename, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal count
        if self.parent == tmp_path or self.parent.parent == tmp_path:
            count += 1
            if count == fails_at:
                raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing)
        with contextlib.suppress(KeyboardInterrupt):
            folder.finish()
    again = open_folder(root, resume=True)
    again.finish()
    assert Dataset.open(root).info["total_episodes"] == expected
    assert len(rows(root)["index"]) == len(rows(two)["index"]) * expected // 2
    assert not list(tmp_path.glob(".demos.*"))


@pytest.mark.slow
def test_the_command_records_what_is_typed(tmp_path):
    """A person in a terminal: a step forward, then `s`."""
    person, terminal = pty.openpty()
    root = tmp_path / "demos"
    words = ["record", "reach_state", "--into", str(root), "--episodes", "2", "--set", "actor.intervention.type=keyboard"]
    command = [str(Path(sys.executable).parent / "hilserl"), *words, "--set", "actor.pace=realtime", "--set", "task.control_time_s=60"]
    environment = os.environ | {"HILSERL_HOME": str(tmp_path / "home"), "COLUMNS": "300"}
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if ": go." in line:
                time.sleep(1.0)  # a key that is down when an episode begins is no intervention
                os.write(person, b"\x1b[A")
                time.sleep(1.0)
                os.write(person, b"s")
        assert process.wait(120) == 0, said
    os.close(person)
    os.close(terminal)
    assert "2 episodes kept" in said
    data = rows(root)
    first = data["action"][data["episode_index"] == 0]
    np.testing.assert_allclose(first[0], [1.0, 0.0, 0.0], atol=1e-6)
    assert not first[1:].any()
    assert data["next.reward"].sum() == 2.0
