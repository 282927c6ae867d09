"""Phase: pretrain the vision encoder in simulation."""

from __future__ import annotations

from pathlib import Path

from prefect import runtime, task

from hilserl.config import TrainConfig
from hilserl.environments.named_classifier import check_classifier, resolve_success
from hilserl.files import content_hash
from hilserl.pretraining import STAGE, encoder_folder, encoder_inputs, get_or_pretrain, resolve_encoder, verify_encoders
from tasks.caching import BY_KEY, run_verified
from tasks.progress import progress_artifact
from tasks.skipping import skip


@task(name=STAGE, persist_result=True, result_serializer="json", cache_policy=BY_KEY)
def pretrain_encoder_task(config: TrainConfig, *, key: str) -> str:
    """Train the encoders; returns their folder."""
    with progress_artifact(STAGE):
        return str(get_or_pretrain(config))


def with_resolved_encoder(config: TrainConfig) -> TrainConfig:
    """Return the configuration with what its names mean now, so that no other host and no later attempt finds something else.

    That is the sizes and the hash of a pretrained model, and the version of the success classifier behind an alias; the classifier is
    refused here, before anything is recorded, if it does not fit or does not know success.
    """
    resolved = resolve_success(resolve_encoder(config))
    if not (resolved.robot.is_real and runtime.deployment.id):  # else the classifier's folder is on the host of the arm
        check_classifier(resolved)
    return resolved


def pretrain_encoder(config: TrainConfig) -> Path | None:
    """Return the folder of the pretrained encoders; None where the policy needs none."""
    if not config.observation.images:
        skip(STAGE, "the policy uses no camera")
        return None
    if config.encoder.type != "sim_pretrained":
        skip(STAGE, f"`encoder.type` is `{config.encoder.type}`")
        return None
    folder = encoder_folder(config)
    run_verified(pretrain_encoder_task, content_hash(encoder_inputs(config)), verify_encoders(folder), config)
    return folder  # not the cached one, which may say where HILSERL_HOME was before it was moved
