"""Phase: say how good the policy is."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl import evaluation
from hilserl.config import TrainConfig
from hilserl.evaluation import EvaluationResult
from hilserl.files import write_json
from hilserl.rollout.run import evaluate_on_arm
from tasks.artifacts import publish_markdown
from tasks.progress import progress_artifact
from tasks.run_watch import RunWatch


@task(name=evaluation.STAGE, cache_policy=NO_CACHE, persist_result=False, retries=0)
def evaluate_policy(config: TrainConfig, policy: Path, folder: Path) -> EvaluationResult:
    """Play the configured number of deterministic, seeded episodes; writes `evaluation.json` and a video to `folder`.

    Raises:
        RobotError: The arm may not be driven.
    """
    video = folder / "episodes.mp4"
    with progress_artifact(evaluation.STAGE), RunWatch() as watch:
        if config.env is None and not config.robot.is_simulated:
            result = evaluate_on_arm(config, policy, video=video, should_stop=lambda: watch.reason is not None)
        else:
            result = evaluation.evaluate_policy(config, policy, video=video, should_stop=lambda: watch.reason is not None)
    watch.raise_if_stopped()
    write_json(folder / "evaluation.json", result.to_dict())
    return result


def evaluate_unless_real(config: TrainConfig, policy: Path, folder: Path) -> EvaluationResult | None:
    """Evaluate at the end of a training. A real arm is not moved by surprise: then nothing is played, and the page says how to do it."""
    if config.env is not None or not config.robot.is_real:
        return evaluate_policy(config, policy, folder)
    text = (
        f"The arm `{config.robot.id}` is real, and is moved only when somebody stands beside it. On its host:\n\n"
        f"```\nuv run hilserl doctor {config.name}\nuv run hilserl eval {policy} --into evaluation\n```\n"
    )
    publish_markdown("evaluation", text, "Not evaluated yet")
    return None
