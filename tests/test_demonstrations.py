"""Demonstrations of both flavours mean the same motions, and those motions are what was recorded."""

import logging

import numpy as np
import pytest
from pipeline_testing import make_tiny_config

from hilserl import demonstrations
from hilserl.config.loader import load_config
from hilserl.data.buffer_build import get_or_build
from hilserl.data.dataset import Dataset
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.demonstrations import demonstration_folder, get_or_record, record_demonstrations
from hilserl.errors import SimulationError
from hilserl.joints import RobotJointConverter
from hilserl.schema import ACTION_KEY, STATE_KEY, policy_schema
from hilserl.sim.env import So101Env

SMALL = {"observation.images": {}, "dataset.record.episodes": 3}


@pytest.fixture(scope="module")
def policy_config():
    return load_config("lift", SMALL)


@pytest.fixture(scope="module")
def teleop_config():
    return load_config("lift_teleop", SMALL)


@pytest.fixture(scope="module")
def recorded(policy_config, teleop_config, tmp_path_factory):
    """The same three episodes of `lift`, once as the policy's actions and once as joint targets."""
    folder = tmp_path_factory.mktemp("recorded")
    record_demonstrations(policy_config, folder / "policy")
    record_demonstrations(teleop_config, folder / "teleop")
    return {flavour: Dataset.open(folder / flavour) for flavour in ("policy", "teleop")}


@pytest.fixture(scope="module")
def converted(teleop_config, recorded, tmp_path_factory):
    converter = RobotJointConverter(teleop_config)
    manifest, _, _ = get_or_build(teleop_config, recorded["teleop"].root, tmp_path_factory.mktemp("buffers"), converter)
    return manifest, OfflineBuffer.open(manifest.folder)


@pytest.mark.failure("R06")
def test_replaying_the_stored_actions_open_loop_reproduces_the_motion(policy_config, recorded) -> None:
    dataset = recorded["policy"]
    names = policy_schema(policy_config).observation[STATE_KEY].names
    tool = [names.index(f"ee_pos.{axis}") for axis in "xyz"]
    states, actions = dataset.column(STATE_KEY), dataset.column(ACTION_KEY)
    environment = So101Env(policy_config)
    starts = {}
    for seed in range(policy_config.dataset.record.seed, policy_config.dataset.record.seed + 10):
        starts[environment.reset(seed=seed)[0][STATE_KEY].tobytes()] = seed
    for episode in dataset.episodes:
        rows = range(episode.start, episode.stop)
        observation, _ = environment.reset(seed=starts[states[rows[0]].astype(np.float32).tobytes()])
        for row in rows:
            np.testing.assert_allclose(observation[STATE_KEY][tool], states[row][tool], atol=1e-5)  # 0.01 mm
            observation, reward, terminated, _, info = environment.step(actions[row].astype(np.float32))
            np.testing.assert_allclose(info["executed_action"], actions[row], atol=1e-5)
            assert reward == dataset.column("next.reward")[row]
        assert terminated and info["is_success"]


def test_teleoperation_records_joints_in_lerobots_units_without_reward_or_done(recorded) -> None:
    dataset = recorded["teleop"]
    assert dataset.names(STATE_KEY) == dataset.names(ACTION_KEY) == LEROBOT_JOINT_NAMES
    assert not {"next.reward", "next.done"} & set(dataset.features)
    assert 10 < np.abs(dataset.column(STATE_KEY)[:, :5]).max() < 180  # degrees
    gripper = dataset.column(STATE_KEY)[:, 5]
    assert gripper.min() > -5 and 40 < gripper.max() < 105  # per cent


@pytest.mark.failure("D06")
def test_converted_actions_are_those_of_the_policy_flavour(recorded, converted) -> None:
    _, buffer = converted
    wanted = recorded["policy"].column(ACTION_KEY)
    error = np.abs(buffer.columns["action"] - wanted)
    # The codec accepts an inverse kinematics that ends 0.5 mm from its target, which is 0.025 of an action of 20 mm.
    assert error[:, :3].max() < 0.03
    assert np.median(error[:, :3]) < 0.002
    assert error[:, 3].max() < 1e-3


@pytest.mark.failure("D04")
def test_converted_states_are_those_of_the_environment(recorded, converted) -> None:
    _, buffer = converted
    wanted = recorded["policy"].column(STATE_KEY)
    # float32 degrees: 4e-6 of them near 60, times ten for a velocity
    np.testing.assert_allclose(buffer.columns["state"], wanted, atol=2e-5)


@pytest.mark.failure("D02")
@pytest.mark.failure("D06")
def test_converted_ends_pay_and_the_residual_is_reported(recorded, converted) -> None:
    manifest, buffer = converted
    assert manifest.episodes == 3 and manifest.positives_per_episode == (1, 1, 1)
    np.testing.assert_array_equal(buffer.columns["reward"], recorded["policy"].column("next.reward"))
    last = [episode.stop - 1 for episode in recorded["policy"].episodes]
    assert buffer.columns["terminated"][last].all() and buffer.columns["terminated"].sum() == 3
    assert manifest.residual_m is not None and 0 <= manifest.residual_m["mean"] <= manifest.residual_m["max"] < 0.001  # [m]


def test_converter_version_follows_what_the_conversion_depends_on(teleop_config) -> None:
    version = RobotJointConverter(teleop_config).version

    def other(**robot):
        return RobotJointConverter(teleop_config.model_copy(update={"robot": teleop_config.robot.model_copy(update=robot)})).version

    assert other(id="another-arm") == version
    assert other(action_scale_m=0.01) != version and other(control_hz=20.0) != version


@pytest.fixture
def recordings(monkeypatch) -> list[object]:
    """Counts the recordings that are made."""
    made: list[object] = []
    record = demonstrations.record_demonstrations

    def counting(config, folder):
        made.append(folder)
        record(config, folder)

    monkeypatch.setattr(demonstrations, "record_demonstrations", counting)
    return made


@pytest.mark.failure("D12")
def test_a_recording_is_made_once_and_again_when_a_file_is_damaged(own_home, recordings, caplog) -> None:
    config = make_tiny_config(dataset__record__episodes=1)
    folder = get_or_record(config)
    assert folder == get_or_record(config) == demonstration_folder(config) and len(recordings) == 1
    file = next((folder / "data").rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with caplog.at_level(logging.WARNING, "hilserl.demonstrations"):
        get_or_record(config)
    assert len(recordings) == 2 and "recorded again: a file was changed" in caplog.text
    (folder / "meta" / "info.json").unlink()
    get_or_record(config)
    assert len(recordings) == 3 and Dataset.open(folder).episodes


@pytest.mark.failure("D11")
def test_what_decides_the_recording_decides_its_folder(own_home) -> None:
    config = make_tiny_config()
    folder = demonstration_folder(config)
    assert demonstration_folder(make_tiny_config(policy__utd_ratio=9)) == folder
    for change in (
        {"dataset__record__seed": 7},
        {"task__reach_height_m": 0.05},
        {"robot__control_hz": 20},
        {"observation__privileged": False},
    ):
        assert demonstration_folder(make_tiny_config(**change)) != folder, change


def test_an_expert_that_cannot_do_the_task_stops_the_recording(tmp_path) -> None:
    config = make_tiny_config(task__control_time_s=0.1, task__reach_tolerance_m=0.001)
    with pytest.raises(SimulationError, match=r"failed 6 of 6 attempts at `reach`.*control_time_s"):
        record_demonstrations(config, tmp_path / "demos")
    assert not (tmp_path / "demos").exists()
