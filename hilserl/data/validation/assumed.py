"""A configuration for a dataset that nobody wrote one for yet: what the dataset says of itself, and what had to be assumed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hilserl.config.models import CameraConfig, PolicyConfig, RobotConfig, TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import DatasetError
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_COMPONENTS, STATE_KEY

_POLICY_HEIGHT_PX = 84
_MAX_CONTROL_HZ = 50
_CAMERA_SIZES = range(16, 4097)


@dataclass(frozen=True)
class AssumedConfig:
    """A configuration, and the sentences that say where its values come from."""

    config: TrainConfig
    assumptions: tuple[str, ...]


def assumed_config(root: Path) -> AssumedConfig:
    """Derive a configuration from the metadata of the dataset at `root`; a damaged one leaves defaults."""
    values: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_.-]", "_", root.resolve().name) or "dataset",
        "dataset": {"root": str(root)},
        "observation": {"images": {}},
    }
    said: list[str] = []
    try:
        dataset = Dataset.open(root)
    except DatasetError:
        return AssumedConfig(TrainConfig.model_validate(values), ("nothing: its metadata cannot be read",))
    for part in (_cameras, _rate, _actions, _state, _capacity):
        before = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
        try:
            sentence = part(dataset, values)
            TrainConfig.model_validate(values)
        except (KeyError, TypeError, ValueError, ValidationError):  # metadata that make no sense: validation will say which
            values, sentence = before, f"defaults for the {part.__name__.strip('_')}, since the metadata say nothing usable"
        said.append(sentence)
    said.append("workspace, reset position and step size of the simulated arm; write a configuration to state your own")
    return AssumedConfig(TrainConfig.model_validate(values), tuple(said))


def _cameras(dataset: Dataset, values: dict[str, Any]) -> str:
    cameras, images = {}, {}
    for key in dataset.camera_keys:
        height, width = dataset.shape(key)[:2]
        if height not in _CAMERA_SIZES or width not in _CAMERA_SIZES:
            continue
        name, rows = key.removeprefix(IMAGE_PREFIX), min(_POLICY_HEIGHT_PX, height)
        cameras[name] = CameraConfig(height=height, width=width).model_dump(mode="json")
        images[name] = {"resize": [rows, max(1, round(rows * width / height))]}
    values["observation"]["images"] = images
    if cameras:
        values.setdefault("robot", {})["cameras"] = cameras
    shown = ", ".join(f"{name} {camera['width']}x{camera['height']}" for name, camera in cameras.items())
    return f"cameras {shown}; the policy sees them whole, {_POLICY_HEIGHT_PX} px high" if shown else "no camera"


def _rate(dataset: Dataset, values: dict[str, Any]) -> str:
    if dataset.fps <= _MAX_CONTROL_HZ:
        values.setdefault("robot", {})["control_hz"] = dataset.fps
        return f"control rate {dataset.fps:g} Hz, as recorded"
    values["dataset"]["frame_rate"] = "convert"
    rate = RobotConfig.model_fields["control_hz"].default
    return f"control rate {rate:g} Hz, to which {dataset.fps:g} Hz are converted"


def _actions(dataset: Dataset, values: dict[str, Any]) -> str:
    names = dataset.names(ACTION_KEY)
    values["task"] = {"type": "reach" if names is not None and len(names) == 3 else "lift"}
    if names == LEROBOT_JOINT_NAMES:
        values["dataset"]["action_from"] = "joints"
        return "actions are joint targets in LeRobot's units, to be converted (`dataset.action_from: joints`)"
    return f"actions are the policy's own ({', '.join(names) if names else 'they have no names'})"


def _state(dataset: Dataset, values: dict[str, Any]) -> str:
    names = dataset.names(STATE_KEY) or ()
    parts = [part for part in dict.fromkeys(name.split(".")[0] for name in names) if part in STATE_COMPONENTS]
    if not parts or names == LEROBOT_JOINT_NAMES:
        return "the state is the default one, computed from the joints where it is not recorded"
    values["observation"]["privileged"] = "cube_from_tool" in parts
    values["observation"]["state"] = [part for part in parts if part != "cube_from_tool"]
    return f"the state is {', '.join(parts)}, as recorded"


def _capacity(dataset: Dataset, values: dict[str, Any]) -> str:
    frames = int(dataset.info.get("total_frames") or 0)
    default = PolicyConfig.model_fields["offline_buffer_capacity"].default
    if 2 * frames <= default:
        return f"room for {default} transitions"
    values["policy"] = {"offline_buffer_capacity": 2 * frames}
    return f"room for {2 * frames} transitions, twice the recording"


def with_dataset(config: TrainConfig, root: Path) -> TrainConfig:
    """Return `config`, aimed at the dataset at `root`."""
    dataset = config.dataset.model_copy(update={"root": root, "record": None, "sources": ()})
    return config.model_copy(update={"dataset": dataset})
