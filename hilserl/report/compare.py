"""Several runs side by side, and whether one is better than the other on the same starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilserl.errors import ConfigError
from hilserl.evaluation.paired import PairedTest, paired_test
from hilserl.files import write_atomically
from hilserl.report.charts import COLORS, Curve, line_chart
from hilserl.report.page import page_template, percent, success_curves
from hilserl.report.record import RunRecord

__all__ = ["PairedTest", "comparison_rows", "differing_settings", "paired_test", "write_comparison"]

_MOST_SETTINGS = 40
_NOT_TOLD = ("seed", "tracking", "conversion", "link")


def comparison_rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Return a table: a header, then a row a run."""
    rows: list[tuple[str, ...]] = [("run", "success", "95 % interval", "steps", "updates", "learning", "against the first")]
    for number, record in enumerate(records):
        summary = record.summary
        low, high = summary.get("interval") or (None, 0.0)
        test = paired_test(records[0].outcomes, record.outcomes) if number else None
        rows.append(
            (
                record.run_id,
                percent(summary.get("success_rate")) if summary else _unfinished(record),
                "–" if low is None else f"{100 * low:.1f} to {100 * high:.1f} %",
                f"{summary.get('environment_steps') or record.last('step') or 0:,.0f}",
                f"{summary.get('updates') or record.last('utd/done') or 0:,.0f}",
                f"{summary['learning_seconds'] / 60:.1f} min" if "learning_seconds" in summary else "–",
                "" if not number else str(test) if test else "other starts: not compared",
            )
        )
    return rows


def _unfinished(record: RunRecord) -> str:
    status = str(record.facts.get("status", "–"))
    return "not finished" if status == "training" else status


def differing_settings(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Return a table of the settings in which the runs differ: a header, then a row a setting."""
    flat = [dict(_flat(record.settings)) for record in records]
    names = sorted({name for settings in flat for name in settings if not name.startswith(_NOT_TOLD)})
    rows = [(name, *(str(settings.get(name, "–")) for settings in flat)) for name in names]
    different = [row for row in rows if len(set(row[1:])) > 1]
    if len(different) > _MOST_SETTINGS:
        different = [*different[:_MOST_SETTINGS], (f"{len(different) - _MOST_SETTINGS} more", *("" for _ in records))]
    return [("setting", *(record.run_id for record in records)), *different]


def write_comparison(records: Sequence[RunRecord], file: Path) -> Path:
    """Write a page with several runs.

    Raises:
        ConfigError: Fewer than two runs, or more than the page has colours.
    """
    if not 2 <= len(records) <= COLORS:
        raise ConfigError(f"compare takes 2 to {COLORS} runs, {len(records)} were given.")
    named = list(enumerate(records))
    success = [curve for color, record in named for curve in success_curves(record, color, record.run_id)]

    def each(metric: str) -> list[Curve]:
        return [Curve(record.run_id, *record.curve(metric), color) for color, record in named]

    charts = [
        ("Success", "policy alone, evaluated; 95 % Wilson intervals", line_chart(success, bounds=(-0.03, 1.03))),
        ("Intervention rate", "", line_chart(each("intervention/rate"), bounds=(-0.03, 1.03))),
        ("Return", "training episodes, rolling", line_chart(each("episode/return"))),
        ("Q", "mean", line_chart(each("q/mean"))),
        ("Temperature", "logarithmic", line_chart(each("temperature"), log=True)),
        ("Updates owed", "", line_chart(each("utd/owed"))),
    ]
    text = page_template().render(
        title=f"{len(records)} runs side by side", verdict="", lead=", ".join(record.run_id for record in records), facts=[], alarms=[],
        charts=charts, outcomes=[], outcomes_note="", video="", command="", settings="",
        first_tables=[("Outcome", comparison_rows(records))], tables=[("Where they differ", differing_settings(records))],
    )  # fmt: skip
    write_atomically(file, text.encode())
    return file


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [(f"{prefix}{key}", value)]
    return found
