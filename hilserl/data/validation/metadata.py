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
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, STATE_KEY

# Statistics are written as JSON from float32 or float64, after images were compressed: vectors are this exact.
_STATS_TOLERANCE = 1e-3
_DAMAGED_STATS_TOLERANCE = 0.1


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
    declared = sum(episode.length for episode in reading.table)
    wrong = {}
    if info.get("total_episodes") != len(reading.table):
        wrong["total_episodes"] = len(reading.table)
    if info.get("total_frames") not in (len(reading.frames), declared):  # Rows that are missing or doubled are told by episode.
        wrong["total_frames"] = len(reading.frames)
    if wrong:
        said = ", ".join(f"{key} is {info.get(key)} where the tables hold {actual}" for key, actual in wrong.items())
        message = f"{said}: the recording was interrupted or edited, and LeRobot's loader would leave episodes out or read past the end"
        remedy = "# in a copy of the dataset, meta/info.json: " + ", ".join(f'"{key}": {actual}' for key, actual in wrong.items())
        findings.append(Finding("D18", "warns", "meta/info.json", message, remedy, "Totals in meta/info.json"))
    splits = info.get("splits")
    for name, span in (splits if isinstance(splits, dict) else {}).items():
        try:
            first, last = (int(part) for part in str(span).split(":"))
            fits = 0 <= first < last <= len(reading.table)
        except ValueError:
            fits = False
        if not fits:
            message = f"split `{name}` is {span!r}, the dataset has episodes 0:{len(reading.table)}: a split would be empty or cut short"
            remedy = f'# in a copy of the dataset, meta/info.json: "splits": {{"{name}": "0:{len(reading.table)}"}}'
            findings.append(Finding("D18", "warns", "meta/info.json", message, remedy, "Totals in meta/info.json"))
    return findings


def _tasks(reading: Reading) -> list[Finding]:
    assert reading.dataset is not None
    path = reading.dataset.root / "meta" / "tasks.parquet"
    try:
        known = set(pl.read_parquet(path, columns=["task_index"])["task_index"].to_list())
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        what = "is missing" if not path.is_file() else f"is not readable ({str(error).splitlines()[0][:200] if str(error) else 'panic'})"
        message = f"{what}: the sentences of the tasks are lost; this policy does not read them, LeRobot's loader does not open without"
        remedy = "# restore meta/tasks.parquet from the recording"
        return [Finding("D18", "warns", "meta/tasks.parquet", message, remedy, "Sentences of the tasks")]
    if "task_index" not in reading.frames.columns:
        return []
    unknown = sorted({int(i) for i in reading.frames["task_index"].unique().drop_nulls()} - known)
    if not unknown:
        return []
    message = f"data/ uses task_index {few(unknown)}, the file knows {few(sorted(known))}: the episodes may be another recording's"
    remedy = "# restore meta/tasks.parquet from the recording that data/ is from"
    return [Finding("D18", "warns", "meta/tasks.parquet", message, remedy, "Sentences of the tasks")]


def _stats(reading: Reading) -> list[Finding]:
    assert reading.dataset is not None
    path, place, title = reading.dataset.root / "meta" / "stats.json", "meta/stats.json", "Statistics in meta/stats.json"
    remedy = "# leave it: training computes its own scaling from the data. For LeRobot, `hilserl dataset keep` writes a copy with new ones"
    if not path.is_file():
        message = "missing; not needed here: the scaling of the state comes from the data"
        return [Finding("D18", "informs", place, message, title=title)]
    try:
        stats = json.loads(path.read_text())
        problems = []
        for key in (STATE_KEY, ACTION_KEY):
            if key in reading.frames.columns and key in stats and reading.complete:
                lost = len(reading.frames) < sum(episode.length for episode in reading.table)
                problem = _differs(reading.frames[key].to_numpy(), stats[key], lost=lost)
                if problem:
                    problems.append(f"`{key}` {problem}")
        if not problems:
            return []
        message = f"{'; '.join(problems)}: the file is from other data or another unit, and a policy scaled by it would see garbage"
        return [Finding("D18", "warns", place, message, remedy, title)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"not readable ({type(error).__name__}: {error}): truncated or edited; whoever scales by it fails"
        return [Finding("D18", "warns", place, message, remedy, title)]


def _differs(values: np.ndarray, stats: dict[str, Any], *, lost: bool) -> str | None:
    """Say where the range of the values is another than the statistics'; where rows were `lost`, only where it is wider."""
    if not np.issubdtype(values.dtype, np.floating):
        return None
    # A damaged row has a finding of its own, and must not hide what the others say; it may have held an extreme.
    sound = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    tolerance = _STATS_TOLERANCE if sound.all() else _DAMAGED_STATS_TOLERANCE
    values = values[sound]
    if not len(values):
        return None
    for name, actual in (("min", values.min(axis=0)), ("max", values.max(axis=0))):
        said = np.asarray(stats[name], np.float64)
        if said.shape != actual.shape:
            return f"has {said.shape} numbers in `{name}`, the data {actual.shape}"
        scale = np.maximum(np.ptp(values, axis=0), 1e-6)
        beyond = said - actual if name == "min" else actual - said
        beyond = beyond if lost else np.abs(beyond)
        bad = np.flatnonzero(~(beyond <= tolerance * np.maximum(scale, np.abs(actual))))
        if len(bad):
            return f"has {name} {said[bad[0]]:.4g} in dimension {bad[0]}, the data {actual[bad[0]]:.4g}"
    return None


def find_drift(config: TrainConfig, dataset: Dataset) -> tuple[Drift, ...]:
    """D20: list what the dataset was recorded with and the configuration says otherwise, but names: D04 and D06 compare those."""
    info, drift = dataset.info, []
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
    return tuple(drift)


def check_drift(config: TrainConfig, drift: tuple[Drift, ...]) -> list[Finding]:
    """D20: tell the differences as a list; those that harm have findings of their own, but the arm."""
    findings = []
    if any(entry.key != "robot.control_hz" for entry in drift):  # The rate alone is told by check_rate.
        message = f"recorded with other settings than this run has ({len(drift)}): " + "; ".join(map(str, drift))
        findings.append(Finding("D20", "informs", "meta/info.json", message))
    for entry in drift:
        if entry.key == "robot.type":
            message = f"recorded with `{entry.dataset}`, this run moves `{entry.config}`: the same joint angles are other positions there"
            remedy = f"# use a recording with `{entry.config}`, or the robot that it was recorded with"
            findings.append(Finding("D20", "warns", "meta/info.json", message, remedy))
    return findings


def _same_arm(recorded: str, configured: str) -> bool:
    # `so101_follower`, `so101_follower_end_effector`, `so101_sim`; the SO-100 has the same joints and links.
    arm = recorded.lower().replace("-", "").replace("_", "").replace("so100", "so101")
    return configured.lower().split("_")[0] in arm
