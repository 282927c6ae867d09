"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilserl.evaluation import EvaluationResult, wilson_interval
from hilserl.learner.statistics import EvaluationPoint


def draw_learning_curve(
    file: Path,
    title: str,
    evaluations: Sequence[EvaluationPoint],
    history: Sequence[Mapping[str, float]],
    final: EvaluationResult | None,
) -> Path:
    """Draw success (or return, where there is no success), losses and temperature over environment steps as a PNG.

    Args:
        file: Where to.
        title: Name of the run.
        evaluations: Deterministic evaluations during training.
        history: The learner's metrics over the run, each with `step`.
        final: The evaluation at the end.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes: dict[str, Any] = figure.subplot_mosaic([["success", "success"], ["q", "temperature"]], height_ratios=[1.5, 1])
    figure.suptitle(title)
    if final is not None and final.success_rate is None:
        _draw_return(axes["success"], evaluations, history, final)
    else:
        _draw_success(axes["success"], evaluations, history, final)
    axes["success"].set(xlabel="environment steps")
    if axes["success"].get_legend_handles_labels()[0]:
        axes["success"].legend(loc="lower right")
    _line(axes["q"], history, "q/mean", "Q mean", "tab:purple")
    _line(axes["q"], history, "loss/critic", "critic loss", "tab:red")
    axes["q"].set(xlabel="environment steps")
    _line(axes["temperature"], history, "temperature", "temperature", "tab:brown")
    _line(axes["temperature"], history, "action/mean_abs", "mean |action|", "tab:olive")
    axes["temperature"].set(xlabel="environment steps", yscale="log")
    for name in ("q", "temperature"):
        if axes[name].lines:
            axes[name].legend()
    for axis in axes.values():
        axis.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    return file


def _draw_success(
    axis: Any, evaluations: Sequence[EvaluationPoint], history: Sequence[Mapping[str, float]], final: EvaluationResult | None
) -> None:
    if evaluations:
        steps = [point.environment_steps for point in evaluations]
        bounds = [wilson_interval(point.successes, point.episodes) for point in evaluations]
        axis.fill_between(steps, [low for low, _ in bounds], [high for _, high in bounds], alpha=0.2, color="tab:blue", linewidth=0)
        axis.plot(steps, [p.success_rate for p in evaluations], "o-", color="tab:blue", label="policy alone, evaluated (95 % Wilson)")
    _line(axis, history, "episode/success", "training episodes, rolling", "tab:gray")
    _line(axis, history, "intervention/rate", "intervention rate", "tab:orange")
    if final is not None and final.success_rate is not None:
        label = f"final evaluation {final.success_rate:.0%} [{final.interval_low:.0%}, {final.interval_high:.0%}]"
        axis.axhline(final.success_rate, color="tab:green", linestyle="--", label=label)
    axis.set(ylim=(-0.03, 1.03), ylabel="rate")


def _draw_return(
    axis: Any, evaluations: Sequence[EvaluationPoint], history: Sequence[Mapping[str, float]], final: EvaluationResult
) -> None:
    if evaluations:
        steps, means = [p.environment_steps for p in evaluations], [p.mean_return for p in evaluations]
        axis.plot(steps, means, "o-", color="tab:blue", label="policy alone, evaluated")
    _line(axis, history, "episode/return", "training episodes, rolling", "tab:gray")
    label = f"final evaluation {final.mean_return:.4g} [{final.return_low:.4g}, {final.return_high:.4g}]"
    axis.axhline(final.mean_return, color="tab:green", linestyle="--", label=label)
    axis.set(ylabel="return")


def _line(axis, history: Sequence[Mapping[str, float]], key: str, label: str, color: str) -> None:  # type: ignore[no-untyped-def]
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    if points:
        axis.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.2)
