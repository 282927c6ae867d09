"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilserl.evaluation import wilson_interval
from hilserl.learner.statistics import EvaluationPoint


def draw_learning_curve(
    file: Path,
    title: str,
    evaluations: Sequence[EvaluationPoint],
    history: Sequence[Mapping[str, float]],
    final: tuple[float, float, float] | None,
) -> Path:
    """Draw success, losses and temperature over environment steps as a PNG.

    Args:
        file: Where to.
        title: Name of the run.
        evaluations: Deterministic evaluations during training.
        history: The learner's metrics over the run, each with `step`.
        final: Success rate of the final evaluation with its lower and upper bound.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes: dict[str, Any] = figure.subplot_mosaic([["success", "success"], ["q", "temperature"]], height_ratios=[1.5, 1])
    figure.suptitle(title)
    success = axes["success"]
    if evaluations:
        steps = [point.environment_steps for point in evaluations]
        bounds = [wilson_interval(point.successes, point.episodes) for point in evaluations]
        success.fill_between(steps, [low for low, _ in bounds], [high for _, high in bounds], alpha=0.2, color="tab:blue", linewidth=0)
        success.plot(steps, [p.success_rate for p in evaluations], "o-", color="tab:blue", label="policy alone, evaluated (95 % Wilson)")
    _line(success, history, "episode/success", "training episodes, rolling", "tab:gray")
    _line(success, history, "intervention/rate", "intervention rate", "tab:orange")
    if final is not None:
        rate, low, high = final
        success.axhline(rate, color="tab:green", linestyle="--", label=f"final evaluation {rate:.0%} [{low:.0%}, {high:.0%}]")
    success.set(ylim=(-0.03, 1.03), ylabel="rate", xlabel="environment steps")
    if success.get_legend_handles_labels()[0]:
        success.legend(loc="lower right")
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


def _line(axis, history: Sequence[Mapping[str, float]], key: str, label: str, color: str) -> None:  # type: ignore[no-untyped-def]
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    if points:
        axis.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.2)
