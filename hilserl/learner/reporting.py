"""What the learner tells: progress for the display, metrics for MLflow, alarms for people."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hilserl.learner.alarms import Alarm, Alarms
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.history import MetricHistory
from hilserl.learner.statistics import EvaluationPoint
from hilserl.link.ingest import LinkLoad
from hilserl.progress import Progress, publish

logger = logging.getLogger(__name__)

STAGE = "train-learner"
_MOSTLY_IDLE = 0.5


class MetricLog(Protocol):
    """Where metrics go."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take values without blocking."""


class Reporter:
    """Reads the metrics from the device, judges them and hands them on; each about once a second."""

    def __init__(self, metrics: MetricLog, history: MetricHistory, alarms: Alarms, on_alarms: Callable[[Sequence[Alarm]], None]) -> None:
        self.history = history
        self.alarms = alarms
        self._metrics = metrics
        self._on_alarms = on_alarms
        self._rates = _Rates()
        self._flow = _Flow()

    @property
    def bottleneck(self) -> str:
        """Which side holds the other up, in one sentence; empty before that is known."""
        return self._flow.sentence

    def read_flow(self, governor: UtdGovernor, max_owed: int, waited_s: float, load: LinkLoad) -> dict[str, float]:
        """Return how much waits between actors and learner, and how much the learner does; see `bottleneck`."""
        return self._flow.read(governor, max_owed, waited_s, load)

    def show(self, governor: UtdGovernor, total_steps: int, values: Mapping[str, float], message: str) -> None:
        """Publish the progress."""
        values = {**values, **self._rates.read(governor), "owed_updates": float(max(0, governor.owed))}
        done = min(governor.environment_steps, total_steps)
        publish(Progress(STAGE, done=done, total=total_steps, unit="steps", message=message, values=values))

    def log_evaluation(self, point: EvaluationPoint) -> None:
        """Log an evaluation at the step where it was made."""
        success = {} if point.by_return else {"eval/success": point.success_rate}
        self._metrics.log_metrics({**success, "eval/return": point.mean_return}, point.environment_steps)

    def log(self, governor: UtdGovernor, values: Mapping[str, float]) -> None:
        """Judge and log one report's values."""
        step = governor.environment_steps
        owing_steps = max(1, step - governor.steps_before_learning)
        values = {**values, **{f"throughput/{name}": value for name, value in self._rates.values.items()}}
        values |= {
            "utd/owed": float(max(0, governor.owed)),
            "utd/done": float(governor.updates),
            "utd/effective": governor.updates / owing_steps,
        }
        states, changes = self.alarms.check(values, step)
        values |= states
        for alarm in changes:
            if alarm.cleared_step is None:
                logger.warning("Alarm `%s` at step %d. %s", alarm.name, alarm.step, alarm.message)
            else:
                logger.warning("Alarm `%s` of step %d is over, at step %d", alarm.name, alarm.step, alarm.cleared_step)
        self._metrics.log_metrics(values, step)
        self.history.append({"step": float(step), **values})
        if changes:
            self._on_alarms(tuple(self.alarms.raised))


def read_scalars(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Bring scalars from the device in one transfer."""
    if not tensors:
        return {}
    stacked = torch.stack([tensor.detach().float().reshape(()) for tensor in tensors.values()])
    return dict(zip(tensors, stacked.tolist(), strict=True))


def first_not_finite(values: Mapping[str, float]) -> str | None:
    """Name the first value that is NaN or infinite."""
    return next((name for name, value in values.items() if not math.isfinite(value)), None)


class _Flow:
    """Who waits for whom."""

    def __init__(self) -> None:
        self.sentence = ""
        self._before = (time.monotonic(), 0.0, 0.0)  # time, time waited, back-pressure

    def read(self, governor: UtdGovernor, max_owed: int, waited_s: float, load: LinkLoad) -> dict[str, float]:
        now = time.monotonic()
        (before, waited_before, held_before), self._before = self._before, (now, waited_s, load.backpressure_s)
        idle_share = min(1.0, max(0.0, (waited_s - waited_before) / (now - before))) if now > before else 0.0
        owed = max(0, governor.owed)
        waiting = f", and {load.queued_records} records wait to be taken in" if load.backpressure_s > held_before else ""
        if load.is_disk_full:
            self.sentence = "the learner's disk is full: nothing is taken in until there is room"
        elif governor.environment_steps <= governor.steps_before_learning:
            self.sentence = ""
        elif owed > max_owed / 2:
            self.sentence = f"the learner is slower than the actors: it owes {owed} updates{waiting}"
        elif waiting:
            self.sentence = f"the learner takes in more slowly than the actors send{waiting}"
        elif idle_share > _MOSTLY_IDLE:
            self.sentence = f"the actors are slower than the learner, which is idle {idle_share:.0%} of the time"
        else:
            self.sentence = "actors and learner keep pace"
        return {
            "learner/idle_share": idle_share,
            "link/queued_records": float(load.queued_records),
            "link/queued_mb": load.queued_bytes / 1e6,
            "link/backpressure_s": load.backpressure_s,
            "link/lag_s": load.lag_s,
            "link/disk_full": float(load.is_disk_full),
        }


class _Rates:
    """Steps and updates per second over the last few reports."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, int]] = deque(maxlen=12)
        self.values: dict[str, float] = {}

    def read(self, governor: UtdGovernor) -> dict[str, float]:
        self._points.append((time.monotonic(), governor.environment_steps, governor.updates))
        (t0, steps0, updates0), (t1, steps1, updates1) = self._points[0], self._points[-1]
        if t1 > t0:
            self.values = {"steps_per_s": (steps1 - steps0) / (t1 - t0), "updates_per_s": (updates1 - updates0) / (t1 - t0)}
        return self.values
