"""Phase: make the demonstrations in simulation, or find the user's."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from hilserl.config import TrainConfig
from hilserl.demonstrations import STAGE, demonstration_folder, demonstration_inputs, get_or_record, verify_recording
from hilserl.files import content_hash
from tasks.caching import BY_KEY, run_verified
from tasks.skipping import NO_DEMONSTRATIONS, skip


@task(name=STAGE, persist_result=True, result_serializer="json", cache_policy=BY_KEY)
def record_demonstrations_task(config: TrainConfig, *, key: str) -> str:
    """Record the dataset; returns its folder."""
    return str(get_or_record(config))


def record_demonstrations(config: TrainConfig) -> Path | None:
    """Return the dataset's folder, None where there are several; a recording made before from the same inputs is used again."""
    if config.env is not None:
        skip(STAGE, NO_DEMONSTRATIONS)
        return None
    if config.dataset.record is None:
        return config.dataset.root
    folder = demonstration_folder(config)
    key = content_hash(demonstration_inputs(config))
    run_verified(record_demonstrations_task, key, verify_recording(folder), config)
    return folder  # not the cached one, which may say where HILSERL_HOME was before it was moved
