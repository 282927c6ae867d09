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
from hilserl.progress import Progress, publish

logger = logging.getLogger(__name__)

STAGE = "train-learner"


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
