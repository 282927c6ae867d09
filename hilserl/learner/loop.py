"""The learner's main loop: take in experience, do the updates that are owed, publish weights, save."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from hilserl.errors import TrainingError, TransportError
from hilserl.learner.best import BestPolicy, describe_choice
from hilserl.learner.intake import Intake
from hilserl.learner.keeper import Keeper, not_finite
from hilserl.learner.parts import LearnerParts, LearnerResult, LearnerView
from hilserl.learner.regression import Regression, find_regression, reason_to_end, roll_back
from hilserl.learner.regression import metrics as regression_metrics
from hilserl.learner.reporting import MetricLog, first_not_finite, read_scalars
from hilserl.link.messages import EpisodeReport, FrozenTensors, LearnerAlarm, LearnerStatus, Phase, Step, Weights

__all__ = ["Learner", "LearnerParts", "LearnerResult", "MetricLog"]

logger = logging.getLogger(__name__)

_REPORT_PERIOD_S = 0.5
_METRIC_PERIOD_S = 1.0
_LEAVE_S = 5.0  # a finished learner takes in what the actors still send for at most this long
_GENERATION = 10**9  # versions of one generation; above it, the next one's begin


class Learner:
    """Owes `utd_ratio` updates per environment step until the training's end is reached."""

    def __init__(self, parts: LearnerParts) -> None:
        self.parts = parts
        self.config = parts.config
        self.best = BestPolicy()
        self.intake = Intake(parts.server, parts.schedule, parts.governor)
        self.keeper = Keeper(parts, self.intake, self.best)
        self._frozen = FrozenTensors.create({name: tensor.numpy() for name, tensor in parts.frozen_tensors.items()})
        self._last_metrics: dict[str, Tensor] = {}
        self._first_update_at: float | None = None
        self._idle_since: float | None = None  # when a finished learner had paid its debt
        self._waits_for = ""
        self._regression: Regression | None = None  # to be answered
        self._cannot_roll_back: str | None = None
        self._started = time.monotonic()
        self._timers = {"weights": _Every(self.config.learner.policy_parameters_push_frequency), "report": _Every(_REPORT_PERIOD_S)}
        self._timers |= {"metrics": _Every(_METRIC_PERIOD_S), "supervise": _Every(1.0)}

    def announce(self) -> None:
        """Publish weights and status; before the server starts, so that the first actor is told the truth.

        Raises:
            TrainingError: Cloning the demonstrations' behaviour, which comes first, gave numbers that are not finite.
        """
        self._clone_behaviour()
        self._require_finite(self.parts.frozen_tensors)
        self._publish_weights()
        self._set_status("training")

    def run(self) -> LearnerResult:
        """Train until done; `announce` comes first.

        Raises:
            TrainingError: A loss or a weight is not finite.
            TransportError: No actor was heard for `learner.actor_timeout_s`.
            CheckpointError: No checkpoint could be written for a long time.
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
        elif not self.intake.is_replaying and (reason := self.finished()) and (is_alone or self._has_waited_for_actors()):
            return reason
        if self._timers["weights"].due() and self.best.newest_version != self.weights_version_now():
            self._publish_weights()
        if self._timers["report"].due():
            self._report(self._waits_for or self.parts.reporter.bottleneck or "training")
        if self._timers["metrics"].due():
            self._log_metrics()
        if self._timers["supervise"].due():
            self._supervise()
            self._require_actor()
        self.keeper.save_if_due()
        return None

    def _update(self) -> None:
        governor = self.parts.governor
        if self._first_update_at is None:
            self._first_update_at = time.time()
        batch = self.parts.experience.sample(self.config.policy.batch_size)
        bound = self.parts.experience.return_bound.value
        self._last_metrics |= self.parts.agent.update(batch, update_actor=governor.updates_actor, return_bound=bound)
        governor.updates += 1
        if (version := self.weights_version_now()) in self.intake.replayed_versions:
            self.best.keep_evaluated(version, self._copy_policy())

    def _clone_behaviour(self) -> None:
        """Do the updates of behaviour cloning that are still to be done, on demonstrations only."""
        wanted, keeper = self.config.policy.bc_steps, self.keeper
        if keeper.cloning_steps >= wanted or self.parts.governor.updates:
            return
        logger.info("Cloning the behaviour of the demonstrations: %d updates", wanted - keeper.cloning_steps)
        while keeper.cloning_steps < wanted:
            batch = self.parts.experience.sample_demonstrations(self.config.policy.batch_size)
            self._last_metrics |= self.parts.agent.clone_behaviour(batch)
            keeper.cloning_steps += 1
            if self._timers["report"].due():
                self._report(f"cloning the demonstrations: {keeper.cloning_steps:,} of {wanted:,} updates")
            if self._timers["metrics"].due():
                self._log_metrics()
            if self._timers["supervise"].due():
                self._supervise()
        keeper.save()

    def _take_in(self, *, wait: bool) -> None:
        for received in self.intake.take(wait=wait):
            if isinstance(received.record, Step):
                self.parts.experience.add(received.actor_id, received.record)
                self.parts.drift.add(received.record.observation, received.record.step)
                self.parts.governor.environment_steps += 1
                self.parts.statistics.actors.add_step(received.actor_id)
            else:
                self._add_episode(received.actor_id, received.record)
        if self._regression is not None:
            found, self._regression = self._regression, None
            self._answer_regression(found)
        self._set_status("training")

    def _add_episode(self, actor_id: str, report: EpisodeReport) -> None:
        if report.evaluation:
            self.best.hold(report.weights_version)
        statistics = self.parts.statistics
        if point := statistics.add(report, actor_id, self.parts.governor.environment_steps):
            self.parts.reporter.log_evaluation(point)
            self.best.take(point, statistics.pending_versions)
            self._regression = find_regression(statistics.evaluations)

    def _answer_regression(self, found: Regression) -> None:
        """Say loudly that training went past its best, and do what the configuration says about it."""
        wanted, statistics = self.config.learner.on_regression, self.parts.statistics
        logger.error("Training went on past its best: %s. `learner.on_regression` is `%s`.", found, wanted)
        if wanted != "roll_back" or reason_to_end(wanted, statistics.evaluations, statistics.roll_backs):
            return
        if problem := roll_back(self.parts, self.keeper, self.best, found):
            self._cannot_roll_back = f"training went on past its best, and could not be rolled back ({problem}): {found}"

    def weights_version_now(self) -> int:
        """Version that weights published now would have: the number of critic updates behind them, plus one."""
        return self.parts.schedule.generation * _GENERATION + self.parts.governor.updates + 1

    def _copy_trained(self) -> dict[str, Tensor]:
        return {name: t.detach().cpu().clone() for name, t in self.parts.agent.policy_tensors().items()}

    def _copy_policy(self) -> dict[str, Tensor]:
        return self._copy_trained() | dict(self.parts.frozen_tensors)

    def _publish_weights(self) -> None:
        trained = self._copy_trained()
        self._require_finite(trained)
        version = self.weights_version_now()
        self.intake.note_moment()  # before anybody has them: a resumed learner gives this version to no others
        self.best.publish(version, trained | dict(self.parts.frozen_tensors))
        self.parts.statistics.actors.publish(version)
        arrays = {name: tensor.numpy() for name, tensor in trained.items()}
        self.parts.server.publish_weights(Weights.create(version, arrays, self._frozen))

    def _require_finite(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise self._not_finite(name)

    def finished(self) -> str | None:
        """Say why there is nothing left to do but to pay what is owed; None while there is."""
        wanted, in_a_row = self.config.actor.stop_at_success, self.config.actor.stop_after_evaluations
        last = self.parts.statistics.evaluations[-in_a_row:]
        statistics, on_regression = self.parts.statistics, self.config.learner.on_regression
        if ending := self._cannot_roll_back or reason_to_end(on_regression, statistics.evaluations, statistics.roll_backs):
            return ending
        if wanted is not None and len(last) == in_a_row and all(point.success_rate >= wanted for point in last):
            return f"{in_a_row} evaluations in a row reached {wanted:.0%} success"
        if self.parts.governor.environment_steps + self.intake.steps_to_replay >= self.config.policy.online_steps:
            return f"all {self.config.policy.online_steps} environment steps are done"
        return None

    def fail(self, message: str) -> None:
        """Tell the actors that the training failed: they stop, instead of acting on for nobody."""
        self._set_status("failed", message)

    def _set_status(self, phase: Phase, message: str = "") -> None:
        governor = self.parts.governor
        environment_steps = governor.environment_steps + self.intake.steps_to_replay
        reason = self.finished() if phase != "failed" else None
        if reason:
            phase = "finished"  # the actor stops; what it still owes this learner is paid before the loop ends
        elif phase == "training" and environment_steps < governor.steps_before_learning:
            phase = "warming_up"
        self.parts.server.set_status(
            LearnerStatus(
                phase=phase,
                owed_updates=max(0, governor.owed_after(self.intake.steps_to_replay)),
                max_owed_updates=self.config.learner.max_owed_updates,
                environment_steps=environment_steps,
                updates=governor.updates,
                weights_version=self.best.newest_version,
                message=reason or message,
                alarms=tuple(LearnerAlarm(alarm.name, alarm.message) for alarm in self.parts.reporter.alarms.standing),
            )
        )

    def _report(self, phase: str) -> None:
        values = self.parts.statistics.metrics()
        if self.parts.statistics.evaluations:
            last = self.parts.statistics.evaluations[-1]
            values["eval/return" if last.by_return else "eval/success"] = last.score
        self.parts.reporter.show(self.parts.governor, self.config.policy.online_steps, values, phase)

    def _log_metrics(self) -> None:
        values = read_scalars(self._last_metrics)
        if broken := first_not_finite(values):
            raise self._not_finite(broken)
        experience, evaluations = self.parts.experience, self.parts.statistics.evaluations
        server, limit = self.parts.server, self.config.learner.max_owed_updates
        values |= self.parts.statistics.metrics() | self.parts.statistics.actors.metrics(server.last_heard_s())
        values |= self.parts.reporter.read_flow(self.parts.governor, limit, self.intake.waited_s, server.load())
        values |= {
            "buffer/online": float(len(experience.online)),
            "buffer/offline": float(len(experience.offline)),
            "buffer/dropped_steps": float(experience.dropped_steps),
            "checkpoint/failing": float(self.parts.saver.failing is not None),
        }
        bound = experience.return_bound.value
        if bound is not None and not self.config.policy.use_backup_entropy:  # entropy is no reward, and has no bound
            values["q/bound"] = bound
        if self.best.point and evaluations and self.config.judges_success:
            values |= {"eval/best": self.best.point.score, "eval/last": evaluations[-1].score}
        values |= regression_metrics(evaluations, self.parts.statistics.roll_backs) | self.parts.drift.metrics()
        self.parts.reporter.log(self.parts.governor, values)

    def _not_finite(self, name: str) -> TrainingError:
        return not_finite(name, self.parts.governor.updates, self.keeper.saved_at, self.parts)

    def _supervise(self) -> None:
        governor = self.parts.governor
        steps, updates = governor.environment_steps + self.intake.steps_to_replay, governor.updates
        view = LearnerView(time.monotonic(), self.parts.server.last_heard_s(), steps, updates)
        self._waits_for = self.parts.supervise(view) or ""

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

    def _has_waited_for_actors(self) -> bool:
        """Whether the actors, told to stop, had time enough to do so."""
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > _LEAVE_S

    def finish(self, reason: str) -> LearnerResult:
        """Save everything and say how it went."""
        seconds = time.monotonic() - self._started
        governor = self.parts.governor
        self._set_status("finished")
        self._log_metrics()
        self.keeper.save()
        facts = {"environment_steps": governor.environment_steps, "weights_version": self.weights_version_now()}
        last = self.parts.save_policy("last", self._copy_policy(), facts)
        self._report("finished")
        evaluations, best = self.parts.statistics.evaluations, self.best.point
        choice = describe_choice(best, evaluations)
        logger.info("Training ended: %s, %d updates in %.1f s; %s", reason, governor.updates, seconds, choice)
        return LearnerResult(
            environment_steps=governor.environment_steps,
            updates=governor.updates,
            seconds=seconds,
            reason=reason,
            best=best,
            policy=last.parent / "best" if best else last,
            evaluations=tuple(evaluations),
            history=tuple(self.parts.reporter.history.entries),
            first_update_at=self._first_update_at,
            choice=choice,
            alarms=tuple(self.parts.reporter.alarms.raised),
        )

    def close(self) -> None:
        """Wait for the saver's thread, and close what the learner holds open."""
        self.parts.saver.close()
        self.parts.schedule.close()
        self.parts.experience.close()


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
