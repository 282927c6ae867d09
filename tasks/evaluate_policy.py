"""Phase: say how good the policy is."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl import evaluation
from hilserl.config import TrainConfig
from hilserl.evaluation import EvaluationResult
from hilserl.files import write_json
from tasks.progress import progress_artifact


@task(name=evaluation.STAGE, cache_policy=NO_CACHE, persist_result=False)
def evaluate_policy(config: TrainConfig, policy: Path, folder: Path) -> EvaluationResult:
    """Play the configured number of deterministic, seeded episodes; writes `evaluation.json` and a video to `folder`."""
    with progress_artifact(evaluation.STAGE):
        result = evaluation.evaluate_policy(config, policy, video=folder / "episodes.mp4")
    write_json(folder / "evaluation.json", result.to_dict())
    return result
