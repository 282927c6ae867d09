"""The short version, for places that show Markdown: verdict, findings, a few pictures, and where the page is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hilserl.config.models import TrainConfig
from hilserl.data.sources import Source
from hilserl.data.validation.findings import ValidationReport
from hilserl.data.validation.page import headline
from hilserl.data.validation.page_material import Material, spread_out
from hilserl.data.validation.page_pictures import first_frames
from hilserl.data.validation.page_titles import condensed, title_of
from hilserl.data.validation.remedies import everything_to_paste
from hilserl.errors import HilserlError

_EPISODES = 3
_FINDINGS_OF_A_KIND = 10
_MAX_CHARS = 400_000  # pictures beyond it are left out: this text goes into a database


def validation_markdown(parts: Sequence[tuple[Source, ValidationReport]], page: Path | None, config: TrainConfig | None = None) -> str:
    """Return the findings of all datasets as Markdown, with pictures inside.

    Args:
        parts: The datasets, and what was found in each.
        page: The complete page; None where there is none.
        config: The run's configuration, to say all that is to be pasted in one block.
    """
    stops = sum(len(report.stops) for _, report in parts)
    lines = [f"# {headline(stops)}", ""]
    for source, report in parts:
        lines += [f"Dataset {_code(str(source.root))}: {report.episodes} episodes, {report.frames} frames at {report.fps:g} Hz.", ""]
        for finding, more in condensed(report.findings, _FINDINGS_OF_A_KIND):
            lines.append(
                f"- **{finding.severity}**, {title_of(finding)} ({finding.code}), {_plain(finding.place)}: {_plain(finding.message)}"
            )
            if finding.remedy:
                lines += ["", *(f"      {line}" for line in finding.remedy.splitlines()), ""]
            if more:
                lines.append(f"- … and {more} more of this kind")
        lines += ["", *_pictures(source), ""]
    if config is not None and (paste := everything_to_paste(config, parts)):
        lines += ["Everything to paste:", "", *(f"    {line}" for line in paste.splitlines()), ""]
    if page is not None:
        lines += [
            f"The page with all pictures is in MLflow, among the run's artifacts: {_code(f'validation/{page.name}')}. "
            "Or copy this address (browsers do not follow a link from here to a file):",
            "",
            f"    {page.as_uri()}",
            "",
        ]
    return "\n".join(lines)


def _pictures(source: Source) -> list[str]:
    """Return a table of first frames; nothing where the dataset gives none."""
    material = Material(source.config, source.root)
    try:
        shown = [
            (f"episode {episode.index}, {_plain(picture.camera)}", picture)
            for episode in spread_out(material.episodes, _EPISODES)
            for picture in first_frames(source.config, material.dataset, episode)
            if picture.native
        ]
    except HilserlError:
        return []  # The findings say why.
    rows = ["| | recorded | as the policy sees it |", "|---|---|---|"]
    for name, picture in shown:
        seen = f"![policy]({picture.seen})" if picture.seen else "–"
        rows.append(f"| {name} | ![recorded]({picture.native}) | {seen} |")
        if sum(map(len, rows)) > _MAX_CHARS:
            rows.pop()
            break
    return rows if len(rows) > 2 else []


def _plain(text: str) -> str:
    """Keep what comes from a dataset from being read as Markdown or HTML; what it quotes in `backticks` stays code."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:  # an open quote would swallow what follows
        return _escaped("'".join(parts))
    return "".join(f"`{part}`" if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _code(text: str) -> str:
    return f"`{text.replace('`', "'")}`"


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\*_\[\]|#!])", r"\\\1", text)
