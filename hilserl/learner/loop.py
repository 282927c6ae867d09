"""The learner's main loop: take in experience, do the updates that are owed, publish weights."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from hilserl.config.models import TrainConfig
from hilserl.errors import TrainingError, TransportError
from hilserl.learner.checkpoint import Checkpoint, CheckpointFolder
from hilserl.learner.experience import Experience
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.statistics import EpisodeStatistics, EvaluationPoint
from hilserl.link.ingest import ReceivedRecord
from hilserl.link.interfaces import LearnerEnd
from hilserl.link.messages import EpisodeReport, LearnerStatus, Phase, Step, Weights
from hilserl.progress import Progress, publish
from hilserl.sac.agent import SacAgent

logger = logging.getLogger(__name__)

_IDLE_WAIT_S = 0.02
_REPORT_PERIOD_S = 0.5
_METRIC_PERIOD_S = 1.0
_VERSIONS_KEPT = 64  # weights kept until the evaluation made with them is in
_LEAVE_S = 5.0  # a finished learner takes in what the actors still send for at most this long


class MetricLog(Protocol):
    """Where metrics go."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take values without blocking."""


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
    metrics: MetricLog
    frozen_tensors: Mapping[str, Tensor]
    save_policy: Callable[[str, Mapping[str, Tensor], Mapping[str, object]], Path]
    supervise: Callable[[], None]


