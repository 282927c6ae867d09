"""The report as one HTML file that needs nothing else: no network, no server, no script.

Everything that comes from the dataset is escaped by the template. Drawing never fails the validation: what a
damaged dataset does not allow to be drawn is a sentence in its place.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from hilserl.config.models import TrainConfig
from hilserl.data.interfaces import JointConverter
from hilserl.data.sources import Source
from hilserl.data.validation.findings import Finding, Severity, ValidationReport
from hilserl.data.validation.page_material import Material
from hilserl.data.validation.page_sections import STAGE, Chapter, chapters
from hilserl.data.validation.page_titles import condensed, title_of
from hilserl.data.validation.remedies import everything_to_paste
from hilserl.files import file_hash, write_atomically
from hilserl.progress import Progress, publish

MakeConverter = Callable[[TrainConfig], JointConverter]

_PICTURED_EPISODES = 12
_FINDINGS_OF_A_KIND = 25
_SEVERITIES: dict[Severity, str] = {"stops": "stops training", "warns": "warning", "informs": "for information"}


@dataclass(frozen=True)
class _Part:
    """One dataset on the page."""

    name: str
    source: Source
    report: ValidationReport
    findings: list[tuple[Finding, int]]
    numbers: list[tuple[str, str]]
    chapters: list[Chapter]


def write_validation_page(
    config: TrainConfig, root: Path, report: ValidationReport, path: Path, converter: JointConverter | None = None
) -> Path:
    """Write the page of one dataset.

    Args:
        config: The configuration that it was validated against.
        root: Folder of the dataset; only read.
        report: What was found.
        path: HTML file to write; replaced in one step.
        converter: The one kinematics, for datasets recorded in joint space.

    Returns:
        `path`.
    """
    return write_sources_page(config, [(Source(config, root), report)], path, None if converter is None else lambda _: converter)


def write_sources_page(
    config: TrainConfig,
    parts: Sequence[tuple[Source, ValidationReport]],
    path: Path,
    make_converter: MakeConverter | None = None,
    assumptions: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of all datasets of a run, one part each.

    Args:
        config: The run's configuration.
        parts: The datasets, and what was found in each.
        path: HTML file to write; replaced in one step.
        make_converter: Builds the kinematics for one dataset's configuration.
        assumptions: What was assumed because nobody wrote a configuration.
        base: What the block to paste begins with (`everything_to_paste`).

    Returns:
        `path`.
    """
    pictures = max(2, _PICTURED_EPISODES // len(parts))
    drawn = []
    for source, report in parts:
        material = Material(source.config, source.root, make_converter(source.config) if make_converter else None)
        findings = condensed(report.findings, _FINDINGS_OF_A_KIND)
        chapters_ = list(chapters(material, report, pictures))
        drawn.append(_Part(source.root.name, source, report, findings, _numbers(source, report), chapters_))
    counts = Counter(finding.severity for _, report in parts for finding in report.findings)
    html = _template().render(
        parts=drawn,
        counts={severity: counts[severity] for severity in _SEVERITIES},
        headline=headline(counts["stops"]),
        paste=everything_to_paste(config, parts, base),
        config=config,
        assumptions=assumptions,
        when=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        title_of=title_of,
        severities=_SEVERITIES,
    )
    write_atomically(path, html.encode())
    publish(Progress(STAGE, done=1, total=1, unit="page", message=str(path)))
    return path


def headline(stops: int) -> str:
    """Return the verdict."""
    if not stops:
        return "This can train"
    return "One thing stops training" if stops == 1 else f"{stops} things stop training"


def _numbers(source: Source, report: ValidationReport) -> list[tuple[str, str]]:
    numbers = []
    if report.frames:
        hours = report.frames / report.fps / 3600 if report.fps else 0.0
        length = f"{hours:.2f} h" if hours >= 0.1 else f"{hours * 60:.1f} min"
        numbers += [("episodes", f"{report.episodes:,}"), ("frames", f"{report.frames:,}"), ("length", length)]
        numbers += [("frames/s", f"{report.fps:g}")]
    if size := _size_bytes(source.root):
        numbers.append(("on disk", f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"))
    if report.positives_per_episode is not None:
        rewarded = sum(count > 0 for count in report.positives_per_episode.values())
        numbers.append(("rewarded", f"{rewarded} of {len(report.positives_per_episode)}"))
    return numbers


def _size_bytes(root: Path) -> int:
    try:
        return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    except OSError:
        return 0  # a folder that cannot be listed is a finding already


def template_hash() -> str:
    """Identify the page's form."""
    return file_hash(Path(__file__).with_name("page.html"))


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["settings"] = _settings
    environment.filters["ticks"] = _ticks
    return environment.get_template("page.html")


def _ticks(text: str) -> Markup:
    """Escape a text, and set what it quotes in `backticks` as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _settings(config: TrainConfig) -> str:
    """Return what the columns were taken to mean, as a person would write it."""
    import yaml

    chosen: dict[str, Any] = config.dataset.model_dump(mode="json", exclude_defaults=True)
    robot = config.robot.model_dump(mode="json", include={"control_hz", "action_scale_m", "cameras"})
    images = {name: image.model_dump(mode="json") for name, image in config.observation.images.items()}
    shown = {"dataset": chosen, "robot": robot, "observation": {"images": images, "state": list(config.observation.state)}}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, default_flow_style=None)
