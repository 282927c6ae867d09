"""Phase: decode and convert the demonstrations once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from hilserl.config import TrainConfig
from hilserl.data.conversion_plan import plan_conversion
from hilserl.data.convert import SuccessJudge
from hilserl.data.offline_buffer import STAGE, RunJobs, get_or_build, offline_buffer_folder, verify_offline_buffer
from hilserl.errors import CheckpointError, ConfigError
from hilserl.files import home
from hilserl.joints import RobotJointConverter
from tasks.artifacts import publish_markdown
from tasks.caching import BY_KEY, run_verified
from tasks.progress import progress_artifact


@task(name=STAGE, persist_result=True, result_serializer="json", cache_policy=BY_KEY)
def build_offline_buffer_task(config: TrainConfig, dataset: Path | None, run_jobs: RunJobs | None = None, *, key: str) -> dict[str, Any]:
    """Build the buffer; returns what a person wants to know of it, never its arrays."""
    with progress_artifact("build-offline-buffer"):
        manifest, hit, reason = get_or_build(config, dataset, _cache(), RobotJointConverter(config), run_jobs, load_judge)
    positives = sum(1 for count in manifest.positives_per_episode if count)
    residual = (
        f"{1000 * manifest.residual_m['mean']:.2f} mm mean, {1000 * manifest.residual_m['max']:.2f} mm largest"
        if manifest.residual_m
        else "–"
    )
    publish_markdown(
        key="offline-buffer",
        description="What the learner starts from",
        markdown=(
            "| | |\n|---|---|\n"
            f"| transitions | {manifest.transitions} ({manifest.dropped} frames without next observation left out) |\n"
            f"| episodes | {manifest.episodes}, {positives} of them with a reward |\n"
            f"| shown | {', '.join(f'{count} {role}' for role, count in manifest.roles.items() if count)} (control steps) |\n"
            f"| shards | {manifest.converted_shards} converted, {manifest.reused_shards} found |\n"
            f"| clipped actions | {manifest.clipped_steps} |\n"
            f"| conversion residual | {residual} |\n"
            f"| size | {manifest.size_bytes / 1e6:.1f} MB |\n"
            f"| built in | {manifest.seconds:.2f} s{f', {manifest.frames_per_s:.0f} frames/s' if manifest.frames_per_s else ''} |\n"
            f"| folder | `{manifest.folder}` |\n"
            f"| {'found' if hit else 'built because'} | {reason} |\n"
        ),
    )
    return manifest.summary() | {"folder": str(manifest.folder)}


def build_offline_buffer(config: TrainConfig, dataset: Path | None, run_jobs: RunJobs | None = None) -> Path:
    """Return the folder of the offline buffer; a cached one is verified on disk first.

    Args:
        config: The run's configuration.
        dataset: Folder of the dataset made for `dataset.record`.
        run_jobs: Who converts; by default threads of this process.
    """
    plan = plan_conversion(config, dataset, _cache(), RobotJointConverter(config), load_judge)
    folder = offline_buffer_folder(_cache(), plan.key)
    problems = verify_offline_buffer(folder, plan.key, plan.inputs)
    run_verified(build_offline_buffer_task, plan.key, problems, config, dataset, run_jobs)
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


def _cache() -> Path:
    return home() / "buffers"
