"""Phase: decode and convert the demonstrations once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from hilserl.config import TrainConfig
from hilserl.data.buffer_build import STAGE, RunJobs, get_or_build, offline_buffer_folder
from hilserl.data.conversion_plan import plan_conversion
from hilserl.data.interfaces import SuccessJudge
from hilserl.data.manifest import OfflineBufferManifest, verify_offline_buffer
from hilserl.errors import CheckpointError, ConfigError
from hilserl.files import home
from hilserl.joints import RobotJointConverter
from tasks.artifacts import publish_markdown
from tasks.caching import BY_KEY, run_verified
from tasks.progress import progress_artifact
from tasks.skipping import NO_DEMONSTRATIONS, skip


@task(name=STAGE, persist_result=True, result_serializer="json", cache_policy=BY_KEY)
def build_offline_buffer_task(config: TrainConfig, dataset: Path | None, run_jobs: RunJobs | None = None, *, key: str) -> dict[str, Any]:
    """Build the buffer; returns what a person wants to know of it, never its arrays."""
    with progress_artifact("build-offline-buffer"):
        manifest, _, reason = get_or_build(config, dataset, _cache(), RobotJointConverter(config), run_jobs, load_judge)
    return manifest.summary() | {"folder": str(manifest.folder), "reason": reason}


def build_offline_buffer(config: TrainConfig, dataset: Path | None, run_jobs: RunJobs | None = None) -> Path | None:
    """Return the folder of the offline buffer; a cached one is verified on disk first. None where there are no demonstrations.

    Args:
        config: The run's configuration.
        dataset: Folder of the dataset made for `dataset.record`.
        run_jobs: Who converts; by default threads of this process.
    """
    if config.env is not None:
        skip(STAGE, NO_DEMONSTRATIONS)
        return None
    plan = plan_conversion(config, dataset, _cache(), RobotJointConverter(config), load_judge)
    folder = offline_buffer_folder(_cache(), plan.key)
    problems = verify_offline_buffer(folder, plan.key, plan.inputs)
    built = run_verified(build_offline_buffer_task, plan.key, problems, config, dataset, run_jobs)
    _publish(OfflineBufferManifest.read(folder), built["reason"] if problems else "as it was: every file was compared with its hash")
    return folder  # not the cached one, which may say where HILSERL_HOME was before it was moved


def load_judge(folder: Path) -> SuccessJudge:
    """Open the success classifier of `dataset.classifier`; torch is imported only where one is configured.

    Raises:
        ConfigError: It cannot be used.
    """
    from hilserl.reward.classifier import SuccessClassifier

    try:
        return SuccessClassifier.load(folder)
    except CheckpointError as error:
        raise ConfigError(f"dataset.classifier: {error}") from error


def _publish(manifest: OfflineBufferManifest, reason: str) -> None:
    """Show on the run's page, also on a cached run's, what the learner starts from."""
    positives = sum(1 for count in manifest.positives_per_episode if count)
    residual = manifest.residual_m
    shown = ", ".join(f"{count} {role}" for role, count in manifest.roles.items() if count)
    speed = f", {manifest.frames_per_s:.0f} frames/s" if manifest.frames_per_s else ""
    rows = {
        "transitions": f"{manifest.transitions} ({manifest.dropped} steps without next observation, or after a success, left out)",
        "episodes": f"{manifest.episodes}, {positives} of them with a reward",
        "control steps": shown,
        **{
            f"`{source.root}`": f"weight {source.weight:g}, {source.role}, {len(source.episodes)} episodes, {source.rows} steps"
            for source in manifest.sources
        },
        "shards": f"{manifest.converted_shards} converted, {manifest.reused_shards} found",
        "clipped actions": str(manifest.clipped_steps),
        "conversion residual": f"{1000 * residual['mean']:.2f} mm mean, {1000 * residual['max']:.2f} mm largest" if residual else "–",
        "size": f"{manifest.size_bytes / 1e6:.1f} MB",
        "built in": f"{manifest.seconds:.2f} s{speed}",
        "why": reason,
        "folder": f"`{manifest.folder}`",
    }
    table = "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    publish_markdown(key="offline-buffer", description="What the learner starts from", markdown=table)


def _cache() -> Path:
    return home() / "buffers"
