"""What a run left on disk, read for a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from numpy.typing import NDArray

from hilserl.errors import ConfigError
from hilserl.files import home

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run.

    Attributes:
        folder: Where it lies.
        summary: What `publish-report` wrote; empty while the run trains.
        facts: `run.json`.
        settings: The resolved configuration, nested.
        history: The learner's metrics, one entry a report, each with `step`.
        evaluation: The evaluation at the end; empty where there was none.
    """

    folder: Path
    summary: Mapping[str, Any]
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]
    evaluation: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run's folder; what is not there yet is empty.

        Raises:
            ConfigError: It is no run's folder.
        """
        if not (folder / "run.json").is_file():
            raise ConfigError(f"{folder} is no run: there is no run.json in it. `ls {home() / 'runs'}` shows the runs of this machine.")
        settings = folder / "resolved.yaml"
        return cls(
            folder,
            _json(folder / "summary.json"),
            _json(folder / "run.json"),
            yaml.safe_load(settings.read_text(encoding="utf-8")) if settings.is_file() else {},
            tuple(_lines(folder / "history.jsonl")),
            _json(folder / "evaluation" / "evaluation.json"),
        )

    @property
    def run_id(self) -> str:
        """Its name."""
        return str(self.facts.get("run_id", self.folder.name))

    def curve(self, name: str) -> tuple[Array, Array]:
        """Return steps and values of one metric, shape (n,) each; empty where it was never reported."""
        points = [(entry["step"], entry[name]) for entry in self.history if name in entry and np.isfinite(entry[name])]
        steps, values = zip(*points, strict=True) if points else ((), ())
        return np.array(steps, dtype=np.float64), np.array(values, dtype=np.float64)

    def last(self, name: str) -> float | None:
        """Return the last value of a metric."""
        _, values = self.curve(name)
        return float(values[-1]) if len(values) else None

    def setting(self, name: str) -> Any:
        """Return a setting by its dotted name; None where there is none."""
        value: Any = self.settings
        for part in name.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value

    @property
    def starts(self) -> list[tuple[float, float, bool]]:
        """Where the object lay at the start of the evaluation's episodes, base frame x and y [m], and whether they succeeded."""
        known = [episode for episode in self.evaluation.get("played", ()) if episode.get("cube_m")]
        return [(float(episode["cube_m"][0]), float(episode["cube_m"][1]), bool(episode["success"])) for episode in known]

    @property
    def outcomes(self) -> dict[int, bool]:
        """Success of the evaluation's episodes, by the seed of their start; empty where success is not known."""
        evaluation = self.evaluation
        if played := evaluation.get("played"):
            return {} if evaluation.get("successes") is None else {int(episode["seed"]): bool(episode["success"]) for episode in played}
        if not evaluation or evaluation.get("successes") is None:
            return {}
        first, failed = int(evaluation["seed"]), set(evaluation["failed_seeds"])
        return {seed: seed not in failed for seed in range(first, first + int(evaluation["episodes"]))}


def find_run(name: str) -> Path:
    """Return the folder of a run: a folder, a run's id, or the newest run of that name.

    Raises:
        ConfigError: There is none.
    """
    folder = Path(name).expanduser()
    if (folder / "run.json").is_file():
        return folder
    runs = home() / "runs"
    ids = [path.parent for path in runs.glob("*/*/run.json") if f"{path.parent.parent.name}-{path.parent.name}" == name]
    found = ids or sorted((path.parent for path in (runs / name).glob("*/run.json")), key=lambda path: path.stat().st_mtime)
    if not found:
        known = sorted({path.parent.parent.name for path in runs.glob("*/*/run.json")})
        raise ConfigError(
            f"there is no run `{name}` in {runs}. There are runs of {', '.join(known) or 'nothing'}; a folder or a run's id works too."
        )
    return found[-1]


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(
            f"{file} is damaged ({error}). The rest of the run is untouched; move the file away to go on without it."
        ) from None
    return value if isinstance(value, dict) else {}


def _lines(file: Path) -> list[dict[str, float]]:
    """Read JSON lines; one that is being written, or was cut short, is left out."""
    if not file.is_file():
        return []
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int | float):
            entries.append({key: value for key, value in entry.items() if isinstance(value, int | float)})
    return entries
