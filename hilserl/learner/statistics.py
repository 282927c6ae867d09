"""What the episodes say: rolling training statistics and the evaluations made during training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hilserl.learner.actors import ActorStatistics
from hilserl.link.messages import EpisodeReport


@dataclass(frozen=True)
class EvaluationPoint:
    """Result of one evaluation during training.

    Attributes:
        environment_steps: Training steps at which it was made.
        weights_version: Weights that acted.
        successes: Episodes that succeeded.
        episodes: Episodes played.
        mean_return: Mean sum of rewards of an episode.
        by_return: The environment knows no success: policies are compared by their return.
    """

    environment_steps: int
    weights_version: int
    successes: int
    episodes: int
    mean_return: float = 0.0
    by_return: bool = False

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeeded."""
        return self.successes / self.episodes

    @property
    def score(self) -> float:
        """What policies are compared by: more is better."""
        return self.mean_return if self.by_return else self.success_rate

    @property
    def shown(self) -> str:
        """The score, for a person."""
        return f"mean return {self.mean_return:.4g}" if self.by_return else f"{self.success_rate:.0%}"


@dataclass
class ReturnBound:
    """The largest discounted return that the rewards seen so far allow: no Q-value can honestly be above it.

    A reward that always ends its episode is paid once; any other may be paid at every step.

    Attributes:
        discount: Per control step.
        largest_reward: Largest reward seen; 0 before the first positive one.
        ends_episodes: Whether every positive reward came with a termination.
        stated: The bound, where the reward's definition says it.
    """

    discount: float
    largest_reward: float = 0.0
    ends_episodes: bool = True
    stated: float | None = None

    def add(self, reward: float, *, terminated: bool) -> None:
        """Take the reward of one transition."""
        if reward > 0:
            self.largest_reward = max(self.largest_reward, reward)
            self.ends_episodes &= terminated

    @property
    def value(self) -> float | None:
        """The bound; None before the first positive reward, when nothing can be said."""
        if self.stated is not None:
            return self.stated
        if not self.largest_reward:
            return None
        return self.largest_reward if self.ends_episodes else self.largest_reward / (1.0 - self.discount)


