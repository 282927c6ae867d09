"""Composition root of the learner process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hilserl.config.models import TrainConfig
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.data.preprocess import Preprocessor
from hilserl.learner.checkpoint import CheckpointFolder
from hilserl.learner.experience import Experience
from hilserl.learner.governor import UtdGovernor
from hilserl.learner.loop import Learner, LearnerParts, LearnerResult, MetricLog
from hilserl.learner.statistics import EpisodeStatistics
from hilserl.link.auth import read_token
from hilserl.link.messages import Handshake
from hilserl.link.server import LinkServer
from hilserl.policy import Policy, PolicyArchitecture, save_policy
from hilserl.pretraining import load_encoders
from hilserl.runs import RunFolder
from hilserl.sac.agent import SacAgent, Vision
from hilserl.sac.networks import StateScaling
from hilserl.schema import policy_schema

logger = logging.getLogger(__name__)


def run_learner(
    config: TrainConfig,
    run: RunFolder,
    *,
    offline_buffer: Path,
    encoders: Path | None,
    metrics: MetricLog,
    on_listening: Callable[[str], None] = lambda address: None,
    supervise: Callable[[], None] = lambda: None,
) -> LearnerResult:
    """Train until the configured end, continuing `run` from its newest checkpoint.

    Args:
        config: The run's configuration.
        run: Its folder.
        offline_buffer: Folder of the offline buffer.
        encoders: Folder of the pretrained encoders; None for a state-only policy or one trained from scratch.
        metrics: Where metrics go.
        on_listening: Called with `host:port` when the actor may connect; not called when there is nothing left to do.
        supervise: Called about once a second; raises to end the training (a dead actor, say).

    Raises:
        HilserlError: Any of the tree; a checkpoint was written before unless there was nothing to save.
    """
    torch.set_num_threads(config.learner.torch_threads)
    with run.locked():
        server = LinkServer(
            config.link, token=read_token(run.token_file), handshake=_handshake(config, run), journal_folder=run.learner_journal
        )
        try:
            learner = build_learner(
                config, run, server, offline_buffer=offline_buffer, encoders=encoders, metrics=metrics, supervise=supervise
            )
            address = server.start()
            if not learner.finished():
                on_listening(address)
            run.update(status="training")
            try:
                result = learner.run()
            except BaseException:
                # Whatever ended the loop, what was learned so far is kept; a failing save must not hide the cause.
                _save_after_failure(learner)
                raise
        finally:
            server.stop(grace_s=3.0)
        run.update(status="trained", environment_steps=result.environment_steps, updates=result.updates, policy=str(result.policy))
        return result


def build_learner(
    config: TrainConfig,
    run: RunFolder,
    server: LinkServer,
    *,
    offline_buffer: Path,
    encoders: Path | None,
    metrics: MetricLog,
    supervise: Callable[[], None],
) -> Learner:
    """Build the parts, and restore them from the newest checkpoint and the journal."""
    architecture = PolicyArchitecture.from_config(config)
    preprocessor = Preprocessor.from_config(config)
    demonstrations = OfflineBuffer.open(offline_buffer)
    normalizer = demonstrations.normalizer
    scaling = StateScaling(torch.from_numpy(normalizer.center), torch.from_numpy(normalizer.half_range))
    networks = load_encoders(encoders) if encoders else architecture.encoders()
    frozen = Vision(networks if config.encoder.freeze else {}).requires_grad_(False)
    agent = SacAgent(
        config.policy,
        architecture.input_spec(),
        scaling,
        {} if config.encoder.freeze else networks,
        seed=config.seed,
        device=config.learner.device,
    )
    experience = Experience(config, architecture, frozen, seed=config.seed)
    experience.add_demonstrations(demonstrations)

    def save(name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> Path:
        folder = run.path / "policy" / name
        save_policy(folder, architecture, preprocessor, tensors, {"run_id": run.run_id, "task": config.task.type, **facts})
        return folder

    learner = Learner(
        LearnerParts(
            config=config,
            agent=agent,
            experience=experience,
            governor=UtdGovernor(config.policy.utd_ratio, config.policy.online_step_before_learning),
            statistics=EpisodeStatistics(config.actor.evaluate_episodes),
            server=server,
            checkpoints=CheckpointFolder(run.checkpoints, config.learner.keep_checkpoints),
            metrics=metrics,
            frozen_tensors={f"vision.{name}": tensor for name, tensor in frozen.state_dict().items()},
            save_policy=save,
            supervise=supervise,
        )
    )
    checkpoint = learner.parts.checkpoints.load_newest()
    if checkpoint is not None:
        learner.restore(checkpoint)
    learner.replay(server.replay_journal())
    if checkpoint is not None:
        governor = learner.parts.governor
        logger.info("Continuing %s: %d environment steps, %d updates", run.run_id, governor.environment_steps, governor.updates)
    return learner


def _handshake(config: TrainConfig, run: RunFolder) -> Handshake:
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    return Handshake(run_id=run.run_id, schema_hash=policy_schema(config).hash(), architecture_hash=policy.architecture_hash)


def _save_after_failure(learner: Learner) -> None:
    if learner.parts.governor.updates == 0:
        return
    try:
        learner.save()
    except Exception:
        logger.exception("The checkpoint after the failure could not be written; the one before it is kept")
