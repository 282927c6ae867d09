"""Tables of a run's page: what it was made from, what it cost, and how safely and punctually the arm moved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilserl.files import home
from hilserl.report.record import RunRecord

_NOT_A_REASON = ("robot", "saved_at", "saved_at_monotonic_s", "ticks", "seconds", "clips", "last_tick")

Rows = Sequence[Sequence[str]]


def data_rows(record: RunRecord) -> Rows:
    """What was learned from: datasets with roles and sizes, rewarded episodes, hashes."""
    made: dict[str, Any] = record.facts.get("provenance") or {}
    if not made:
        return []
    rows: list[Sequence[str]] = [("dataset", "shows", "episodes", "frames", "weight")]
    rows += [
        (str(each["root"]), str(each["role"]), f"{each['episodes']:,}", f"{each['rows']:,}", f"{each['weight']:g}") for each in made["data"]
    ]
    if not made["data"]:
        rows.append(("none: everything came from the arm", "", "", "", ""))
    else:
        rows.append(("usable transitions", "", f"{made['positives']} rewarded", f"{made['transitions']:,}", ""))
    return rows


def cost_rows(record: RunRecord) -> Rows:
    """What a person and the arm gave: robot minutes, frames of help, demonstrations."""
    hz = record.setting("robot.control_hz") if record.setting("env") is None else None
    steps = record.summary.get("environment_steps") or (record.history[-1]["step"] if record.history else 0)
    made: dict[str, Any] = record.facts.get("provenance") or {}

    def minutes(frames: float) -> str:
        return f"{frames:,.0f} frames" + (f", {frames / hz / 60:.1f} min at {hz:g} Hz" if hz else "")

    rows: list[Sequence[str]] = [("what", "how much"), ("training on the arm", minutes(steps))]
    for name, metric in (
        ("of it by a human", "cost/human_frames"),
        ("evaluations during training", "cost/evaluation_frames"),
        ("episodes", "cost/episodes"),
    ):
        if (value := record.last(metric)) is not None:
            rows.append((name, f"{value:,.0f}" if metric == "cost/episodes" else minutes(value)))
    if (called := record.last("judge/rewarded_total")) and (wrong := record.last("judge/wrongly_rewarded_total")) is not None:
        rows.append(("rewarded episodes that were none", f"{wrong:,.0f} of {called:,.0f} ({wrong / called:.0%}), as the simulation knows"))
    demonstrated = sum(each["rows"] for each in made.get("data", ()))
    if demonstrated:
        rows.append(("demonstrations", minutes(demonstrated)))
    if (seconds := record.summary.get("learning_seconds")) is not None:
        rows.append(("learning, wall time of the last process", f"{seconds / 60:.1f} min"))
    return rows


def safety_rows(record: RunRecord) -> Rows:
    """What stopped the training and the arm, and how punctual the control loop was."""
    rows: list[Sequence[str]] = [("what", "")]
    rows.append(("the training ended because", str(record.summary.get("ended_because", "it goes on, or was interrupted"))))
    alarms = record.summary.get("alarms", [])
    standing = [alarm["name"] for alarm in alarms if alarm.get("cleared_step") is None]
    rows.append(("alarms", f"{len(alarms)} raised; standing at the end: {', '.join(standing) or 'none'}" if alarms else "none"))
    if backs := record.last("eval/roll_backs"):
        rows.append(
            ("rolled back to the best policy", f"{backs:.0f} times (`learner.on_regression: {record.setting('learner.on_regression')}`)")
        )
    for name, metric, unit in (
        ("steps that began late", "control/late_share", "share"),
        ("longest control period of the last episodes", "control/longest_period_ms", "ms"),
        ("oldest observation acted on, last episodes", "control/observation_age_ms", "ms"),
        ("pictures against the demonstrations'", "drift/images", "standard deviations"),
    ):
        if (value := record.last(metric)) is not None:
            rows.append((name, f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g} {unit}"))
    rows += _black_boxes(record)
    return rows


def _black_boxes(record: RunRecord) -> list[Sequence[str]]:
    """What took the arm down while the run was made, where its black box lies on this host."""
    if record.setting("robot.type") in (None, "so101_sim") or record.setting("env") is not None:
        said = "simulated: it has no black box, so what a person stopped or held is not known here"
        return [("the arm", said)] if record.setting("env") is None else []
    robot = str(record.setting("robot.id"))
    begun, ended = _seconds(record.folder / "resolved.yaml"), _seconds(record.folder / "run.json")
    found = [file for file in sorted((home() / "black-box").glob(f"{robot}-*.json")) if begun <= _seconds(file) <= ended + 60]
    if not found:
        return [(f"the arm `{robot}`", "nothing took it down, as far as this host knows (`hilserl doctor` on its own host knows more)")]
    return [(f"the arm `{robot}` was taken down", f"{_why(file)} ({file.name})") for file in found]


def _seconds(file: Path) -> float:
    return file.stat().st_mtime if file.is_file() else 0.0


def _why(file: Path) -> str:
    try:
        saved = json.loads(file.read_text())
    except (OSError, ValueError):
        return "its record cannot be read"
    return "; ".join(f"{key} {value}" for key, value in saved.items() if key not in _NOT_A_REASON)
