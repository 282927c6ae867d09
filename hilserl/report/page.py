"""The report of a run as one HTML file that needs nothing else: no network, no server, no script.

Made from the run's folder alone, so it can be made again at any time, and while the run trains.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from hilserl.evaluation import wilson_interval
from hilserl.files import write_atomically
from hilserl.report.charts import COLORS, Curve, line_chart, success_map
from hilserl.report.record import RunRecord
from hilserl.report.sections import cost_rows, data_rows, safety_rows

MOST_VIDEO_BYTES = 30_000_000
_PACKAGES = ("hilserl", "torch", "numpy", "lerobot", "mujoco", "prefect", "mlflow")
Chart = tuple[str, str, Markup]


def write_report_page(run: Path, file: Path | None = None) -> Path:
    """Write the page of a run; returns where it is, `report.html` in its folder by default.

    Raises:
        ConfigError: It is no run, or one of its files is damaged.
    """
    record = RunRecord.read(run)
    target = file or run / "report.html"
    verdict, title, lead = _verdict(record)
    text = page_template().render(
        title=title,
        verdict=verdict,
        lead=lead,
        facts=_facts(record),
        alarms=record.summary.get("alarms", []),
        charts=_charts(record),
        outcomes=sorted(record.outcomes.items()),
        outcomes_note=f"{len(record.outcomes)} deterministic episodes; a square is one start, red where it failed. Hover for its seed.",
        video=_video(record),
        first_tables=[],
        tables=[
            (heading, rows)
            for heading, rows in (
                ("What stopped it, and safety", safety_rows(record)),
                ("Costs", cost_rows(record)),
                ("Data", data_rows(record)),
                ("Made with", _environment(record)),
            )
            if rows
        ],
        command=_command(record),
        settings=_settings(record),
    )
    write_atomically(target, text.encode())
    return target


@lru_cache(maxsize=1)
def page_template() -> Template:
    """Return the page's template."""
    folder = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=folder, autoescape=True, undefined=StrictUndefined).get_template("page.html")


def success_curves(record: RunRecord, color: int = 0, name: str = "policy alone, evaluated") -> list[Curve]:
    """Return success of the policy alone over environment steps, with 95 % Wilson intervals."""
    points = record.summary.get("evaluations", [])
    if not points:
        steps, values = record.curve("eval/last")
        return [Curve(name, steps, values, color)] if len(steps) else []
    steps = np.array([point["environment_steps"] for point in points], dtype=np.float64)
    rates = np.array([point["successes"] / point["episodes"] for point in points])
    bounds = np.array([wilson_interval(point["successes"], point["episodes"]) for point in points])
    return [Curve(name, steps, rates, color, bounds[:, 0], bounds[:, 1], dots=True)]


def percent(share: float | None) -> str:
    """Write a share for a person."""
    return "–" if share is None else f"{100 * share:.0f} %"


def _verdict(record: RunRecord) -> tuple[str, str, str]:
    summary = record.summary
    if not summary:
        status = record.facts.get("status", "unknown")
        step = record.history[-1]["step"] if record.history else 0
        return "warn", f"{record.run_id}: {status}", f"Not finished; {step:,.0f} environment steps so far."
    if summary["success_rate"] is None:
        low, high = summary["return_interval"]
        return (
            "",
            f"Mean return {summary['mean_return']:.4g} on {summary['task']}",
            f"95 % interval {low:.4g} to {high:.4g}. {record.run_id}",
        )
    low, high = summary["interval"]
    lead = (
        f"{summary['episodes']} deterministic episodes, 95 % Wilson interval {100 * low:.1f} to {100 * high:.1f} %, "
        f"judged by the {summary['judged_by']}. {record.run_id}, seed {summary['seed']}."
    )
    title, kind = success_headline(
        summary["success_rate"], summary["episodes"], summary["judged_by"], summary.get("true_successes"), summary.get("wrongly_called")
    )
    return kind, f"{title} on {summary['task']}", lead


def success_headline(rate: float, episodes: int, judge: str, true_successes: int | None, wrongly_called: int | None) -> tuple[str, str]:
    """Return what is said first of an evaluation, and its colour: where a simulation knows of less success, the truth counts.

    Args:
        rate: Share of the episodes that were called a success.
        episodes: Played.
        judge: Who called them so.
        true_successes: That the simulation knows of; None: it says nothing.
        wrongly_called: Failures that were called a success; None likewise.
    """
    title, counted = f"{percent(rate)} success", rate
    if true_successes is not None and wrongly_called:
        counted = min(rate, true_successes / episodes)
        title = f"{percent(rate)} called success by the {judge}; {percent(true_successes / episodes)} true"
    kind = "" if counted >= 0.9 else "warn" if counted >= 0.5 else "stop"
    return title, kind or ("warn" if wrongly_called else "")


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    """What it took: the costs that a person pays are robot minutes and frames of help."""
    summary, hz = record.summary, record.setting("robot.control_hz")
    steps = summary.get("environment_steps") or (record.history[-1]["step"] if record.history else 0)
    updates = summary.get("updates") or record.last("utd/done") or 0
    facts = [(f"{steps:,.0f}", "environment steps"), (f"{updates:,.0f}", "critic updates")]
    if record.setting("env") is None and hz:
        facts.append((f"{steps / hz / 60:.1f} min", "of robot time"))
        if (helped := record.last("cost/human_frames")) is not None:
            facts.append((f"{helped:,.0f}", "frames by a human"))
    if (seconds := summary.get("learning_seconds")) is not None:
        facts.append((f"{seconds / 60:.1f} min", "of learning"))
    if (effective := record.last("utd/effective")) is not None:
        facts.append((f"{effective:.2f}", f"updates a step ({record.setting('policy.utd_ratio')} owed)"))
    facts.append((percent(record.last("intervention/rate")), "interventions at the end"))
    return facts


