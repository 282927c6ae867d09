"""Demonstrations by the scripted expert in simulation, as a real LeRobotDataset."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.models import RecordConfig, SuccessConfig, TrainConfig
from hilserl.errors import ConfigError, DatasetError, SimulationError
from hilserl.files import content_hash, file_lock, home, source_hash, write_json
from hilserl.progress import Progress, publish
from hilserl.schema import STATE_KEY

logger = logging.getLogger(__name__)

STAGE = "record-demonstrations"
_MAX_FAILED_SHARE = 0.5


def demonstration_inputs(config: TrainConfig) -> dict[str, Any]:
    """Return everything that decides the recording, by name."""
    import hilserl.data.writer as writer
    from hilserl.robot import codec, kinematics, least_squares, state, units
    from hilserl.sim import appearance, env, expert, privileged, render, scene

    return {
        "code": source_hash(appearance, env, expert, privileged, render, scene, codec, kinematics, least_squares, state, units, writer),
        "record": _recording(config).model_dump(mode="json"),
        "task": config.task.model_dump(mode="json", exclude={"success"}),
        **({"discount": config.policy.discount} if config.task.reward == "shaped" else {}),
        "robot": config.robot.scene_facts(),
        **({"bus": _bus_inputs(config)} if config.robot.virtual is not None else {}),
        "observation": {
            "images": sorted(config.observation.images),
            "state": list(config.observation.state),
            "privileged": config.observation.privileged,
        },
    }


def _bus_inputs(config: TrainConfig) -> dict[str, Any]:
    """Return what a motion through a virtual servo bus depends on besides the scene."""
    from hilserl.robot import arm, calibration, environment, limits, servo_settings, trips
    from hilserl.virtual_arm import arm as virtual
    from hilserl.virtual_arm import motion, motor, plant, servo, settings

    robot = config.robot.model_dump(mode="json", exclude={"id", "host", "cameras", "port", "calibration_dir"})
    return {
        "code": source_hash(arm, calibration, environment, limits, servo_settings, trips, virtual, motion, motor, plant, servo, settings),
        "robot": robot,
    }


def demonstration_folder(config: TrainConfig) -> Path:
    """Return where the demonstrations that this configuration records are kept."""
    return home() / "datasets" / f"{config.dataset.repo_id.replace('/', '-')}-{content_hash(demonstration_inputs(config))}"


def get_or_record(config: TrainConfig) -> Path | None:
    """Return the folder of the demonstrations, recording them first where the configuration says so; None where it names several."""
    if config.dataset.record is None:
        return config.dataset.root
    folder = demonstration_folder(config)
    with file_lock(folder.with_name(f"{folder.name}.lock")):
        if problems := verify_recording(folder):
            if folder.exists():
                logger.warning("The demonstrations in %s are recorded again: %s", folder, "; ".join(problems))
                shutil.rmtree(folder)
            record_demonstrations(config, folder)
            write_json(_seal(folder), {"content_hash": _content(folder)})
    return folder


def verify_recording(folder: Path) -> list[str]:
    """Say why a recording of ours cannot be used; empty when its files are those that were recorded."""
    if not folder.exists():
        return [f"{folder.name} does not exist yet"]
    try:
        recorded = json.loads(_seal(folder).read_text())["content_hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{_seal(folder).name} cannot be read ({error!r})"]
    try:
        return [] if _content(folder) == recorded else ["a file was changed, added or removed after the recording"]
    except DatasetError as error:
        return [str(error)]


def _seal(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _content(folder: Path) -> str:
    from hilserl.data.dataset import Dataset

    return Dataset.open(folder).content_hash()


def record_demonstrations(config: TrainConfig, folder: Path) -> None:
    """Let the expert play with noise, and keep its successful episodes.

    Raises:
        SimulationError: More than half of the attempts failed.
    """
    from hilserl.data.writer import EpisodeWriter, policy_features, teleop_features
    from hilserl.robot.units import joints_to_lerobot
    from hilserl.sim.expert import ScriptedExpert

    record = _recording(config)
    teleop = record.flavour == "teleop"
    features = teleop_features(config) if teleop else policy_features(config)
    generator = np.random.default_rng(record.seed)
    environment, expert = _bench(config), ScriptedExpert(config)
    attempts = 0
    try:
        with EpisodeWriter(folder, config.dataset.repo_id, features, config.robot.control_hz) as writer:
            while writer.episodes < record.episodes:
                if attempts - writer.episodes > max(5, _MAX_FAILED_SHARE * record.episodes):
                    raise SimulationError(
                        f"the scripted expert failed {attempts - writer.episodes} of {attempts} attempts at `{config.task.type}`. "
                        "Lower `dataset.record.noise`, or raise `task.control_time_s`."
                    )
                observation, info = environment.reset(seed=record.seed + attempts)
                expert.reset()
                attempts += 1
                ended = False
                while not ended:
                    clean = expert.action(environment.privileged_state)
                    action = np.clip(clean + record.noise * generator.standard_normal(clean.shape), -1, 1).astype(np.float32)
                    joints = environment.privileged_state.joint_pos_rad
                    before = observation
                    observation, reward, terminated, truncated, info = environment.step(action)
                    ended = terminated or truncated
                    if teleop:
                        seen = {key: value for key, value in before.items() if key != STATE_KEY}
                        seen[STATE_KEY] = joints_to_lerobot(joints).astype(np.float32)
                        writer.add_frame(seen, joints_to_lerobot(info["joint_target_rad"]).astype(np.float32), task=config.task.sentence)
                    else:
                        writer.add_frame(before, info["executed_action"], float(reward), task=config.task.sentence)
                if info["is_success"]:
                    writer.save_episode()
                else:
                    writer.discard_episode()
                publish(
                    Progress(
                        STAGE, done=writer.episodes, total=record.episodes, unit="episodes", values={"success": writer.episodes / attempts}
                    )
                )
    finally:
        environment.close()
    logger.info("Recorded %d demonstrations of %s (%d attempts) in %s", record.episodes, config.task.type, attempts, folder)


def _bench(config: TrainConfig) -> Any:
    """Make the environment that the expert knows the truth of: the simulation, or a virtual arm."""
    if config.robot.is_real:
        raise ConfigError(
            f"dataset.record: the scripted expert does not drive a real arm (`robot.type: {config.robot.type}`). Record with "
            "`hilserl record`, and name the folder in `dataset.root`."
        )
    from hilserl.environments.make import make_environment

    # Whoever judges the policy: of its own demonstrations the expert keeps what truly succeeded.
    task = config.task.model_copy(update={"success": SuccessConfig()})
    return make_environment(config.model_copy(update={"task": task}))


def _recording(config: TrainConfig) -> RecordConfig:
    assert config.dataset.record is not None
    return config.dataset.record
