"""Phase: say what came out, where a person looks: Prefect's UI, MLflow, and files in the run's folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl.config import TrainConfig
from hilserl.evaluation import EvaluationResult
from hilserl.evaluation.result import result_during_training
from hilserl.files import write_json
from hilserl.learner.loop import LearnerResult
from hilserl.progress import Progress, publish
from hilserl.report.curve import draw_learning_curve
from hilserl.report.page import write_report_page
from hilserl.runs import RunFolder
from hilserl.tracking import Tracker, ui_command
from tasks.artifacts import publish_markdown

STAGE = "publish-report"


@task(name=STAGE, cache_policy=NO_CACHE, persist_result=False)
def publish_report(
    config: TrainConfig, run: RunFolder, learned: LearnerResult, final: EvaluationResult | None, tracker: Tracker
) -> dict[str, Any]:
    """Draw the learning curve, log artefacts to MLflow, write the final report; returns the run's summary."""
    publish(Progress(STAGE))
    evaluated = final or result_during_training(config, learned.best)
    curve = draw_learning_curve(run.path / "learning_curve.png", run.run_id, learned.evaluations, learned.history, evaluated)
    values = {
        "final/success": evaluated.success_rate,
        "final/success_low": evaluated.interval_low,
        "final/success_high": evaluated.interval_high,
        "final/return": evaluated.mean_return,
        "final/return_low": evaluated.return_low,
        "final/return_high": evaluated.return_high,
        "final/mean_steps": evaluated.mean_steps,
    }
    tracker.log_metrics({name: value for name, value in values.items() if value is not None}, learned.environment_steps)
    tracker.log_artifact(curve)
    if final is not None:
        tracker.log_artifact(run.path / "evaluation" / "evaluation.json", "evaluation")
    if evaluated.video:
        tracker.log_artifact(evaluated.video, "evaluation")
    for file in sorted(learned.policy.iterdir()):
        tracker.log_artifact(file, "policy")
    summary: dict[str, Any] = {
        "run_id": run.run_id,
        "task": config.task_name,
        "seed": config.seed,
        "environment_steps": learned.environment_steps,
        "updates": learned.updates,
        "first_update_at": learned.first_update_at,
        "learning_seconds": round(learned.seconds, 1),
        "ended_because": learned.reason,
        "policy_choice": learned.choice,
        "evaluations": [asdict(point) for point in learned.evaluations],
        "report": str(run.path / "report.html"),
        "alarms": [asdict(alarm) for alarm in learned.alarms],
        "success_rate": evaluated.success_rate,
        "interval": [evaluated.interval_low, evaluated.interval_high],
        "mean_return": evaluated.mean_return,
        "return_interval": [evaluated.return_low, evaluated.return_high],
        "episodes": evaluated.episodes,
        "mean_seconds": evaluated.mean_seconds,
        "judged_by": evaluated.judged_by,
        "true_successes": evaluated.true_successes,
        "wrongly_called": evaluated.wrongly_called,
        "registered": run.facts().get("registered"),
        "folder": str(run.path),
        "policy": str(learned.policy),
        "video": str(evaluated.video) if evaluated.video else None,
        "learning_curve": str(curve),
        "mlflow_run_id": tracker.run_id,
        "mlflow_waiting": tracker.waiting,
    }
    publish_markdown("report", _markdown(summary, ui_command(config.tracking)), "Outcome of the training")
    write_json(run.path / "summary.json", summary)
    tracker.log_artifact(write_report_page(run.path))
    run.update(status="finished")
    return summary


def _markdown(summary: dict[str, Any], ui: str | None) -> str:
    if summary["success_rate"] is None:
        title, (low, high) = f"Mean return {summary['mean_return']:.4g}", summary["return_interval"]
        interval = f"95 % bootstrap interval of the mean return {low:.4g} – {high:.4g}"
    else:
        title, (low, high) = f"{summary['success_rate']:.0%} success", summary["interval"]
        interval = f"95 % Wilson interval {low:.1%} – {high:.1%}, judged by the {summary['judged_by']}"
    return f"""# {title} on `{summary["task"]}`

{summary["episodes"]} deterministic episodes, {interval};
mean episode {summary["mean_seconds"]:.1f} s.

| | |
|---|---|
| run | `{summary["run_id"]}`, seed {summary["seed"]} |
| environment steps | {summary["environment_steps"]} |
| critic updates | {summary["updates"]} |
| learning time | {summary["learning_seconds"]} s |
| ended because | {summary["ended_because"]} |
| policy | `{summary["policy"]}`: {summary["policy_choice"]} |
| alarms | {", ".join(f"`{alarm['name']}` at step {alarm['step']}" for alarm in summary["alarms"]) or "none"} |
| registered as | {f"`{summary['registered']}`, the candidate" if summary["registered"] else "–"} |
| video | `{summary["video"]}` |
| report | `{summary["report"]}`, one page with everything; also in MLflow |
| learning curve | `{summary["learning_curve"]}` |
| MLflow run | `{summary["mlflow_run_id"]}`, open with `{ui}` |
{f"| MLflow was away | {summary['mlflow_waiting']} |" if summary["mlflow_waiting"] else ""}
"""
