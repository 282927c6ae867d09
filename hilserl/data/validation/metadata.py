"""The small files of meta/: do they say the same as the data, and the same as the configuration?"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.validation.findings import Drift, Finding, few
from hilserl.data.validation.reading import Reading
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY, policy_schema

# Statistics are written as JSON from float32 or float64, after images were compressed: vectors are this exact.
_STATS_TOLERANCE = 1e-3


def check_metadata(reading: Reading) -> list[Finding]:
    """Compare info.json, stats.json and tasks.parquet with the tables.

    They warn, because training does not use them; other tools do.
    """
    if reading.dataset is None:
        return []
    findings = _tasks(reading)
    if reading.complete and len(reading.frames) and reading.table:
        findings += _totals(reading)
    return findings + _stats(reading)


def _totals(reading: Reading) -> list[Finding]:
    assert reading.dataset is not None
    info, findings = reading.dataset.info, []
    for key, actual in (("total_episodes", len(reading.table)), ("total_frames", len(reading.frames))):
        if info.get(key) != actual:
            message = (
                f"{key} is {info.get(key)}, the tables hold {actual}: the recording was interrupted or edited, and LeRobot's loader "
                "would leave episodes out or read past the end"
            )
            findings.append(Finding("D18", "warns", "meta/info.json", message, f'meta/info.json: "{key}": {actual}'))
    splits = info.get("splits")
    for name, span in (splits if isinstance(splits, dict) else {}).items():
        try:
            first, last = (int(part) for part in str(span).split(":"))
            fits = 0 <= first < last <= len(reading.table)
        except ValueError:
            fits = False
        if not fits:
            message = f"split `{name}` is {span!r}, the dataset has episodes 0:{len(reading.table)}: a split would be empty or cut short"
            remedy = f'meta/info.json: "splits": {{"{name}": "0:{len(reading.table)}"}}'
            findings.append(Finding("D18", "warns", "meta/info.json", message, remedy))
    return findings


def _tasks(reading: Reading) -> list[Finding]:
    assert reading.dataset is not None
    path = reading.dataset.root / "meta" / "tasks.parquet"
    try:
        known = set(pl.read_parquet(path, columns=["task_index"])["task_index"].to_list())
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        what = "is missing" if not path.is_file() else f"is not readable ({str(error).splitlines()[0][:200] if str(error) else 'panic'})"
        message = f"{what}: the sentences of the tasks are lost; this policy does not read them, LeRobot's loader does not open without"
        return [Finding("D18", "warns", "meta/tasks.parquet", message, "restore meta/tasks.parquet from the recording")]
    if "task_index" not in reading.frames.columns:
        return []
    unknown = sorted({int(i) for i in reading.frames["task_index"].unique().drop_nulls()} - known)
    if not unknown:
        return []
    message = f"data/ uses task_index {few(unknown)}, the file knows {few(sorted(known))}: the episodes may be another recording's"
    return [Finding("D18", "warns", "meta/tasks.parquet", message, "restore meta/tasks.parquet from the recording that data/ is from")]


def _stats(reading: Reading) -> list[Finding]:
    assert reading.dataset is not None
    path, place = reading.dataset.root / "meta" / "stats.json", "meta/stats.json"
    remedy = "leave it: training computes its own scaling from the data. For LeRobot: `hilserl dataset keep` writes a copy with new ones"
    if not path.is_file():
        return [Finding("D18", "informs", place, "missing; not needed here: the scaling of the state comes from the data")]
    try:
        stats = json.loads(path.read_text())
        findings = []
        for key in (STATE_KEY, ACTION_KEY):
            if key in reading.frames.columns and key in stats and reading.complete:
                problem = _differs(reading.frames[key].to_numpy(), stats[key])
                if problem:
                    message = f"`{key}` {problem}: the file is from other data or another unit, and a policy scaled by it would see garbage"
                    findings.append(Finding("D18", "warns", place, message, remedy))
        return findings
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"not readable ({type(error).__name__}: {error}): truncated or edited; whoever scales by it fails"
        return [Finding("D18", "warns", place, message, remedy)]


def _differs(values: np.ndarray, stats: dict[str, Any]) -> str | None:
    if not np.issubdtype(values.dtype, np.floating) or not np.isfinite(values).all():
        return None
    for name, actual in (("min", values.min(axis=0)), ("max", values.max(axis=0))):
        said = np.asarray(stats[name], np.float64)
        if said.shape != actual.shape:
            return f"has {said.shape} numbers in `{name}`, the data {actual.shape}"
        scale = np.maximum(np.ptp(values, axis=0), 1e-6)
        bad = np.flatnonzero(~(np.abs(said - actual) <= _STATS_TOLERANCE * np.maximum(scale, np.abs(actual))))
        if len(bad):
            return f"has {name} {said[bad[0]]:.4g} in dimension {bad[0]}, the data {actual[bad[0]]:.4g}"
    return None


def find_drift(config: TrainConfig, dataset: Dataset) -> tuple[Drift, ...]:
    """D20: list what the dataset was recorded with and the configuration says otherwise."""
    info, schema, drift = dataset.info, policy_schema(config), []
    if dataset.fps != config.robot.control_hz:
        drift.append(Drift("robot.control_hz", f"{dataset.fps:g} Hz", f"{config.robot.control_hz:g} Hz"))
    robot = info.get("robot_type")
    if robot is not None and not _same_arm(str(robot), config.robot.type):
        drift.append(Drift("robot.type", str(robot), config.robot.type))
    for name in config.observation.images:
        key, camera = IMAGE_PREFIX + name, config.robot.cameras[name]
        if key not in dataset.features:
            drift.append(Drift(f"robot.cameras.{name}", "not recorded", f"{camera.height}x{camera.width}"))
        elif dataset.shape(key)[:2] != (camera.height, camera.width):
            drift.append(Drift(f"robot.cameras.{name}", "x".join(map(str, dataset.shape(key)[:2])), f"{camera.height}x{camera.width}"))
    for key in dataset.camera_keys:
        if key.removeprefix(IMAGE_PREFIX) not in config.observation.images:
            drift.append(Drift(f"observation.images.{key.removeprefix(IMAGE_PREFIX)}", "recorded", "not used"))
    for key, wanted in ((STATE_KEY, schema.observation[STATE_KEY].names), (ACTION_KEY, config.action_names)):
        if key in dataset.features and dataset.names(key) != wanted:
            names = dataset.names(key)
            drift.append(Drift(key, _short(names) if names else f"{dataset.shape(key)} without names", _short(wanted)))
    return tuple(drift)


def check_drift(config: TrainConfig, drift: tuple[Drift, ...]) -> list[Finding]:
    """D20: tell the differences as a list; those that harm have findings of their own, but the arm."""
    if not drift:
        return []
    findings = []
    message = f"recorded with other settings than this run has ({len(drift)}): " + "; ".join(map(str, drift))
    findings.append(Finding("D20", "informs", "meta/info.json", message))
    for entry in drift:
        if entry.key == "robot.type":
            message = f"recorded with `{entry.dataset}`, this run moves `{entry.config}`: the same joint angles are other positions there"
            remedy = f"dataset: {{root: ...}} of a recording with `{entry.config}`, or the robot that it was recorded with"
            findings.append(Finding("D20", "warns", "meta/info.json", message, remedy))
    return findings


def _same_arm(recorded: str, configured: str) -> bool:
    # `so101_follower`, `so101_follower_end_effector`, `so101_sim`; the SO-100 has the same joints and links.
    arm = recorded.lower().replace("-", "").replace("_", "").replace("so100", "so101")
    return configured.lower().split("_")[0] in arm


def _short(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"[{shown}{', ...' if len(names) > 4 else ''}] ({len(names)})"
