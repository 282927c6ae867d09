"""What the page is told once: the `hello` message, and what the console's process needs besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.schema import JOINT_NAMES

PROTOCOL = 1
TAKE_AFTER_S = 10.0
DRIVE_EVERY_MS = 40


def kind_of(config: TrainConfig) -> str:
    """Return `simulation`, `virtual`, `real` or `gymnasium`."""
    if config.env is not None:
        return "gymnasium"
    return "simulation" if config.robot.is_simulated else "real" if config.robot.is_real else "virtual"


def facts_of(config: TrainConfig, *, mode: str, run: str, folder: Path) -> dict[str, Any]:
    """Return what the console's process is told at its start, JSON-serialisable.

    Args:
        config: The run's configuration.
        mode: `train`, `record` or `run`.
        run: What the page calls this run.
        folder: Where frames are in shared memory.
    """
    is_arm = config.env is None
    robot, task = config.robot, config.task
    cameras = {}
    for name, image in config.observation.images.items():
        camera = robot.cameras[name]
        cameras[name] = {"width": camera.width, "height": camera.height, "policy": list(image.resize)}
    hello = {
        "type": "hello",
        "protocol": PROTOCOL,
        "robot": robot.id,
        "run": run or config.name,
        "mode": mode,
        "task": config.task_name,
        "sentence": task.sentence if is_arm else "",
        "actions": list(config.action_names),
        "control_hz": robot.control_hz,
        "kind": kind_of(config),
        "episode_steps": config.episode_steps,
        "cameras": cameras,
        "workspace_min_m": list(robot.workspace_min_m) if is_arm else None,
        "workspace_max_m": list(robot.workspace_max_m) if is_arm else None,
        "cube_x_m": list(task.cube_x_m) if is_arm else None,
        "cube_y_m": list(task.cube_y_m) if is_arm else None,
        "joints": list(JOINT_NAMES) if is_arm else [],
        "take_after_s": TAKE_AFTER_S,
        "drive_every_ms": DRIVE_EVERY_MS,
    }
    return {
        "hello": hello,
        "frames": str(folder),
        "console": config.console.model_dump(mode="json"),
        "safety": robot.safety.model_dump(mode="json"),
    }