@dataclass
class EpisodeStatistics:
    """Rolling means over the last `window` training episodes, and completed evaluations."""

    evaluate_episodes: int
    window: int = 20
    by_return: bool = False
    evaluations: list[EvaluationPoint] = field(default_factory=list)
    training_episodes: int = 0
    roll_backs: list[int] = field(default_factory=list)
    """Environment steps at which the learner went back to its best."""
    costs: dict[str, int] = field(default_factory=lambda: {"human_frames": 0, "evaluation_frames": 0, "episodes": 0})
    """Over the whole run."""
    judged: dict[str, int] = field(default_factory=lambda: {"rewarded": 0, "wrongly_rewarded": 0})
    """Training episodes over the whole run that a classifier or a person called a success, where the simulation knows the truth."""

    def __post_init__(self) -> None:
        self._recent: deque[EpisodeReport] = deque(maxlen=2 * self.window)  # and those before, for the trend
        self._rewarded: deque[bool] = deque(maxlen=self.window)  # whether wrongly, of those in `judged`
        self._pending: dict[str, list[EpisodeReport]] = {}  # by actor
        self.actors = ActorStatistics(by_return=self.by_return)

    @property
    def pending_versions(self) -> set[int]:
        """Weights that an actor is evaluating now."""
        return {reports[0].weights_version for reports in self._pending.values()}

    def add(self, report: EpisodeReport, actor_id: str = "", environment_steps: int | None = None) -> EvaluationPoint | None:
        """Take one episode; return an evaluation when this one completed it.

        Args:
            report: Of the episode.
            actor_id: Who played it.
            environment_steps: Of all actors together; where there are several, an evaluation counts as made now.
        """
        self.actors.add_episode(actor_id, report)
        self.costs["human_frames"] += report.intervention_steps
        self.costs["evaluation_frames"] += report.length if report.evaluation else 0
        self.costs["episodes"] += not report.evaluation
        if not report.evaluation:
            self.training_episodes += 1
            self._recent.append(report)
            if report.is_success and report.true_success is not None:
                self._rewarded.append(not report.true_success)
                self.judged["rewarded"] += 1
                self.judged["wrongly_rewarded"] += not report.true_success
            return None
        reports = self._pending.setdefault(actor_id, [])
        if reports and not _go_together(reports, report):  # that evaluation was interrupted
            reports.clear()
        reports.append(report)
        if len(reports) < self.evaluate_episodes:
            return None
        del self._pending[actor_id]
        at = report.environment_steps if environment_steps is None or len(self.actors) == 1 else environment_steps
        successes = sum(r.is_success for r in reports)
        point = EvaluationPoint(at, report.weights_version, successes, len(reports), _mean(r.return_ for r in reports), self.by_return)
        self.evaluations.append(point)
        return point

    def state(self) -> dict[str, Any]:
        """Return everything, JSON-serialisable; restored by `load_state`."""
        return {
            "evaluations": [asdict(point) for point in self.evaluations],
            "training_episodes": self.training_episodes,
            "roll_backs": list(self.roll_backs),
            "costs": dict(self.costs),
            "judged": dict(self.judged),
            "rewarded": list(self._rewarded),
            "recent": [asdict(report) for report in self._recent],
            "pending": {actor: [asdict(report) for report in reports] for actor, reports in self._pending.items()},
            "actors": self.actors.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.evaluations[:] = [EvaluationPoint(**point) for point in state["evaluations"]]
        self.training_episodes = int(state["training_episodes"])
        self.roll_backs[:] = [int(step) for step in state.get("roll_backs", ())]
        self.costs |= {name: int(count) for name, count in state.get("costs", {}).items()}
        self.judged |= {name: int(count) for name, count in state.get("judged", {}).items()}
        self._rewarded.clear()
        self._rewarded.extend(bool(wrong) for wrong in state.get("rewarded", ()))
        self._recent.clear()
        self._recent.extend(EpisodeReport(**report) for report in state["recent"])
        self._pending = {actor: [EpisodeReport(**report) for report in reports] for actor, reports in state["pending"].items()}
        self.actors.load_state(state.get("actors", {}))

    def metrics(self) -> dict[str, float]:
        """Return the rolling means, empty before the first episode.

        Success only where there is such a thing; `success_autonomous` counts only episodes without intervention; steps, not episodes, weigh
        the intervention rate; its trend is against the same number of episodes before. `judge/wrongly_rewarded` is the share of the last
        `window` episodes called a success that were none, where a simulation knows better than the judge.
        """
        if not self._recent:
            return {}
        recent, before = list(self._recent)[-self.window :], list(self._recent)[: -self.window]
        alone = [r for r in recent if not r.intervention_steps]
        values = {} if self.by_return else {"episode/success": _mean(r.is_success for r in recent)}
        values |= {
            "episode/return": _mean(r.return_ for r in recent),
            "episode/length": _mean(r.length for r in recent),
            "intervention/rate": _intervention_rate(recent),
            **{f"cost/{name}": float(count) for name, count in self.costs.items()},
        }
        if self._rewarded:
            values |= {
                "judge/wrongly_rewarded": _mean(self._rewarded),
                "judge/wrongly_rewarded_total": float(self.judged["wrongly_rewarded"]),
            }
            values["judge/rewarded_total"] = float(self.judged["rewarded"])
        if len(before) == self.window:
            values["intervention/trend"] = _intervention_rate(recent) - _intervention_rate(before)
        if alone and not self.by_return:
            values["episode/success_autonomous"] = _mean(r.is_success for r in alone)
        if paced := [r for r in recent if r.longest_period_s]:
            values |= {
                "control/late_share": sum(r.late_steps for r in paced) / max(1, sum(r.length for r in paced)),
                "control/longest_period_ms": 1e3 * max(r.longest_period_s for r in paced),
                "control/observation_age_ms": 1e3 * max(r.observation_age_s for r in paced),
            }
        return values


def _intervention_rate(reports: Sequence[EpisodeReport]) -> float:
    """Return the share of steps in which a human acted."""
    return sum(report.intervention_steps for report in reports) / max(1, sum(report.length for report in reports))


def _go_together(reports: Sequence[EpisodeReport], report: EpisodeReport) -> bool:
    """Whether an episode belongs to the same evaluation, by the same weights, and is not one of its episodes once more."""
    first = reports[0]
    is_same = (first.environment_steps, first.weights_version) == (report.environment_steps, report.weights_version)
    return is_same and all(earlier.episode != report.episode for earlier in reports)


def _mean(values: Iterable[float]) -> float:
    items = [float(value) for value in values]
    return sum(items) / len(items)
