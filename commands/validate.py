"""`hilserl validate`: everything that is wrong with a dataset, on the terminal and as a page to look at."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from commands.progress_bar import shown_progress
from hilserl.config import TrainConfig, load_config
from hilserl.config.loader import SHIPPED_CONFIGS, expand_dotted, find_config, merge
from hilserl.data.sources import Source, sources_of
from hilserl.data.validation import Finding, ValidationReport, validate_sources
from hilserl.data.validation.assumed import assumed_config, with_dataset
from hilserl.data.validation.page import headline, write_sources_page
from hilserl.data.validation.page_titles import condensed, title_of
from hilserl.data.validation.remedies import everything_to_paste, recommended
from hilserl.demonstrations import get_or_record
from hilserl.environments.named_classifier import check_classifier
from hilserl.errors import ConfigError, HilserlError
from hilserl.files import content_hash, home
from hilserl.joints import RobotJointConverter

log = logging.getLogger(__name__)

Parts = Sequence[tuple[Source, ValidationReport]]

_STYLES = {"stops": ("STOPS", "bold red"), "warns": ("WARNS", "bold yellow"), "informs": ("INFORMS", "cyan")}
_FINDINGS_OF_A_KIND = 10


def run_validate(
    target: str, overrides: dict[str, Any], *, config: str | None, report: Path | None, videos: str | None, as_json: bool
) -> bool:
    """Validate what `target` names, show the findings, and write the page.

    Args:
        target: A configuration, or the folder of a dataset.
        overrides: Values that win over the configuration.
        config: Configuration for a dataset folder; None derives one from the dataset.
        report: Where to write the page; None chooses a place under HILSERL_HOME.
        videos: `sample` or `all`; None is as the configuration says.
        as_json: Print JSON instead of text.

    Returns:
        Whether nothing stops the training.
    """
    base = _base(target, overrides, config)
    if videos is not None:
        overrides = overrides | {"dataset.check_videos": videos}
    told = Console(stderr=True, highlight=False)
    with shown_progress(told):
        settings, recorded, assumptions = _settings(target, overrides, config)
        sources = sources_of(settings, recorded)
        parts = list(zip(sources, validate_sources(settings, sources, converter=RobotJointConverter(settings)), strict=True))
        base = _written_out(settings) if base is None else base
        page = _write_page(
            settings, parts, report or home() / "validation" / _page_name(target, config, settings, sources), told, assumptions, base
        )
    paste = everything_to_paste(settings, parts, base)
    if as_json:
        print(json.dumps(_as_json(parts, page, assumptions, paste), indent=2))
    else:
        _show(Console(highlight=False), settings, parts, page, assumptions, paste)
    return not any(found.stops for _, found in parts)


def _settings(target: str, overrides: dict[str, Any], config: str | None) -> tuple[TrainConfig, Path | None, tuple[str, ...]]:
    """Return the configuration, the dataset recorded for it, and what was assumed."""
    root = Path(target)
    if not _is_dataset(root, config):
        if config is not None:
            raise ConfigError(f"{target}: no such folder. `--config` goes with the folder of a dataset.")
        settings = load_config(target, overrides)
        check_classifier(settings)  # before demonstrations are recorded
        # A folder that does not exist is a finding, not a mistake at the command line.
        return settings, get_or_record(settings) if settings.dataset.record is not None else None, ()
    if config is not None:
        settings = with_dataset(load_config(config, overrides), root)
        check_classifier(settings)
        return settings, None, ()
    assumed = assumed_config(root)
    if not overrides:
        return assumed.config, None, assumed.assumptions
    return _overridden(assumed.config, overrides), None, assumed.assumptions


def _base(target: str, overrides: Mapping[str, Any], config: str | None) -> dict[str, Any] | None:
    """Return what a configuration file begins with that means the same as this command; None where no file was given."""
    root = Path(target)
    if config is None and _is_dataset(root, None):
        return None
    file = find_config(config or target)
    if file.suffix == ".json":
        return None  # LeRobot's own: it is imported, and nothing can extend it
    parent = file.stem if file.parent == SHIPPED_CONFIGS else str(file.resolve())
    base = merge({"extends": parent}, expand_dotted(overrides))
    return merge(base, {"dataset": {"root": str(root.resolve()), "record": None, "sources": []}}) if config is not None else base


def _written_out(settings: TrainConfig) -> dict[str, Any]:
    """Return a whole configuration, as a file would hold it."""
    return settings.model_dump(mode="json", exclude_defaults=True)


def _page_name(target: str, config: str | None, settings: TrainConfig, sources: Sequence[Source]) -> str:
    """Name the page after the dataset, and tell configurations and folders of the same name apart."""
    name = sources[0].root.resolve().name if len(sources) == 1 else settings.name
    configured = settings.name, config or "", str(Path(target).resolve()), *(str(source.root.resolve()) for source in sources)
    return f"{name}-{content_hash(configured)[:8]}.html"


def _is_dataset(root: Path, config: str | None) -> bool:
    if not root.is_dir():
        return False
    if config is not None or (root / "meta").is_dir():
        return True
    try:
        find_config(root)
    except ConfigError:
        return True  # a folder that is no configuration either: validation says what it lacks
    return False


def _overridden(config: TrainConfig, overrides: dict[str, Any]) -> TrainConfig:
    """Apply overrides to a configuration that has no file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "assumed.yaml"
        file.write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
        return load_config(file, overrides)


