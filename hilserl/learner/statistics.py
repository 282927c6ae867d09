"""What the episodes say: rolling training statistics and the evaluations made during training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hilserl.link.messages import EpisodeReport


@dataclass(frozen=True)
class EvaluationPoint:
    """Result of one evaluation during training.

    Attributes:
        environment_steps: Training steps at which it was made.
        weights_version: Weights that acted.
        successes: Episodes that succeeded.
        episodes: Episodes played.
    """

    environment_steps: int
    weights_version: int
    successes: int
    episodes: int

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeeded."""
        return self.successes / self.episodes


@dataclass
class EpisodeStatistics:
    """Rolling means over the last `window` training episodes, and completed evaluations."""

    evaluate_episodes: int
    window: int = 20
    evaluations: list[EvaluationPoint] = field(default_factory=list)
    training_episodes: int = 0

    def __post_init__(self) -> None:
        self._recent: deque[EpisodeReport] = deque(maxlen=self.window)
        self._pending: dict[int, list[EpisodeReport]] = {}

    def add(self, report: EpisodeReport) -> EvaluationPoint | None:
        """Take one episode; return an evaluation when this one completed it."""
        if not report.evaluation:
            self.training_episodes += 1
            self._recent.append(report)
            return None
        reports = self._pending.setdefault(report.environment_steps, [])
        reports.append(report)
        if len(reports) < self.evaluate_episodes:
            return None
        del self._pending[report.environment_steps]
        successes = sum(r.is_success for r in reports)
        point = EvaluationPoint(report.environment_steps, report.weights_version, successes, len(reports))
        self.evaluations.append(point)
        return point

    def metrics(self) -> dict[str, float]:
        """Return the rolling means, empty before the first episode.

        `success_autonomous` counts only episodes without intervention; steps, not episodes, weigh
        the intervention rate.
        """
        if not self._recent:
            return {}
        recent = list(self._recent)
        alone = [r for r in recent if not r.intervention_steps]
        values = {
            "episode/success": _mean(r.is_success for r in recent),
            "episode/return": _mean(r.return_ for r in recent),
            "episode/length": _mean(r.length for r in recent),
            "intervention/rate": sum(r.intervention_steps for r in recent) / max(1, sum(r.length for r in recent)),
        }
        if alone:
            values["episode/success_autonomous"] = _mean(r.is_success for r in alone)
        return values


def _mean(values: Iterable[float]) -> float:
    items = [float(value) for value in values]
    return sum(items) / len(items)
