"""An evaluation, or several on the same starts, as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hilserl.evaluation.paired import paired_test
from hilserl.evaluation.result import EvaluationResult
from hilserl.files import write_atomically
from hilserl.report.charts import success_map
from hilserl.report.page import MOST_VIDEO_BYTES, Chart, page_template, percent, success_headline

_NAMED = 60  # characters of a policy's name in a heading


def write_evaluation_page(evaluations: Sequence[tuple[str, EvaluationResult]], file: Path) -> Path:
    """Write the page.

    Args:
        evaluations: What was evaluated, for a person, and how it went; the first is what the page is about.
        file: Where to.
    """
    name, result = evaluations[0]
    rate = result.success_rate
    title, kind = f"Mean return {result.mean_return:.4g}", ""
    if rate is not None:
        title, kind = success_headline(rate, result.episodes, result.judged_by, result.true_successes, result.wrongly_called)
    charts: list[Chart] = []
    for shown, each in evaluations:
        starts = [(*episode.cube_m, episode.success) for episode in each.played if episode.cube_m]
        if starts and each.successes is not None:
            charts.append(("Where it succeeds", shown[:_NAMED], success_map(starts)))
    text = page_template().render(
        title=title,
        verdict=kind,
        lead=f"{name}. {result.shown}; {result.episodes} deterministic episodes without help.",
        facts=_facts(result),
        alarms=[],
        charts=charts,
        charts_heading="Starts",
        outcomes=sorted((episode.seed, episode.success) for episode in result.played) if rate is not None else [],
        outcomes_note=f"{result.episodes} episodes; a square is one start, red where it failed. Hover for its seed.",
        video=embedded_video(result.video),
        first_tables=[("Side by side", comparison_table(evaluations))] if len(evaluations) > 1 else [],
        tables=[("Failures", _failures(result))] if result.failed_seeds else [],
        command="",
        settings="",
    )
    write_atomically(file, text.encode())
    return file


def comparison_table(evaluations: Sequence[tuple[str, EvaluationResult]]) -> list[tuple[str, ...]]:
    """Return a table: a header, then a row a policy, each with its paired test against the first."""
    rows: list[tuple[str, ...]] = [("policy", "success", "95 % interval", "judged by", "mean length", "smoothness", "against the first")]
    first = evaluations[0][1]
    for number, (name, result) in enumerate(evaluations):
        low, high = result.interval_low, result.interval_high
        test = paired_test(first.outcomes, result.outcomes) if number else None
        rows.append(
            (
                name,
                percent(result.success_rate),
                "–" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %",
                result.judged_by,
                f"{result.mean_seconds:.1f} s",
                f"{result.smoothness:.3f}",
                "" if not number else str(test) if test else "other starts: not compared",
            )
        )
    return rows


def embedded_video(file: Path | None) -> str:
    """Return a video as the page embeds it; empty where there is none, or it is too large."""
    if file is None or not file.is_file() or file.stat().st_size > MOST_VIDEO_BYTES:
        return ""
    return base64.b64encode(file.read_bytes()).decode()


def _facts(result: EvaluationResult) -> list[tuple[str, str]]:
    steps = [episode.steps for episode in result.played if episode.success] or [episode.steps for episode in result.played]
    seconds = result.mean_seconds / max(result.mean_steps, 1e-9)
    facts = [
        (f"{result.mean_seconds:.1f} s", "mean episode"),
        (f"{np.median(steps) * seconds:.1f} s", "median of the successes"),
        (f"{result.smoothness:.3f}", "mean change of the action a step (0: even, 2: from end to end)"),
        ("0", "interventions"),
        (f"{result.seconds:.0f} s", "of evaluation"),
    ]
    if result.true_successes is not None:
        facts.append((percent(result.true_successes / result.episodes), "success, as the simulator knows"))
        facts.append((str(result.wrongly_called), "failures called a success"))
    return facts


def _failures(result: EvaluationResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("seed", "steps", "object at the start")]
    for episode in result.played:
        if not episode.success:
            place = "–" if episode.cube_m is None else f"x {100 * episode.cube_m[0]:.1f} cm, y {100 * episode.cube_m[1]:+.1f} cm"
            rows.append((str(episode.seed), str(episode.steps), place))
    return rows