def _write_page(
    settings: TrainConfig, parts: Parts, path: Path, told: Console, assumptions: Sequence[str], base: Mapping[str, Any]
) -> Path | None:
    """Write the page; that it cannot be written changes nothing about the findings."""
    try:
        return write_sources_page(settings, parts, path.absolute(), RobotJointConverter, assumptions, base)
    except (OSError, HilserlError) as error:
        log.debug("No page", exc_info=True)
        told.print(Text(f"The page could not be written: {error}", style="yellow"), soft_wrap=True)
        return None


def _as_json(parts: Parts, page: Path | None, assumptions: Sequence[str], paste: str) -> dict[str, Any]:
    return {
        "can_train": not any(report.stops for _, report in parts),
        "page": str(page) if page else None,
        "assumed": list(assumptions),
        "paste": paste,
        "datasets": [{"root": str(source.root), **report.summary(), "findings": report.rows()} for source, report in parts],
    }


def _show(console: Console, settings: TrainConfig, parts: Parts, page: Path | None, assumptions: Sequence[str], paste: str) -> None:
    if assumptions:
        console.print(Text("No configuration was given (`--config`), so this was assumed:", style="bold"))
        for sentence in assumptions:
            console.print(Padding(Text(f"· {sentence}"), (0, 0, 0, 2), expand=False))
        console.print()
    for source, report in parts:
        size = f"{report.episodes} episodes, {report.frames} frames at {report.fps:g} Hz" if report.frames else "not readable"
        console.print(Text.assemble((str(source.root), "bold"), f"  {size}"), soft_wrap=True)
        for finding, more in condensed(report.findings, _FINDINGS_OF_A_KIND):
            console.print()
            show_finding(console, finding)
            if more:
                console.print(Text(f"\n        ... and {more} more of this kind (--json lists them)", style="dim"))
        if not report.findings:
            console.print(Text("  every check passed", style="green"))
        console.print()
    counts = {severity: sum(f.severity == severity for _, report in parts for f in report.findings) for severity in _STYLES}
    verdict = Text(headline(counts["stops"]), style="bold red" if counts["stops"] else "bold green")
    warnings = "1 warning" if counts["warns"] == 1 else f"{counts['warns']} warnings"
    console.print(Text.assemble(verdict, f" (configuration {settings.name}): {warnings}, {counts['informs']} for information."))
    if paste:
        console.print()
        by_hand = sum(not recommended(finding.remedy) for _, report in parts for finding in report.stops)
        console.print(Text("Everything to paste, as one configuration file:", style="bold"))
        for line in paste.splitlines():
            console.print(Text(line, style="green"), soft_wrap=True)
        if by_hand:
            console.print(Text(f"# {by_hand} of the {counts['stops']} that stop need a hand as well, see above", style="dim"))
        console.print()
    if page is not None:
        console.print(f"Page with pictures: {page}", soft_wrap=True, markup=False)


def show_finding(console: Console, finding: Finding) -> None:
    """Print one finding: what, where, what it means, and what settles it as a block of its own."""
    label, style = _STYLES[finding.severity]
    console.print(Text.assemble((f"{label:<8}", style), (title_of(finding), "bold"), (f"  {finding.code}", "dim")))
    console.print(Padding(Text(finding.place, style="dim"), (0, 0, 0, 8), expand=False))
    console.print(Padding(Text(finding.message), (0, 0, 0, 8), expand=False))
    for line in finding.remedy.splitlines():
        # One line each, however narrow the terminal is: a wrapped line cannot be pasted.
        console.print(Text(f"          {line}", style="green"), soft_wrap=True)
