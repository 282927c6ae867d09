"""Several runs side by side, and whether one is better than the other on the same starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

from hilserl.errors import ConfigError
from hilserl.files import write_atomically
from hilserl.report.charts import COLORS, Curve, line_chart
from hilserl.report.page import page_template, percent, success_curves
from hilserl.report.record import RunRecord

_MOST_SETTINGS = 40
_NOT_TOLD = ("seed", "tracking", "conversion", "link")


@dataclass(frozen=True)
class PairedTest:
    """Two policies on the same starts: the exact McNemar test.

    Attributes:
        pairs: Starts that both played.
        only_first: Starts at which only the first succeeded.
        only_second: Starts at which only the second succeeded.
        p: Two-sided probability of a difference at least this large, if they were equally good.
    """

    pairs: int
    only_first: int
    only_second: int
    p: float

    def __str__(self) -> str:
        """One sentence."""
        better = "the first" if self.only_first > self.only_second else "this one"
        said = "no difference can be told" if self.p >= 0.05 else f"{better} is better"
        return (
            f"{said}: {self.pairs} same starts, {self.only_first} only by the first, {self.only_second} only by this one, p = {self.p:.2g}"
        )


def paired_test(first: Mapping[int, bool], second: Mapping[int, bool]) -> PairedTest | None:
    """Compare successes by seed of the start; None where no start is shared.

    The exact test counts only the starts where the two differ (McNemar 1947); among those, each is equally likely to win.
    """
    shared = first.keys() & second.keys()
    if not shared:
        return None
    only_first = sum(first[seed] and not second[seed] for seed in shared)
    only_second = sum(second[seed] and not first[seed] for seed in shared)
    differing, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(differing, count) for count in range(fewer + 1)) / 2**differing
    return PairedTest(len(shared), only_first, only_second, min(1.0, 2 * tail))


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
                percent(summary.get("success_rate")) if summary else str(record.facts.get("status", "–")),
                "–" if low is None else f"{100 * low:.1f} to {100 * high:.1f} %",
                f"{summary.get('environment_steps') or 0:,}",
                f"{summary.get('updates') or 0:,}",
                f"{summary['learning_seconds'] / 60:.1f} min" if "learning_seconds" in summary else "–",
                "" if not number else str(test) if test else "other starts: not compared",
            )
        )
    return rows


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
