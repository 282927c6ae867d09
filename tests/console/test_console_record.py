"""Demonstrations recorded from the page, with pictures and replays; into a dataset that training takes."""

import importlib
import threading
import urllib.request

import cv2
import numpy as np
import pytest
from console_testing import make_config, page, until

from commands.record import person_of_the_page
from hilserl.config import load_config
from hilserl.config.models import TrainConfig
from hilserl.console.operator import ConsoleOperator
from hilserl.data.dataset import Dataset
from hilserl.data.writer import policy_features
from hilserl.environments.make import make_environment
from hilserl.teleop.make import make_human
from hilserl.teleop.record import Recorder
from hilserl.teleop.recording_folder import RecordingFolder


class Recording:
    def __init__(self, config: TrainConfig, root) -> None:
        self.operator = ConsoleOperator(config, mode="record", run="demos")
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.folder = RecordingFolder(root, policy_features(config), config.robot.control_hz, resume=False)
        self._config = config
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            environment = make_environment(self._config)
            person = self.operator.human(self._config, environment, make_human)
            recorder = Recorder(self._config, environment, person, self.folder, operator=self.operator, should_stop=self.stop.is_set)
            self.recorded = recorder.record(2)
            person.close()
            environment.close()
            self.folder.finish()
        except BaseException as error:
            self.error = error


@pytest.mark.parametrize(
    ("name", "overrides", "records", "said"),
    [
        ("lift", {"console.enable": True}, "console", "The page's person records"),
        ("lift", {}, "simulated", ""),
        ("lift", {"console.enable": True, "actor.intervention.type": "simulated"}, "simulated", ""),
        ("lift", {"console.enable": True, "actor.intervention": {"type": "keyboard"}}, "keyboard", ""),
        ("so101_virtual_lift", {"console.enable": True}, "console", "The page's person records"),  # no person moves that leader arm
        ("so101_real_grasp", {"console.enable": True}, "leader", "The leader records; the page may take over"),
    ],
)
def test_with_the_console_open_the_pages_person_records_unless_another_is_named(name, overrides, records, said) -> None:
    lines: list[str] = []
    config = person_of_the_page(load_config(name, overrides), overrides, lines.append)
    assert config.actor.intervention.type == records
    assert "".join(lines).startswith(said) and bool(lines) == bool(said)


@pytest.mark.failure("D19")
def test_a_person_records_demonstrations_on_the_page(own_home, tmp_path) -> None:
    images = {"wrist": {"resize": [64, 64]}}
    config = make_config(observation__images=images, observation__privileged=False, encoder__type="cnn", encoder__freeze=False)
    importlib.import_module("lerobot.datasets.lerobot_dataset")  # the writer's: seconds, which no person waits for
    recording = Recording(config, tmp_path / "demos")
    recording.thread.start()
    try:
        url = until(lambda: recording.operator.url)
        with page(url) as operator:
            operator.say({"type": "watch", "cameras": None, "views": ["raw", "policy"], "max_hz": 30, "max_width": 640})
            operator.control()
            until(lambda: recording.error or operator.state["phase"] == "episode")
            if recording.error is not None:
                raise recording.error
            for episode, ending in enumerate(("success", "re_record", "success")):
                operator.sees(lambda state: state["phase"] == "episode" and state["episode"] and state["episode"]["step"] == 0)
                with operator.driving(0.2, 0.1, -0.1):
                    operator.sees(lambda state: state["episode"] and state["episode"]["step"] > 5)
                    assert operator.do(ending)["ok"], episode
                    kept = min(1, episode)
                    if episode < 2:
                        operator.sees(lambda state, kept=kept: state["session"]["saved"] == 1 and state["session"]["discarded"] == kept)
                operator.drive(0.0, 0.0, 0.0)  # the key is up
            until(lambda: not recording.thread.is_alive())
            last_word = operator.sees(lambda state: state["phase"] == "ended")
            assert last_word["session"]["saved"] == 2 and "2 of 2 demonstrations" in last_word["text"] and last_word["alarms"] == []
            views = {header["view"]: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for header, jpeg in operator.pictures}
            assert views["raw"].shape == (84, 84, 3) and views["policy"].shape == (64, 64, 3) and views["raw"].std() > 5
            episodes = until(
                lambda: (
                    [one for one in operator.last("episodes")["episodes"] if one["ended"] == "success"][1:]
                    and operator.last("episodes")["episodes"]
                )
            )
            assert [one["ended"] for one in episodes] == ["success", "discarded", "success"]
            last = episodes[-1]
            assert last["frames"]["wrist"] >= 3 and last["cube_m"] is not None and len(last["path_m"]) > 2
            picture = urllib.request.urlopen(f"{url}/replays/{last['id']}/wrist/0.jpg").read()
            assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (84, 84, 3)
        assert recording.recorded.saved == 2 and recording.recorded.discarded == 1
    finally:
        recording.stop.set()
        recording.thread.join(30)
        recording.operator.close()
    if recording.error is not None:
        raise recording.error
    assert Dataset.open(tmp_path / "demos").info["total_episodes"] == 2
