"""What benchmarks/chaos.py saw, as limits, a table and JSON."""

from __future__ import annotations

import json
import sqlite3
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hilserl.errors import HilserlError
from hilserl.learner import checkpoint as checkpoints
from hilserl.policy import Policy


@dataclass
class Kill:
    """One kill and what came of it.

    Attributes:
        kind: What was killed.
        at_s: Since the start of the training [s].
        acting_s: Until an actor journaled new records [s]; None: it never did.
        steps_s: Until the learner had new records [s].
        updates_s: Until the learner had done new updates [s]; seen once a second.
        back_s: Until every process was there again [s].
        lost: Records that an actor journaled and the learner never got.
    """

    kind: str
    at_s: float
    acting_s: float | None = None
    steps_s: float | None = None
    updates_s: float | None = None
    back_s: float | None = None
    lost: int = 0

    @property
    def went_on(self) -> bool:
        return None not in (self.acting_s, self.steps_s, self.updates_s, self.back_s)


@dataclass
class Report:
    """Everything that was seen."""

    commit: str
    seed: int
    seconds: float = 0.0
    environment_steps: int = 0
    updates: int = 0
    kills: list[Kill] = field(default_factory=list)
    waiting: int = 0  # in the actor's journal when everything was stopped: sent when the training is continued
    lost: int = 0
    different: int = 0
    twice: int = 0
    damaged_files: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    metric_points: tuple[int, int] = (0, 0)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    disk: dict[str, dict[str, float]] = field(default_factory=dict)
    flow_runs: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    def problems(self) -> list[str]:
        """Say which limits were missed."""
        found = [f"did not go on by itself: {asdict(kill)}" for kill in self.kills if not kill.went_on]
        found += [f"{self.lost} records lost"] if self.lost else []
        found += [f"{self.different} records of the learner are not what an actor journaled"] if self.different else []
        found += [f"{self.twice} records are twice in the learner's journal"] if self.twice else []
        found += [f"torn: {file}" for file in self.damaged_files]
        found += [f"left over: {process}" for process in self.left_over]
        found += [f"`hilserl up` ended with code {self.exit_code}"] if self.exit_code else []
        return found


def torn_files(folder: Path) -> list[str]:
    """Load what the run left behind; name what cannot be loaded."""
    torn = []
    kept = checkpoints.CheckpointFolder(folder / "checkpoints", keep=1_000_000)
    for path in kept.complete():
        try:
            checkpoints.load_checkpoint(path)
        except HilserlError as error:
            torn.append(str(error))
    for path in (folder / "policy").glob("*/policy.json"):
        try:
            Policy.load(path.parent)
        except HilserlError as error:
            torn.append(str(error))
    for path in (folder / "run.json", *folder.rglob("*.jsonl")):
        try:
            for line in [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines():
                json.loads(line)
        except (OSError, ValueError) as error:
            torn.append(f"{path}: {error}")
    return torn


def metric_points(database: Path, history: Path) -> tuple[int, int]:
    """Count the seconds of which MLflow has metrics, and those of which the learner's own file has."""
    in_file = len({json.loads(line)["step"] for line in history.read_text().splitlines()}) if history.exists() else 0
    if not database.exists():
        return 0, in_file
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        (in_mlflow,) = connection.execute("select count(distinct step) from metrics where key = 'utd/done'").fetchone()
    finally:
        connection.close()
    return in_mlflow, in_file


def describe(kill: Kill) -> str:
    times = {"acting": kill.acting_s, "steps": kill.steps_s, "updates": kill.updates_s, "all back": kill.back_s}
    return ", ".join(f"{name} {'NEVER' if value is None else f'{value:.1f} s'}" for name, value in times.items()) + f"; lost {kill.lost}"


def table(report: Report) -> str:
    """The table of docs/reliability.md."""
    lines = [
        "| killed | times | acting after [s] | new steps at the learner [s] | new updates [s] | all processes back [s] | records lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(kill.kind for kill in report.kills):
        kills = [kill for kill in report.kills if kill.kind == kind]
        columns = [_spread([getattr(kill, name) for kill in kills]) for name in ("acting_s", "steps_s", "updates_s", "back_s")]
        lines.append(f"| {kind} | {len(kills)} | {' | '.join(columns)} | {sum(kill.lost for kill in kills)} |")
    return "\n".join(lines)


def _spread(values: list[float | None]) -> str:
    """Median and largest."""
    known = [value for value in values if value is not None]
    text = f"{statistics.median(known):.1f}, at most {max(known):.1f}" if known else "–"
    return text if len(known) == len(values) else f"{text}; {len(values) - len(known)} never"


def show(report: Report) -> None:
    print(f"\n{table(report)}\n")
    print("A time is seen to 0.1 s (updates: 1 s) and is 0.5 s at least: what was on its way when the process died is not counted.")
    print(f"{report.environment_steps:,} environment steps, {report.updates:,} updates, {report.seconds / 60:.1f} min; {report.commit}")
    print(f"records: {report.waiting} waiting at the end, {report.lost} lost, {report.different} altered, {report.twice} doubled")
    print(f"torn files: {len(report.damaged_files)}")
    print(f"metrics: MLflow has {report.metric_points[0]} points, the learner's own file {report.metric_points[1]}")
    half = len(report.evaluations) // 2
    if half:
        first, second = (statistics.mean(rate for _, rate in part) for part in (report.evaluations[:half], report.evaluations[half:]))
        print(f"success in {len(report.evaluations)} evaluations: first half {first:.0%}, second half {second:.0%}")
    for name, values in report.memory.items():
        print(
            f"memory {name:15} at most {values['largest_mb']:6.0f} MB; "
            f"the longest-lived process ({values['longest_life_s']:.0f} s) grew by {values['growth_mb_per_h']:+.1f} MB/h in its second half"
        )
    for name, values in report.disk.items():
        print(f"disk   {name:18} {values['mb']:8.2f} MB, {values['growth_mb_per_h']:+.1f} MB/h")
    for run in report.flow_runs:
        print(f"flow run {run['flow']:6} {run['name']:28} {run['state']:10} attempts {run['attempts']}  {run['message'][:100]}")