class Learner:
    """Owes `utd_ratio` updates per environment step until the training's end is reached."""

    def __init__(self, parts: LearnerParts) -> None:
        self.parts = parts
        self.config = parts.config
        self.best: EvaluationPoint | None = None
        self._published: deque[tuple[int, dict[str, Tensor]]] = deque(maxlen=_VERSIONS_KEPT)
        self._last_metrics: dict[str, Tensor] = {}
        self._history: list[dict[str, float]] = []
        self._first_update_at: float | None = None
        self._saved_at = 0
        self._idle_since: float | None = None  # when a finished learner had paid its debt
        self._gave_q_alarm = False
        self._rates = _Rates()
        self._started = time.monotonic()
        self._timers = {"weights": _Every(self.config.learner.policy_parameters_push_frequency), "report": _Every(_REPORT_PERIOD_S)}
        self._timers |= {"metrics": _Every(_METRIC_PERIOD_S), "supervise": _Every(1.0)}

    def announce(self) -> None:
        """Publish weights and status; before the server starts, so that the first actor is told the truth."""
        self._publish_weights()
        self._set_status("training")

    def run(self) -> LearnerResult:
        """Train until done; `announce` comes first.

        Raises:
            TrainingError: A loss or a weight is not finite.
            TransportError: No actor was heard for `learner.actor_timeout_s`.
        """
        self._started = time.monotonic()
        while not (reason := self.turn()):
            pass
        return self.finish(reason)

    def turn(self) -> str | None:
        """Take in what arrived, do at most one update that is owed, and what is due.

        Returns:
            Why the training is over; None while it is not.
        """
        # Asked before taking in: what an actor sent before it left is then in, and its updates are owed.
        is_alone = not self.parts.server.live_actors()
        self._take_in(wait=self.parts.governor.owed <= 0)
        if self.parts.governor.owed > 0:
            self._update()
        elif (reason := self.finished()) and (is_alone or self._has_waited_for_actors()):
            return reason
        if self._timers["weights"].due() and self._published[-1][0] != self.weights_version_now():
            self._publish_weights()
        if self._timers["report"].due():
            self._report("training")
        if self._timers["metrics"].due():
            self._log_metrics()
        if self._timers["supervise"].due():
            self.parts.supervise()
            self._require_actor()
        if self.parts.governor.environment_steps - self._saved_at >= self.config.learner.save_freq:
            self.save()
        return None

    def weights_version_now(self) -> int:
        """Version that weights published now would have: the number of critic updates behind them, plus one."""
        return self.parts.governor.updates + 1

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: The learning state is not finite; the checkpoint before stays the newest.
            CacheError: The disk is full.
        """
        governor = self.parts.governor
        tensors = self.parts.agent.state_dict()
        self._require_finite(tensors)
        state = {
            "environment_steps": governor.environment_steps,
            "updates": governor.updates,
            "sampler": self.parts.experience.generator.bit_generator.state,
            "training_episodes": self.parts.statistics.training_episodes,
            "evaluations": [vars(point) for point in self.parts.statistics.evaluations],
            "history": self._history,
        }
        self.parts.checkpoints.save(Checkpoint(tensors, state), governor.environment_steps)
        self._saved_at = governor.environment_steps

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; the experience is rebuilt from the journal by `replay`."""
        self.parts.agent.load_state_dict(checkpoint.tensors)
        self.parts.experience.generator.bit_generator.state = dict(checkpoint.state["sampler"])
        self.parts.governor.updates = int(checkpoint.state["updates"])
        self.parts.statistics.evaluations[:] = [EvaluationPoint(**point) for point in checkpoint.state["evaluations"]]
        self._history[:] = checkpoint.state["history"]
        self._saved_at = int(checkpoint.state["environment_steps"])

    def replay(self, records: Iterable[ReceivedRecord]) -> None:
        """Take in what an earlier process of this run had acknowledged, evaluations behind the checkpoint included."""
        known = {point.environment_steps for point in self.parts.statistics.evaluations}
        for received in records:
            if isinstance(received.record, Step):
                self._add_step(received.actor_id, received.record)
            elif not (received.record.evaluation and received.record.environment_steps in known):
                self.parts.statistics.add(received.record)

    def _take_in(self, *, wait: bool) -> None:
        for received in self.parts.server.poll(_IDLE_WAIT_S if wait else 0.0):
            if isinstance(received.record, Step):
                self._add_step(received.actor_id, received.record)
            else:
                self._add_episode(received.record)
        self._set_status("training")

    def _add_step(self, actor_id: str, step: Step) -> None:
        self.parts.experience.add(actor_id, step)
        self.parts.governor.environment_steps += 1

    def _add_episode(self, report: EpisodeReport) -> None:
        point = self.parts.statistics.add(report)
        if point is None:
            return
        self.parts.metrics.log_metrics({"eval/success": point.success_rate}, point.environment_steps)
        # A tie goes to the later policy: it has seen more.
        if self.best is None or point.success_rate >= self.best.success_rate:
            for version, tensors in self._published:
                if version == point.weights_version:
                    self.best = point
                    self.parts.save_policy("best", tensors, {**vars(point), "success_rate": point.success_rate})

    def _update(self) -> None:
        governor = self.parts.governor
        if self._first_update_at is None:
            self._first_update_at = time.time()
        batch = self.parts.experience.sample(self.config.policy.batch_size)
        metrics = self.parts.agent.update(batch, update_actor=governor.updates_actor)
        governor.updates += 1
        self._last_metrics |= metrics

    def finished(self) -> str | None:
        """Say why there is nothing left to do; None while there is."""
        wanted, in_a_row = self.config.actor.stop_at_success, self.config.actor.stop_after_evaluations
        last = self.parts.statistics.evaluations[-in_a_row:]
        if wanted is not None and len(last) == in_a_row and all(point.success_rate >= wanted for point in last):
            return f"{in_a_row} evaluations in a row reached {wanted:.0%} success"
        if self.parts.governor.environment_steps >= self.config.policy.online_steps:
            return f"all {self.config.policy.online_steps} environment steps are done"
        return None

    def fail(self, message: str) -> None:
        """Tell the actors that the training failed: they stop, instead of acting on for nobody."""
        self._set_status("failed", message)

    def _publish_weights(self) -> None:
        tensors = {name: t.detach().cpu().clone() for name, t in self.parts.agent.policy_tensors().items()} | dict(
            self.parts.frozen_tensors
        )
        self._require_finite(tensors)
        version = self.weights_version_now()
        self._published.append((version, tensors))
        self.parts.server.publish_weights(Weights.create(version, {name: tensor.numpy() for name, tensor in tensors.items()}))

    def _require_finite(self, tensors: Mapping[str, Tensor]) -> None:
        broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
        if broken:
            raise self._not_finite(broken[0])

    def _not_finite(self, name: str) -> TrainingError:
        return TrainingError(
            f"`{name}` is not finite after {self.parts.governor.updates} updates. The last checkpoint is from "
            f"{self._saved_at} steps. Lower `policy.critic_lr`, or look for outliers with `hilserl validate`."
        )

    def _has_waited_for_actors(self) -> bool:
        """Whether the actors, told to stop, had time enough to do so."""
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > _LEAVE_S

    def _set_status(self, phase: Phase, message: str = "") -> None:
        governor = self.parts.governor
        reason = self.finished() if phase != "failed" else None
        if reason:
            phase = "finished"  # the actor stops; what it still owes this learner is paid before the loop ends
        elif phase == "training" and governor.environment_steps < governor.steps_before_learning:
            phase = "warming_up"
        self.parts.server.set_status(
            LearnerStatus(
                phase=phase,
                owed_updates=max(0, governor.owed),
                max_owed_updates=self.config.learner.max_owed_updates,
                environment_steps=governor.environment_steps,
                updates=governor.updates,
                weights_version=self._published[-1][0] if self._published else 0,
                message=reason or message,
            )
        )

    def _require_actor(self) -> None:
        if self.finished():
            return  # only debts are paid, for which no actor is needed
        heard = self.parts.server.last_heard_s()
        silent = min(heard.values()) if heard else time.monotonic() - self._started
        if silent > self.config.learner.actor_timeout_s:
            raise TransportError(
                f"no actor was heard for {silent:.0f} s (learner.actor_timeout_s). "
                "Is the actor deployment's worker running on the robot host? Start the run again to continue from the last checkpoint."
            )

    def _report(self, phase: str) -> None:
        governor, statistics = self.parts.governor, self.parts.statistics
        values = statistics.metrics() | self._rates.read(governor)
        values["owed_updates"] = float(max(0, governor.owed))
        if statistics.evaluations:
            values["eval/success"] = statistics.evaluations[-1].success_rate
        publish(
            Progress(
                "train-learner",
                done=min(governor.environment_steps, self.config.policy.online_steps),
                total=self.config.policy.online_steps,
                unit="steps",
                message=phase,
                values=values,
            )
        )

    def _log_metrics(self) -> None:
        values = {name: float(value) for name, value in self._last_metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise self._not_finite(broken[0])
        governor = self.parts.governor
        values |= self._q_alarm(values)
        values |= self.parts.statistics.metrics() | {f"throughput/{name}": value for name, value in self._rates.values.items()}
        values |= {
            "utd/owed": float(max(0, governor.owed)),
            "utd/effective": governor.updates / max(1, governor.environment_steps - governor.steps_before_learning),
            "buffer/online": float(len(self.parts.experience.online)),
            "buffer/offline": float(len(self.parts.experience.offline)),
            "buffer/dropped_steps": float(self.parts.experience.dropped_steps),
        }
        self.parts.metrics.log_metrics(values, governor.environment_steps)
        self._history.append({"step": float(governor.environment_steps), **values})

    def _q_alarm(self, values: Mapping[str, float]) -> dict[str, float]:
        """Compare the mean Q-value with the largest possible return; warns once."""
        bound = self.parts.experience.return_bound.value
        if bound is None or "q/mean" not in values or self.config.policy.use_backup_entropy:  # entropy is no reward, and has no bound
            return {}
        above = values["q/mean"] > bound
        if above and not self._gave_q_alarm:
            self._gave_q_alarm = True
            logger.warning(
                "The mean Q-value is %.3g, above the largest possible return of %.3g: the critic overestimates, and the policy will follow "
                "it. Raise `policy.num_critics` (with `policy.num_subsample_critics: 2`), or lower `policy.utd_ratio`.",
                values["q/mean"], bound,
            )  # fmt: skip
        return {"alarm/q_above_bound": float(above)}

    def finish(self, reason: str) -> LearnerResult:
        """Save everything and say how it went."""
        seconds = time.monotonic() - self._started
        governor = self.parts.governor
        self._set_status("finished")
        self.save()
        tensors = self.parts.agent.policy_tensors() | dict(self.parts.frozen_tensors)
        facts = {"environment_steps": governor.environment_steps, "weights_version": self.weights_version_now()}
        last = self.parts.save_policy("last", {name: tensor.detach().cpu() for name, tensor in tensors.items()}, facts)
        self._log_metrics()
        self._report("finished")
        logger.info("Training ended: %s, %d updates in %.1f s", reason, governor.updates, seconds)
        policy = last.parent / "best" if self.best else last
        return LearnerResult(
            environment_steps=governor.environment_steps,
            updates=governor.updates,
            seconds=seconds,
            reason=reason,
            best=self.best,
            policy=policy,
            evaluations=tuple(self.parts.statistics.evaluations),
            history=tuple(self._history),
            first_update_at=self._first_update_at,
        )


class _Every:
    """True at most once per period."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._next = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._period_s
        return True


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
