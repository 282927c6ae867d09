"""Composition root of the learner process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from hilserl.config.models import TrainConfig
from hilserl.data.declared import declared_normalizer
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CheckpointError, TrainingError, TransportError
from hilserl.learner.alarms import Alarm, Alarms
from hilserl.learner.checkpoint import CheckpointFolder
from hilserl.learner.drift import ImageDrift
from hilserl.learner.experience import Experience
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.history import MetricHistory
from hilserl.learner.identity import check_identity, describe
from hilserl.learner.keeper import restore_experience
from hilserl.learner.loop import Learner, LearnerParts, LearnerResult, MetricLog
from hilserl.learner.parts import Supervise
from hilserl.learner.provenance import provenance
from hilserl.learner.reporting import Reporter
from hilserl.learner.saver import Saver
from hilserl.learner.schedule import Schedule
from hilserl.learner.statistics import EpisodeStatistics, EvaluationPoint
from hilserl.learner.trial import choose_for_run
from hilserl.link.auth import read_token
from hilserl.link.ingest import ReceivedRecord
from hilserl.link.interfaces import LearnerEnd
from hilserl.link.messages import Handshake
from hilserl.link.server import LinkServer
from hilserl.policy import Policy, PolicyArchitecture, read_policy_manifest, save_policy
from hilserl.pretraining import load_encoders
from hilserl.runs import RunFolder
from hilserl.sac.agent import SacAgent
from hilserl.sac.networks import StateScaling
from hilserl.schema import policy_schema
from hilserl.vision.encoder import Encoder, Vision
from hilserl.vision.pretrained import load_pretrained

logger = logging.getLogger(__name__)

_SAME_PORT_S = 5.0  # for a predecessor that is just dying

OnAlarms = Callable[[Sequence[Alarm]], None]


class JournaledEnd(LearnerEnd, Protocol):
    """A learner's end that remembers what it acknowledged."""

    def replay_journal(self, after: int = 0) -> Iterator[ReceivedRecord]:
        """Yield the records that an earlier process of this run acknowledged, in order, behind place `after`."""


def run_learner(
    config: TrainConfig,
    run: RunFolder,
    *,
    offline_buffer: Path | None,
    encoders: Path | None,
    metrics: MetricLog,
    on_listening: Callable[[str], None] = lambda address: None,
    supervise: Supervise = lambda view: None,
    on_alarms: OnAlarms = lambda alarms: None,
) -> LearnerResult:
    """Train until the configured end, continuing `run` from its newest checkpoint.

    Args:
        config: The run's configuration.
        run: Its folder.
        offline_buffer: Folder of the offline buffer; None where there are no demonstrations.
        encoders: Folder of the pretrained encoders; None for a state-only policy or an encoder trained from scratch.
        metrics: Where metrics go.
        on_listening: Called with `host:port` when the actor may connect; not called when there is nothing left to do.
        supervise: Called about once a second with how it stands; raises to end the training (a dead actor, say).
        on_alarms: Called with every alarm so far when one is raised or cleared; must not block.

    Raises:
        HilserlError: Any of the tree; a checkpoint was written before unless there was nothing to save.
    """
    torch.set_num_threads(config.learner.torch_threads)
    with run.locked():
        server = LinkServer(
            config.link,
            token=None if config.link.tls else read_token(run.token_file),
            handshake=_handshake(config, run),
            schema=policy_schema(config),
            journal_folder=run.learner_journal,
        )
        try:
            learner = build_learner(
                config,
                run,
                server,
                offline_buffer=offline_buffer,
                encoders=encoders,
                metrics=metrics,
                supervise=supervise,
                on_alarms=on_alarms,
            )
            try:
                learner.announce()
                address = _listen(server, config, run)
                run.update(status="training", link_port=int(address.rpartition(":")[2]))
                if not learner.finished():
                    on_listening(address)
                result = learner.run()
            except BaseException as error:
                learner.fail(str(error) or type(error).__name__)
                # Whatever ended the loop, what was learned so far is kept; a failing save must not hide the cause.
                _save_after_failure(learner)
                raise
            finally:
                learner.close()
        finally:
            server.stop(grace_s=3.0)
        run.update(status="trained", environment_steps=result.environment_steps, updates=result.updates, policy=str(result.policy))
        return result


def _listen(server: LinkServer, config: TrainConfig, run: RunFolder) -> str:
    """Start to listen where an earlier process of this run did, so that its actor finds this one by itself."""
    before = run.facts().get("link_port")
    if config.link.port or not isinstance(before, int):
        return server.start()
    deadline = time.monotonic() + _SAME_PORT_S
    while True:
        try:
            return server.start(before)
        except TransportError as error:
            if time.monotonic() > deadline:
                logger.warning("This run's earlier port cannot be used; an actor that still acts for it will be replaced. %s", error)
                return server.start()
            time.sleep(0.25)