def _charts(record: RunRecord) -> list[Chart]:
    def lines(*names: tuple[str, str]) -> list[Curve]:
        return [Curve(label, *record.curve(name), color) for color, (name, label) in enumerate(names)]

    training = [
        Curve("training episodes, rolling", *record.curve("episode/success"), 5),
        Curve("of them without help", *record.curve("episode/success_autonomous"), 2),
        Curve("intervention rate", *record.curve("intervention/rate"), 1),
    ]
    charts: list[Chart] = []
    if record.setting("env.success_key") is not None or record.setting("env") is None:
        chart = line_chart([*success_curves(record), *training], bounds=(-0.03, 1.03))
        charts.append(("Success", "the band is the 95 % Wilson interval", chart))
    gradients = ("loss/critic", "critic"), ("grad_norm/critic", "critic's gradient"), ("grad_norm/actor", "actor's gradient")
    values = ("q/mean", "mean"), ("q/max", "largest"), ("q/bound", "bound")
    ages = ("actor/weights_age_s", "weights that acted"), ("link/lag_s", "steps on their way")
    charts += [
        ("Return", "sum of an episode's rewards", line_chart(lines(("episode/return", "training episodes, rolling")))),
        ("Q", "above its bound, the critic believes in more than there is", line_chart(lines(*values))),
        ("Losses", "logarithmic", line_chart(lines(*gradients), log=True)),
        ("Temperature", "logarithmic", line_chart(lines(("temperature", "temperature")), log=True)),
        ("Entropy and action", "", line_chart(lines(("entropy", "entropy"), ("action/mean_abs", "mean |action|")))),
        ("Updates owed", "flat: the learner keeps up", line_chart(lines(("utd/owed", "updates owed")))),
        ("Ages", "seconds", line_chart(lines(*ages))),
    ]
    drift = [
        name for name in sorted({key for entry in record.history for key in entry}) if name.startswith("drift/") and name != "drift/images"
    ]
    if drift:
        note = "pictures against the demonstrations', in their standard deviations; above 2 the light has changed"
        charts.append(("Light", note, line_chart(lines(*((name, name.removeprefix("drift/")) for name in drift[:COLORS])))))
    if starts := record.starts:
        charts.insert(1, ("Where it succeeds", "starts of the last evaluation; where it is red, record and intervene", success_map(starts)))
    return charts


def _video(record: RunRecord) -> str:
    name = record.summary.get("video")
    for file in [Path(name)] if name else []:
        for candidate in (file, record.folder / "evaluation" / file.name):
            if candidate.is_file() and candidate.stat().st_size <= MOST_VIDEO_BYTES:
                return base64.b64encode(candidate.read_bytes()).decode()
    return ""


def _environment(record: RunRecord) -> Sequence[Sequence[str]]:
    execution = record.facts.get("execution") or {}
    rows = [("run", record.run_id), ("folder", str(record.folder)), ("configuration", str(record.facts.get("identity", "–")))]
    rows += [("ended because", str(record.summary.get("ended_because", "–")))] if record.summary else []
    rows += [("policy", f"{record.summary['policy']}: {record.summary.get('policy_choice', '')}")] if record.summary else []
    rows += [("updates computed", f"{execution.get('execution', '–')} ({execution.get('reason', '–')})")]
    rows += [("MLflow run", str(record.facts.get("mlflow_run_id", "–"))), ("Prefect flow run", str(record.facts.get("flow_run_id", "–")))]
    if registered := record.facts.get("registered"):
        rows += [("registered as", str(registered))]
    if made := record.facts.get("provenance"):
        rows += [("code", str(made["code"]) or "no clone"), ("machine", str(made["machine"]))]
        rows += [(f"hash of the {name.replace('_', ' ')}", str(value)) for name, value in made["hashes"].items()]
        rows += [("trained with", ", ".join(f"{name} {number}" for name, number in made["versions"].items()))]
    return [*rows, ("this page with", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))]


def _command(record: RunRecord) -> str:
    return f"uv run hilserl train {record.folder / 'resolved.yaml'} --fresh"


def _settings(record: RunRecord) -> str:
    file = record.folder / "resolved.yaml"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
