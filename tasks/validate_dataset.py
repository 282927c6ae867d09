"""Phase: find everything that is wrong with the datasets before anything is built from them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task

from hilserl.config import TrainConfig
from hilserl.data import validation
from hilserl.data.conversion_plan import FINGERPRINTS
from hilserl.data.dataset import Dataset
from hilserl.data.fingerprint import memo_file
from hilserl.data.sources import Source, sources_of
from hilserl.data.validation import page, page_charts, page_markdown, page_material, page_pictures, page_sections, page_titles, remedies
from hilserl.errors import DatasetError, HilserlError
from hilserl.files import content_hash, home, source_hash, write_atomically, write_json
from hilserl.hash_memo import HashMemo
from hilserl.joints import RobotJointConverter
from hilserl.tracking import NullTracker, Tracker
from tasks.artifacts import publish_markdown, publish_table
from tasks.caching import BY_KEY, run_verified
from tasks.skipping import NO_DEMONSTRATIONS, skip

logger = logging.getLogger(__name__)

STAGE = "validate-dataset"
_MAX_ROWS = 200  # of the table in Prefect
_MARKDOWN, _FINDINGS = "validation.md", "findings.json"


@task(name=STAGE, persist_result=True, result_serializer="json", cache_policy=BY_KEY)
def validate_dataset_task(config: TrainConfig, dataset: Path | None, *, key: str) -> list[dict[str, Any]]:
    """Validate, write the page, and stop the run if a finding stops it.

    Raises:
        DatasetError: Lists every finding that stops.
    """
    sources = sources_of(config, dataset)
    parts = list(zip(sources, validation.validate_sources(config, sources, converter=RobotJointConverter(config)), strict=True))
    rows = [_row(source, dict(row), len(parts)) for source, report in parts for row in report.rows()]
    _write_report(config, parts, rows, _folder(key))
    stopped = [str(error) for _, report in parts if (error := _stop(report)) is not None]
    if stopped:
        raise DatasetError("\n".join(stopped))
    return rows


def validate_dataset(config: TrainConfig, dataset: Path | None, tracker: Tracker | None = None) -> list[dict[str, Any]]:
    """Validate the datasets as this run would use them; unchanged ones were validated before.

    Findings and page appear on the run's page in Prefect and in MLflow in every case: new, cached, or stopped.
    """
    if config.env is not None:
        skip(STAGE, NO_DEMONSTRATIONS)
        return []
    key = content_hash(_inputs(config, dataset))
    folder = _folder(key)
    page_file = folder / _page_name(config, sources_of(config, dataset))
    missing = [f"{file.name} is missing" for file in (page_file, folder / _MARKDOWN, folder / _FINDINGS) if not file.is_file()]
    try:
        findings: list[dict[str, Any]] = run_verified(validate_dataset_task, key, missing, config, dataset)
    finally:
        _publish(folder, page_file, tracker or NullTracker())
    return findings


def _inputs(config: TrainConfig, dataset: Path | None) -> dict[str, Any]:
    """Return what decides the findings and the page."""
    return {
        "datasets": [_content(source.root) for source in sources_of(config, dataset)],
        "config": config.model_dump(mode="json", include={"name", "robot", "task", "observation", "dataset"}),
        "checks": validation.validation_inputs(config),
        "kinematics": RobotJointConverter(config).version,
        "page": source_hash(
            page, page_charts, page_markdown, page_material, page_pictures, page_sections, page_titles, remedies, sys.modules[__name__]
        ),
        "template": page.template_hash(),
    }


def _content(root: Path) -> list[str]:
    """Identify a dataset by its files, wherever it lies; one that cannot be opened by why."""
    memo = HashMemo(memo_file(home() / "buffers" / FINGERPRINTS, root))
    try:
        opened = Dataset.open(root)
        content = opened.content_hash(memo)
        memo.save(keep=opened.files())
    except (HilserlError, OSError) as error:
        return [str(root), str(error)]
    return [content]


def _write_report(config: TrainConfig, parts: Sequence[tuple[Source, Any]], rows: list[dict[str, Any]], folder: Path) -> None:
    """Write page and summary; that they cannot be written changes nothing about the findings."""
    file: Path | None = None
    try:
        file = page.write_sources_page(config, parts, folder / _page_name(config, [source for source, _ in parts]), RobotJointConverter)
    except (OSError, HilserlError):
        logger.warning("The page of the validation could not be written", exc_info=True)
    write_atomically(folder / _MARKDOWN, page_markdown.validation_markdown(parts, file, config).encode())
    write_json(folder / _FINDINGS, rows)


def _publish(folder: Path, page_file: Path, tracker: Tracker) -> None:
    if (folder / _FINDINGS).is_file():
        rows = json.loads((folder / _FINDINGS).read_text())
        publish_table("validation", rows[:_MAX_ROWS] or [{"finding": "none: every check passed"}], "What was found in the demonstrations")
    if (folder / _MARKDOWN).is_file():
        publish_markdown("validation-report", (folder / _MARKDOWN).read_text(), "The demonstrations, with pictures")
    if page_file.is_file():
        tracker.log_artifact(page_file, "validation")


def _stop(report: validation.ValidationReport) -> DatasetError | None:
    try:
        report.raise_if_stopped()
    except DatasetError as error:
        return error
    return None


def _row(source: Source, row: dict[str, Any], count: int) -> dict[str, Any]:
    return row if count == 1 else {"dataset": source.root.name, **row}


def _page_name(config: TrainConfig, sources: Sequence[Source]) -> str:
    return f"{sources[0].root.resolve().name if len(sources) == 1 else config.name}.html"


def _folder(key: str) -> Path:
    return home() / "validation" / key
