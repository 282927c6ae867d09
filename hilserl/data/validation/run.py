"""Compare a dataset with what the run wants, before anything is decoded, and report everything at once.

Each finding says what it would do to learning and what to write into the configuration. Codes are rows
of the project's list of failures.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data import convert, normalize
from hilserl.data import dataset as dataset_module
from hilserl.data.dataset import INDEX_KEYS, Dataset
from hilserl.data.validation import columns, findings, tables
from hilserl.data.validation.columns import check_action, check_done, check_reward, check_state
from hilserl.data.validation.findings import Finding, Severity, ValidationReport
from hilserl.data.validation.tables import check_episodes, check_frames
from hilserl.errors import DatasetError
from hilserl.files import source_hash
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY, policy_schema

__all__ = ["Finding", "ValidationReport", "validate_dataset", "validation_inputs"]

_ORDER: dict[Severity, int] = {"stops": 0, "warns": 1, "informs": 2}


def validate_dataset(config: TrainConfig, root: Path) -> ValidationReport:
    """Check the dataset at `root` against `config`; reads tables and metadata, decodes no video.

    Returns:
        Everything found; call `raise_if_stopped()` to stop on it.
    """
    try:
        dataset = Dataset.open(root)
        dataset.frames, dataset.episodes  # noqa: B018 read both tables: a damaged file is the only thing worth saying then
    except DatasetError as error:
        return ValidationReport(str(root), (Finding("D18", "stops", str(root), str(error)),))
    findings = _keys(config, dataset) + _fps(config, dataset) + _images(config, dataset) + _capacity(config, dataset)
    broken = check_frames(dataset) + check_episodes(dataset)
    positives = None
    # Columns are only worth interpreting where the tables hold together.
    if not broken:
        if STATE_KEY in dataset.frames.columns and STATE_KEY in dataset.features:
            findings += check_state(config, dataset)
        if ACTION_KEY in dataset.frames.columns and ACTION_KEY in dataset.features:
            findings += check_action(config, dataset)
        told, positives = check_reward(config, dataset)
        findings += told + check_done(config, dataset)
    findings += broken
    return ValidationReport(
        str(root),
        tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity])),
        len(dataset.episodes),
        len(dataset.frames),
        dataset.fps,
        positives,
    )


def validation_inputs(config: TrainConfig) -> dict[str, Any]:
    """Return what decides a report besides `offline_buffer_inputs`: the rest of the key of a cached validation."""
    return {
        "code": source_hash(columns, convert, dataset_module, normalize, findings, tables, sys.modules[__name__]),
        "offline_buffer_capacity": config.policy.offline_buffer_capacity,
        "control_hz": config.robot.control_hz,
        "episode_steps": config.episode_steps,
        "cameras": {name: camera.model_dump(mode="json") for name, camera in config.robot.cameras.items()},
    }


def _keys(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D01: every key the policy wants exists, in info.json and in the frames."""
    wanted = [*policy_schema(config).observation, ACTION_KEY]
    findings = []
    for key in wanted:
        if key not in dataset.features:
            near = difflib.get_close_matches(key, [k for k in dataset.features if k not in INDEX_KEYS], n=1, cutoff=0.6)
            remedy = f"did you mean `{near[0]}`?" if near else f"the dataset has {sorted(set(dataset.features) - set(INDEX_KEYS))}"
            if near and key.startswith(IMAGE_PREFIX) and near[0].startswith(IMAGE_PREFIX):
                camera = near[0].removeprefix(IMAGE_PREFIX)
                remedy += f" Then name the camera so: observation: {{images: {{{camera}: ...}}}} and robot: {{cameras: {{{camera}: ...}}}}"
            findings.append(Finding("D01", "stops", "meta/info.json", f"the policy wants `{key}`, the dataset has no such feature", remedy))
        elif dataset.features[key]["dtype"] != "video" and key not in dataset.frames.columns:
            message = f"`{key}` is declared in meta/info.json but is no column of data/"
            findings.append(Finding("D01", "stops", "data/", message, "restore data/, or record it again"))
    unused = [key for key in dataset.camera_keys if key not in wanted]
    if unused:
        findings.append(
            Finding(
                "D01", "informs", "meta/info.json", f"the policy does not use {unused}", "list them under observation.images to use them"
            )
        )
    return findings


def _fps(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    if dataset.fps == config.robot.control_hz:
        return []
    message = (
        f"recorded at {dataset.fps:g} Hz, the policy acts at {config.robot.control_hz:g} Hz: each recorded action would be held "
        f"{dataset.fps / config.robot.control_hz:.2g} times as long as it was"
    )
    remedy = f"robot: {{control_hz: {dataset.fps:g}}}, or record at {config.robot.control_hz:g} Hz"
    return [Finding("D18", "stops", "meta/info.json", message, remedy)]


def _images(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    findings = []
    for name in config.observation.images:
        key = IMAGE_PREFIX + name
        if key not in dataset.features:
            continue
        camera = config.robot.cameras[name]
        shape, dtype = dataset.shape(key), dataset.features[key]["dtype"]
        if dtype != "video":
            message = f"stored as `{dtype}`, this reads encoded video"
            findings.append(Finding("D18", "stops", key, message, "record with video (LeRobot's default)"))
        if shape != (camera.height, camera.width, 3):
            message = (
                f"frames are {shape} (height, width, channels), the robot's camera delivers {(camera.height, camera.width, 3)}: "
                "demonstrations and live frames would be cropped and resized differently"
            )
            remedy = f"robot: {{cameras: {{{name}: {{height: {shape[0]}, width: {shape[1]}}}}}}} if that is what the camera delivers"
            if shape[0] < camera.height:
                remedy += "; otherwise record native frames again: a smaller recording cannot be enlarged (D15)"
            findings.append(Finding("D14", "stops", key, message, remedy))
    return findings


def _capacity(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D10: the offline buffer can hold the dataset; known before anything is decoded."""
    frames, capacity = len(dataset.frames), config.policy.offline_buffer_capacity
    if frames <= capacity:
        return []
    schema = policy_schema(config)
    row_bytes = sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in (*schema.observation.values(), schema.action))
    message = (
        f"the dataset has {frames} transitions = {frames * row_bytes / 1e9:.2f} GB, the offline buffer holds {capacity} = "
        f"{capacity * row_bytes / 1e9:.2f} GB: demonstrations would be thrown away"
    )
    remedy = f"policy: {{offline_buffer_capacity: {2 * frames}}} (demonstrations, and room for as many intervention steps)"
    return [Finding("D10", "stops", "policy.offline_buffer_capacity", message, remedy)]
