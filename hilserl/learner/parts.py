"""What the learner is built from, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hilserl.config.models import TrainConfig
from hilserl.learner.alarms import Alarm
from hilserl.learner.checkpoint import CheckpointFolder
from hilserl.learner.drift import ImageDrift
from hilserl.learner.experience import Experience
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.reporting import Reporter
from hilserl.learner.saver import Saver
from hilserl.learner.schedule import Schedule
from hilserl.learner.statistics import EpisodeStatistics, EvaluationPoint
from hilserl.link.interfaces import LearnerEnd
from hilserl.sac.agent import SacAgent


@dataclass(frozen=True)
class LearnerResult:
    """How the training ended.

    Attributes:
        environment_steps: Training steps.
        updates: Critic updates.
        seconds: Wall time of this process's learning loop [s].
        reason: Why it ended, for a person.
        best: The best evaluation during training, if any was made.
        policy: Folder of the policy to use: the best one, or the last when none was evaluated.
        evaluations: Every evaluation during training, in order.
        history: Metrics over the run, about one entry a second; `step` is the environment step.
        first_update_at: Unix time of this process's first critic update [s]; None if it made none.
        choice: Which policy is used, from which step, and how it was at the end, for a person.
        alarms: Everything that raised an alarm in this process.
    """

    environment_steps: int
    updates: int
    seconds: float
    reason: str
    best: EvaluationPoint | None
    policy: Path
    evaluations: tuple[EvaluationPoint, ...]
    history: tuple[Mapping[str, float], ...]
    first_update_at: float | None
    choice: str = ""
    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True)
class LearnerView:
    """What somebody who watches over the training is told, about once a second.

    Attributes:
        at: `time.monotonic()` of this view [s].
        heard_s: By actor, how long before `at` it was heard [s].
        environment_steps: Training steps.
        updates: Critic updates.
    """

    at: float
    heard_s: Mapping[str, float]
    environment_steps: int
    updates: int


# Returns what the training waits for, for a person, if anything; raises to end it.
Supervise = Callable[[LearnerView], str | None]


@dataclass
class LearnerParts:
    """What the composition root built; the loop owns none of their making."""

    config: TrainConfig
    agent: SacAgent
    experience: Experience
    governor: UtdGovernor
    statistics: EpisodeStatistics
    server: LearnerEnd
    checkpoints: CheckpointFolder
    saver: Saver
    schedule: Schedule
    reporter: Reporter
    identity: Mapping[str, Any]
    frozen_tensors: Mapping[str, Tensor]
    save_policy: Callable[[str, Mapping[str, Tensor], Mapping[str, object]], Path]
    supervise: Supervise
    drift: ImageDrift = field(default_factory=ImageDrift)
