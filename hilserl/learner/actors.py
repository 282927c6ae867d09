"""What each actor does: its episodes, its pace, and how old the weights are that it acts with."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hilserl.link.messages import EpisodeReport

_VERSIONS_KEPT = 4096
_RATE_POINTS = 12


@dataclass
class _Actor:
    episodes: int = 0
    steps: int = 0
    recent: deque[EpisodeReport] = field(default_factory=lambda: deque(maxlen=20))
    points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RATE_POINTS))
    version: int | None = None
    weights_age_s: float | None = None


class ActorStatistics:
    """One account per actor; their names in metrics are `actor/<id>/...`, or `actor/...` where there is one actor alone."""

    def __init__(self, *, by_return: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_return = by_return
        self._clock = clock
        self._actors: dict[str, _Actor] = {}
        self._published: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._actors)

    def add_step(self, actor_id: str) -> None:
        """Count one training step."""
        self._actors.setdefault(actor_id, _Actor()).steps += 1

    def add_episode(self, actor_id: str, report: EpisodeReport) -> None:
        """Take one episode, of training or evaluation."""
        actor = self._actors.setdefault(actor_id, _Actor())
        actor.version = report.weights_version
        published_at = self._published.get(report.weights_version)
        actor.weights_age_s = None if published_at is None else self._clock() - published_at
        if not report.evaluation:
            actor.episodes += 1
            actor.recent.append(report)

    def publish(self, version: int) -> None:
        """Note when weights were published."""
        self._published[version] = self._clock()
        if len(self._published) > _VERSIONS_KEPT:
            self._published.popitem(last=False)

    def metrics(self, heard_s: Mapping[str, float]) -> dict[str, float]:
        """Return what is known of each actor.

        Args:
            heard_s: How long ago each was heard [s].

        `weights_age_s` is that of the weights at the end of its last episode; `version_lag` says how many critic updates lie
        between them and the newest ones.
        """
        values: dict[str, float] = {}
        newest = next(reversed(self._published), 0)
        for actor_id, actor in self._actors.items():
            name = f"actor/{actor_id}/" if len(self._actors) > 1 else "actor/"
            actor.points.append((self._clock(), actor.steps))
            (began, before), (now, steps) = actor.points[0], actor.points[-1]
            values |= {f"{name}episodes": float(actor.episodes), f"{name}steps": float(actor.steps)}
            if now > began:
                values[f"{name}steps_per_s"] = (steps - before) / (now - began)
            if actor_id in heard_s:
                values[f"{name}last_heard_s"] = heard_s[actor_id]
            if actor.version is not None and newest:
                values[f"{name}version_lag"] = float(newest - actor.version)
            if actor.weights_age_s is not None:
                values[f"{name}weights_age_s"] = actor.weights_age_s
            if actor.recent and len(self._actors) > 1:  # of one actor alone it is what `episode/...` says
                values |= {f"{name}{key}": value for key, value in self._episodes(actor).items()}
        return values

    def _episodes(self, actor: _Actor) -> dict[str, float]:
        count = len(actor.recent)
        values = {
            "return": sum(report.return_ for report in actor.recent) / count,
            "intervention_rate": sum(r.intervention_steps for r in actor.recent) / max(1, sum(r.length for r in actor.recent)),
        }
        return values if self._by_return else values | {"success": sum(report.is_success for report in actor.recent) / count}

    def state(self) -> dict[str, Any]:
        """Return the counts, JSON-serialisable; restored by `load_state`."""
        return {actor_id: {"episodes": actor.episodes, "steps": actor.steps} for actor_id, actor in self._actors.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._actors = {actor_id: _Actor(**counts) for actor_id, counts in state.items()}
