"""Train in one process: the same learner and the same actor, in lockstep, without a thread or a socket.

After every environment step the learner does the updates that the step owes, and the policy acts on
with their result. Nothing depends on the clock, so equal seeds give equal weights, bit for bit (on one
device, with `learner.execution: eager`). There is no journal: an interrupted run starts anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hilserl.actor.loop import Actor, ActorResult, as_tensors
from hilserl.actor.run import human_of
from hilserl.config.gymnasium_spaces import resolve_environment
from hilserl.config.models import TrainConfig
from hilserl.data.buffer_build import get_or_build
from hilserl.data.interfaces import SuccessJudge
from hilserl.data.preprocess import Preprocessor
from hilserl.demonstrations import get_or_record
from hilserl.environments.make import make_environment
from hilserl.environments.named_classifier import check_classifier, resolve_success
from hilserl.errors import CheckpointError, ConfigError
from hilserl.files import home
from hilserl.joints import RobotJointConverter
from hilserl.learner.loop import Learner, LearnerResult, MetricLog
from hilserl.learner.run import build_learner
from hilserl.link.ingest import LinkLoad, ReceivedRecord
from hilserl.link.messages import EpisodeReport, LearnerStatus, Record, Step, Weights
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.pretraining import get_or_pretrain, resolve_encoder
from hilserl.runs import RunFolder

logger = logging.getLogger(__name__)

_ACTOR = "in-process"

AfterStep = Callable[[int, Policy], None]


@dataclass(frozen=True)
class TrainingResult:
    """What a training in one process left.

    Attributes:
        learned: The learner's side: policy folder, evaluations, metrics.
        acted: The actor's side: episodes and interventions.
        run: Folder of the run.
    """

    learned: LearnerResult
    acted: ActorResult
    run: Path


class NoMetrics:
    """Forgets metrics; `LearnerResult.history` keeps about one entry a second anyway."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Do nothing."""


def train_in_process(
    config: TrainConfig,
    *,
    metrics: MetricLog | None = None,
    after_step: AfterStep = lambda steps, policy: None,
    should_stop: Callable[[], str | None] = lambda: None,
) -> TrainingResult:
    """Train from demonstrations (made or found as configured) to the configured end.

    All of the configuration counts but what concerns processes: `actor.pace`, `link`, and the pushing of
    weights, since the policy has the newest weights at every step.

    Args:
        config: The run's configuration.
        metrics: Where metrics go.
        after_step: Called with the environment steps done and the policy: at 0, and after each step's updates.
            It may act with the policy (in an environment of its own), and must not change it.
        should_stop: Asked every step; a text ends the training in good order.

    Raises:
        HilserlError: Any of the tree.
    """
    torch.set_num_threads(config.learner.torch_threads)
    config = resolve_success(resolve_encoder(resolve_environment(config)))
    check_classifier(config)  # before demonstrations are recorded
    offline_buffer, encoders = prepare(config)
    environment = make_environment(config)  # first: one that cannot be made leaves no folder of a run
    try:
        return _train(config, environment, offline_buffer, encoders, metrics or NoMetrics(), after_step, should_stop)
    finally:
        environment.close()


def _train(
    config: TrainConfig,
    environment: Any,
    offline_buffer: Path | None,
    encoders: Path | None,
    metrics: MetricLog,
    after_step: AfterStep,
    should_stop: Callable[[], str | None],
) -> TrainingResult:
    run, _ = RunFolder.open(config, fresh=True)
    run.update(identity=None)  # without a journal, no command may continue it
    link = LockstepLink()
    with run.locked():
        learner = build_learner(
            config, run, link, offline_buffer=offline_buffer, encoders=encoders, metrics=metrics, supervise=lambda view: None
        )
        try:
            policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
            link.join(learner, policy, after_step)
            unhurried = config.actor.model_copy(update={"pace": "unthrottled"})
            at_once = config.model_copy(update={"actor": unhurried})
            with human_of(at_once, environment) as human:
                acted = Actor(at_once, environment, human, policy, link, should_stop).run()
            learned = learner.finish(link.end_reason or acted.reason)
        except BaseException:
            run.update(status="failed")
            raise
        finally:
            learner.close()
        run.update(status="finished", environment_steps=learned.environment_steps, updates=learned.updates, policy=str(learned.policy))
    return TrainingResult(learned, acted, run.path)