def build_learner(
    config: TrainConfig,
    run: RunFolder,
    server: JournaledEnd,
    *,
    offline_buffer: Path | None,
    encoders: Path | None,
    metrics: MetricLog,
    supervise: Supervise,
    on_alarms: OnAlarms = lambda alarms: None,
) -> Learner:
    """Build the parts, and restore them from the newest checkpoint and the journal."""
    architecture = PolicyArchitecture.from_config(config)
    preprocessor = Preprocessor.from_config(config)
    demonstrations = None if offline_buffer is None else OfflineBuffer.open(offline_buffer)
    normalizer = declared_normalizer(config) if demonstrations is None else demonstrations.normalizer
    scaling = StateScaling(torch.from_numpy(normalizer.center), torch.from_numpy(normalizer.half_range))
    networks = _encoders(config, architecture, encoders)
    frozen = Vision(networks if config.encoder.freeze else {}).requires_grad_(False)
    if networks:
        logger.info(
            "The encoders are %s",
            f"frozen: features of {config.encoder.stored_views} randomly shifted views are stored once a step"
            if config.encoder.freeze and config.encoder.stored_views > 1
            else "frozen: features are stored once a step, and images are not shifted at random"
            if config.encoder.freeze
            else "trained with the critic, on randomly shifted images",
        )
    agent = SacAgent(
        config.policy,
        architecture.input_spec(),
        scaling,
        {} if config.encoder.freeze else networks,
        seed=config.seed,
        device=config.learner.device,
        precision=config.learner.precision,
    )
    identity = describe(config, agent, demonstrations, frozen)
    run.update(provenance=provenance(identity, demonstrations, config.learner.device))
    checkpoints = CheckpointFolder(run.checkpoints, config.learner.keep_checkpoints)
    checkpoint = checkpoints.load_newest(lambda found: check_identity(found, identity))

    def make_experience() -> Experience:
        experience = Experience(config, architecture, frozen, seed=config.seed)
        if demonstrations is not None:
            experience.add_demonstrations(demonstrations)
        experience.attach_store(run.experience)
        return experience

    def save(name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> Path:
        folder = run.path / "policy" / name
        save_policy(folder, architecture, preprocessor, tensors, {"run_id": run.run_id, "task": config.task_name, **facts})
        return folder

    experience, lost = restore_experience(make_experience, checkpoint, server.replay_journal) if checkpoint else (make_experience(), None)
    learner = Learner(
        LearnerParts(
            config=config,
            agent=agent,
            experience=experience,
            governor=UtdGovernor(config.policy.utd_ratio, config.policy.online_step_before_learning),
            statistics=EpisodeStatistics(config.actor.evaluate_episodes, by_return=not config.judges_success),
            server=server,
            checkpoints=checkpoints,
            saver=Saver(),
            schedule=Schedule(run.schedule),
            reporter=Reporter(metrics, MetricHistory(run.history), Alarms(config, agent.target_entropy), on_alarms),
            identity=identity,
            frozen_tensors={f"vision.{name}": tensor for name, tensor in frozen.state_dict().items()},
            save_policy=save,
            supervise=supervise,
            drift=ImageDrift.from_demonstrations(demonstrations),
        )
    )
    if checkpoint is not None:
        learner.keeper.restore(checkpoint)
    governor = learner.parts.governor
    updates = config.policy.utd_ratio * max(0, config.policy.online_steps - config.policy.online_step_before_learning) - governor.updates
    choose_for_run(config, run, agent, architecture, updates=updates)
    learner.best.point = _saved_best(run)
    learner.intake.replay(server.replay_journal, is_exact=agent.device.type == "cpu", lost=lost)
    if checkpoint is not None:
        logger.info(
            "Continuing %s from %s: %d environment steps, %d updates, and %d steps of the journal",
            run.run_id, checkpoint.folder, learner.parts.governor.environment_steps, learner.parts.governor.updates,
            learner.intake.steps_to_replay,
        )  # fmt: skip
    return learner


def _encoders(config: TrainConfig, architecture: PolicyArchitecture, folder: Path | None) -> dict[str, Encoder]:
    """Load the pretrained encoders, or make new ones that are to be trained."""
    if architecture.cameras and config.encoder.type == "pretrained":
        return load_pretrained(config.encoder, architecture.cameras)
    if folder is None:
        if architecture.cameras and config.encoder.type == "sim_pretrained":
            raise TrainingError(
                "`encoder.type` is `sim_pretrained`, and no pretrained encoders were given: a random one would be used in their place. "
                "Pretrain them first, or set `encoder.type: cnn` and `encoder.freeze: false`."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return architecture.encoders()
    networks: dict[str, Encoder] = dict(load_encoders(folder))
    if networks.keys() != architecture.cameras.keys():
        raise TrainingError(
            f"{folder}: encoders of {sorted(networks)}, the policy uses {sorted(architecture.cameras)}. Pretrain them again."
        )
    return networks


def _saved_best(run: RunFolder) -> EvaluationPoint | None:
    """Read which evaluation the saved best policy is from; the policy on disk is the truth, whatever the checkpoint's age."""
    try:
        facts = read_policy_manifest(run.best_policy)["facts"]
        return EvaluationPoint(**{field.name: facts[field.name] for field in fields(EvaluationPoint)})
    except (CheckpointError, KeyError) as error:
        if run.best_policy.exists():
            logger.warning("%s is not used: %s", run.best_policy, error)
        return None


def _handshake(config: TrainConfig, run: RunFolder) -> Handshake:
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    return Handshake(run_id=run.run_id, schema_hash=policy_schema(config).hash(), architecture_hash=policy.architecture_hash)


def _save_after_failure(learner: Learner) -> None:
    if not learner.parts.governor.updates and not learner.keeper.cloning_steps:
        return
    try:
        learner.keeper.save()
    except Exception:
        logger.exception("The checkpoint after the failure could not be written; the one before it is kept")
