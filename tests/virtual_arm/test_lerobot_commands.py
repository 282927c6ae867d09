"""LeRobot's own commands on the plugin's robot, leader and camera, found by the distribution's name."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import StartArm
from plugin_testing import installed_environment, lerobot_command

from hilserl.config.models import CameraConfig
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess

pytestmark = pytest.mark.slow  # each imports LeRobot in a process of its own

REAL_TIME = ArmOptions(timing=Timing(wire=False))
PATIENCE_S = 240.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environment(tmp_path: Path, home: Path) -> dict[str, str]:
    return installed_environment(tmp_path / "site", home)


@pytest.fixture
def arms(home: Path, start_arm: StartArm) -> tuple[VirtualArmProcess, VirtualArmProcess]:
    """What `hilserl virtual-arm --camera wrist` runs: a follower that sees, and a leader that waves."""
    folder, cameras = home / "virtual-arm", {"wrist": CameraConfig(width=64, height=48)}
    follower = start_arm("follower", REAL_TIME, folder=folder / "follower", cameras=cameras, camera_fps=20.0)
    return follower, start_arm("leader", REAL_TIME, folder=folder / "leader", hand={"move": "wave"})


@contextmanager
def running(environment: dict[str, str], *words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own; Ctrl-C at the end where it still runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            lerobot_command(*words),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(60)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline_s, log.read_text()[-3000:]
        time.sleep(0.1)


def test_lerobot_teleoperate(arms, environment, tmp_path):
    follower, leader = arms
    words = ["lerobot-teleoperate", "--robot.type=so101_virtual", "--teleop.type=so101_virtual_leader", "--fps=20"]
    with running(environment, *words, log=tmp_path / "log") as process:
        wait_for(lambda: all(follower.ask("state")["torque_on"]), process, tmp_path / "log")
        leader.ask("hand", move="to", joints_rad={"shoulder_pan": 0.5, "shoulder_lift": -0.8, "elbow_flex": 0.9, "wrist_flex": 0.7})

        def together() -> bool:
            ours, theirs = (np.array(arm.ask("state")["joint_pos_rad"]) for arm in arms)
            return abs(theirs[0] - 0.5) < 0.05 and float(np.abs(ours - theirs).max()) < 0.05

        wait_for(together, process, tmp_path / "log")
    assert not any(follower.ask("state")["torque_on"])


def test_lerobot_record_with_video_makes_a_dataset_that_opens(arms, environment, tmp_path):
    follower, _ = arms
    root = tmp_path / "recorded"
    words = [
        "lerobot-record", "--robot.type=so101_virtual", "--robot.cameras={wrist: {type: hilserl_virtual, max_age_ms: 20000}}",
        "--teleop.type=so101_virtual_leader", f"--dataset.root={root}",
        "--dataset.repo_id=local/waving", "--dataset.single_task=wave", "--dataset.num_episodes=2", "--dataset.episode_time_s=3",
        "--dataset.reset_time_s=0.5", "--dataset.fps=10", "--dataset.push_to_hub=false", "--play_sounds=false",
    ]  # fmt: skip
    with running(environment, *words, log=tmp_path / "log") as process:
        process.wait(PATIENCE_S)
    log = (tmp_path / "log").read_text()
    assert process.returncode == 0, log[-3000:]
    assert not any(follower.ask("state")["torque_on"])

    from lerobot.datasets import LeRobotDataset

    from hilserl.data.dataset import Dataset

    dataset = LeRobotDataset("local/waving", root=root, video_backend="pyav")
    assert dataset.num_episodes == 2
    assert dataset.meta.features["observation.images.wrist"]["dtype"] == "video"
    frames = [dataset[index] for index in range(len(dataset))]
    assert len(frames) >= 20
    images = np.stack([frame["observation.images.wrist"].numpy() for frame in frames])
    assert images.shape[1:] == (3, 48, 64) and images.std() > 0.03
    assert np.abs(images[0] - images[len(images) // 2]).mean() > 0.002  # the arm moved, and the camera with it
    states, actions = (np.stack([frame[key].numpy() for frame in frames]) for key in ("observation.state", "action"))
    assert states.shape[1] == actions.shape[1] == 6
    assert np.ptp(states, axis=0).max() > 3.0  # degrees
    assert Dataset.open(root).content_hash()  # and ours opens it as well


def test_lerobot_calibrate(home, start_arm, environment):
    """A person at the keyboard: ENTER in the middle, ENTER when the hand has been through all ranges."""
    arm = start_arm("follower", ArmOptions(timing=Timing(wire=False), calibrated=False), folder=home / "virtual-arm" / "follower")
    keyboard, terminal = pty.openpty()
    calibrate = subprocess.Popen(
        lerobot_command("lerobot-calibrate", "--robot.type=so101_virtual"),
        env=environment, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    said = bytearray()

    def listen() -> None:
        assert calibrate.stdout is not None
        while data := os.read(calibrate.stdout.fileno(), 65536):
            said.extend(data)

    def asked(words: bytes) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while words not in said:
            assert calibrate.poll() is None and time.monotonic() < deadline_s, said.decode(errors="replace")[-2000:]
            time.sleep(0.1)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        asked(b"middle of its range")
        middle = dict.fromkeys(("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"), 0.0) | {"gripper": 0.785}
        arm.ask("hand", move="to", joints_rad=middle)
        arm.wait_for_hand()
        os.write(keyboard, b"\n")
        asked(b"MIN")
        arm.ask("hand", move="sweep", speed_rad_s=2.0)
        arm.wait_for_hand()
        os.write(keyboard, b"\n")
        assert calibrate.wait(60) == 0, said.decode(errors="replace")[-2000:]
    finally:
        if calibrate.poll() is None:
            calibrate.kill()
            calibrate.wait()
        listener.join()
        os.close(keyboard)
        assert calibrate.stdout is not None
        calibrate.stdout.close()
    assert arm.calibration.exists()
    assert arm.ask("register", servo=1, name="Homing_Offset")["value"] != 0


@pytest.mark.skipif(not os.access("/dev", os.W_OK), reason="needs a port under /dev, which only root can make")
def test_lerobot_find_port(home, start_arm, environment):
    port = Path(f"/dev/ttyPLUGIN{os.getpid()}")
    arm = start_arm("follower", REAL_TIME, folder=home / "virtual-arm" / "follower", port=port)
    with subprocess.Popen(
        lerobot_command("lerobot-find-port"), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as find:
        assert find.stdin is not None and find.stdout is not None
        while "Remove the USB cable" not in (line := find.stdout.readline()):
            assert line or find.poll() is None
        arm.ask("unplug")
        find.stdin.write("\n")
        find.stdin.flush()
        said, _ = find.communicate(timeout=PATIENCE_S)
        assert f"The port of this MotorsBus is '{port}'" in said