def prepare(config: TrainConfig) -> tuple[Path | None, Path | None]:
    """Make, or find in the caches, what training starts from.

    Returns:
        Folder of the offline buffer where there are demonstrations, and of the pretrained encoders where the policy needs them.
    """
    if config.env is not None:
        return None, None
    dataset = get_or_record(config)
    pretrained = bool(config.observation.images) and config.encoder.type == "sim_pretrained"
    encoders = get_or_pretrain(config) if pretrained else None
    manifest, _, reason = get_or_build(config, dataset, home() / "buffers", RobotJointConverter(config), load_judge=_load_judge)
    logger.info("Offline buffer: %s", reason)
    return manifest.folder, encoders


class LockstepLink:
    """Both ends of the link, joined: a step that is sent is learned from before `send_step` returns."""

    def __init__(self) -> None:
        self.end_reason: str | None = None
        self._status = LearnerStatus()
        self._inbox: list[ReceivedRecord] = []
        self._received = 0
        self._published = 0
        self._first: Weights | None = None

    def join(self, learner: Learner, policy: Policy, after_step: AfterStep) -> None:
        """Connect the two: the policy gets the learner's weights now, and after every step."""
        self._learner, self._policy, self._after_step = learner, policy, after_step
        learner.announce()
        assert self._first is not None
        policy.load_tensors(as_tensors(self._first.tensors), self._first.version)
        after_step(learner.parts.governor.environment_steps, policy)

    # The learner's end.

    def poll(self, timeout_s: float) -> list[ReceivedRecord]:
        """Return what was sent since; never waits, since nothing can arrive meanwhile."""
        records, self._inbox = self._inbox, []
        return records

    def publish_weights(self, weights: Weights) -> None:
        """Note which weights the learner keeps a copy of; the policy has them already, or gets them by `join`."""
        self._first = self._first or weights
        self._published = weights.version

    def set_status(self, status: LearnerStatus) -> None:
        """Take the status; what is owed is paid before the actor reads it."""
        self._status = replace(status, owed_updates=0)

    def last_heard_s(self) -> dict[str, float]:
        """Return that the actor was heard just now."""
        return {_ACTOR: 0.0}

    def live_actors(self) -> list[str]:
        """Return none: nobody has to be waited for at the end."""
        return []

    def load(self) -> LinkLoad:
        """Return that nothing waits."""
        return LinkLoad()

    def sync_journal(self) -> None:
        """Do nothing: there is no journal."""

    def trim_journal(self, through: int) -> None:
        """Do nothing: there is no journal."""

    def replay_journal(self, after: int = 0) -> Iterator[ReceivedRecord]:
        """Return nothing: there is no journal."""
        return iter(())

    # The actor's end.

    @property
    def status(self) -> LearnerStatus:
        """What the learner last said."""
        return self._status

    @property
    def is_connected(self) -> bool:
        """True: it is the same process."""
        return True

    def send_step(self, step: Step) -> None:
        """Learn from one step, and give the policy the result."""
        self._receive(step)
        self._update_policy()
        self._after_step(self._learner.parts.governor.environment_steps, self._policy)

    def send_episode(self, report: EpisodeReport) -> None:
        """Report an episode; of an evaluation the learner first keeps the weights, to save them if it is the best."""
        if report.evaluation and self._published != report.weights_version:
            self._learner.announce()
        self._receive(report)

    def latest_weights(self) -> Weights | None:
        """Return None: `send_step` has put the newest weights into the policy."""
        return None

    def _receive(self, record: Record) -> None:
        self._received += 1
        self._inbox.append(ReceivedRecord(self._received, _ACTOR, _ACTOR, self._received, record))
        governor = self._learner.parts.governor
        while self._inbox or governor.owed > 0:
            self.end_reason = self._learner.turn()

    @torch.no_grad()
    def _update_policy(self) -> None:
        """Copy the trained tensors over the policy's, in place: no hash, no check, tens of microseconds."""
        theirs = self._learner.parts.agent.policy_tensors()
        mine = self._policy.tensors()  # views of its parameters
        torch._foreach_copy_([mine[name] for name in theirs], list(theirs.values()))
        self._policy.version = self._learner.weights_version_now()


def _load_judge(folder: Path) -> SuccessJudge:
    from hilserl.reward.classifier import SuccessClassifier

    try:
        return SuccessClassifier.load(folder)
    except CheckpointError as error:
        raise ConfigError(f"dataset.classifier: {error}") from error
