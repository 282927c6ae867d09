"""What settles the findings, as text to paste: only what changes something, and all of it together as one configuration.

Every line of a remedy is YAML of the configuration that loads as it stands, a `hilserl` command, or a comment. A
comment that begins with `# or: ` holds an alternative, so that pasting a whole remedy makes one consistent choice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml
from pydantic import ValidationError

from hilserl.config.loader import merge
from hilserl.config.models import Interpretation, TrainConfig
from hilserl.data.sources import Source
from hilserl.data.validation.findings import Finding, ValidationReport

OR = "# or: "
_EXCLUDED = "exclude_episodes"
_LIST = re.compile(rf"{_EXCLUDED}: \[[^\]]*\]")
_NOTHING = "# nothing in the configuration settles it: restore the files from the recording, or record again"


def change_of(line: str) -> dict[str, Any] | None:
    """Return what a line of a remedy changes in the configuration; None where it is a comment or a command."""
    if line.startswith(("#", "hilserl ")):
        return None
    try:
        value = yaml.safe_load(line)
    except yaml.YAMLError:
        return None
    return value if isinstance(value, dict) and value else None


def recommended(remedy: str) -> dict[str, Any]:
    """Return what the lines of a remedy that are no comments change, together."""
    change: dict[str, Any] = {}
    for line in remedy.splitlines():
        change = _united(change, change_of(line) or {})
    return change


def as_offered(config: TrainConfig, findings: Sequence[Finding], known: Collection[int]) -> list[Finding]:
    """Make the remedies fit the configuration: nothing that is set already, and never all episodes left out.

    Args:
        config: What the dataset was checked against.
        findings: As the checks wrote them, each knowing only its own damage.
        known: Episodes of the dataset, with those left out; empty where nobody knows them.
    """
    values = config.model_dump(mode="json")
    return [
        replace(finding, remedy=_offered(config, values, finding, frozenset(known))) if finding.remedy else finding for finding in findings
    ]


def everything_to_paste(
    config: TrainConfig, parts: Sequence[tuple[Source, ValidationReport]], base: Mapping[str, Any] | None = None
) -> str:
    """Merge what is recommended into one block of YAML; empty where nothing is.

    Args:
        config: The run's configuration.
        parts: Its datasets, and what was found in each.
        base: What the block begins with, so that it is a configuration of its own (`extends`).
    """
    values, block = config.model_dump(mode="json"), dict[str, Any]()
    sources = [source.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for source in config.dataset.sources]
    notes: list[str] = []
    for position, (source, report) in enumerate(parts):
        emptied = _leaves_nothing(source.config, report)
        for finding in report.findings:
            change = recommended(finding.remedy) if finding.severity != "informs" else {}
            if emptied and _EXCLUDED in (change.get("dataset") or {}):
                notes.append(f"# {source.root.name}: without every damaged episode none would be left: restore the files, or record again")
                change = {**change, "dataset": {key: value for key, value in change["dataset"].items() if key != _EXCLUDED}}
                change = {key: value for key, value in change.items() if value}
            if not change:
                continue
            tried = [dict(entry) for entry in sources]
            own = {key: value for key, value in (change.get("dataset") or {}).items() if sources and key in Interpretation.model_fields}
            if own:
                tried[position] = _united(tried[position], own)
                rest = {key: value for key, value in change["dataset"].items() if key not in own}
                change = {key: value for key, value in {**change, "dataset": rest}.items() if value or key != "dataset"}
            new = _united(block, change)
            if tried != sources:
                new = _united(new, {"dataset": {"sources": tried}})
            if _contradicts(block, change) or (own and _contradicts(sources[position], own)) or not _valid(values, new):
                notes.append(f"{OR}{_one_line(merge(change, {'dataset': {**change.get('dataset', {}), **own}} if own else {}))}")
                continue
            block, sources = new, tried
    if not block:
        return ""
    whole = merge(base or {}, block)
    text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, default_flow_style=None, width=10_000)
    return "\n".join([text.rstrip(), *dict.fromkeys(notes)])


def _offered(config: TrainConfig, values: dict[str, Any], finding: Finding, known: frozenset[int]) -> str:
    already = {index for index in config.dataset.exclude_episodes if not known or index in known}
    kept = []
    for line in finding.remedy.splitlines():
        prefix, text = (OR, line.removeprefix(OR)) if line.startswith(OR) else ("", line)
        change = change_of(text)
        if change is None:
            kept.append(line)
            continue
        left_out = (change.get("dataset") or {}).get(_EXCLUDED) if isinstance(change.get("dataset"), dict) else None
        if left_out is not None and finding.place != f"dataset.{_EXCLUDED}":
            if known and set(left_out) >= known - already:
                continue
            episodes = ", ".join(map(str, sorted(already | set(left_out))))
            text = _LIST.sub(f"{_EXCLUDED}: [{episodes}]", text)
        elif merge(values, change) == values:
            continue
        kept.append(prefix + text)
    if not _valid(values, recommended("\n".join(kept))):
        kept = [line if change_of(line) is None else f"# {line}" for line in kept]
    if kept and re.match(r"# or (?!:)", kept[0]):
        kept[0] = f"# {kept[0].removeprefix('# or ')}"
    return "\n".join(kept) or _NOTHING


def _leaves_nothing(config: TrainConfig, report: ValidationReport) -> bool:
    """Whether leaving out what every finding on its own leaves out, leaves no episode."""
    changes = [recommended(finding.remedy).get("dataset") for finding in report.findings if finding.severity != "informs"]
    episodes = {index for change in changes if isinstance(change, dict) for index in change.get(_EXCLUDED) or ()}
    return report.episodes > 0 and len(episodes - set(config.dataset.exclude_episodes)) >= report.episodes


def _united(block: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Merge, with the episodes that both leave out."""
    united = dict(block)
    for key, value in change.items():
        old = united.get(key)
        if key == _EXCLUDED and isinstance(old, list) and isinstance(value, list):
            united[key] = sorted({*old, *value})
        elif isinstance(old, Mapping) and isinstance(value, Mapping) and value:
            united[key] = _united(old, value)
        else:
            united[key] = value
    return united


def _contradicts(block: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether `change` sets a value that `block` sets otherwise."""
    for key, value in change.items():
        if key not in block or key == _EXCLUDED:
            continue
        if isinstance(block[key], Mapping) and isinstance(value, Mapping):
            if _contradicts(block[key], value):
                return True
        elif block[key] != value:
            return True
    return False


def _valid(values: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    try:
        TrainConfig.model_validate(merge(values, change))
    except ValidationError:
        return False
    return True


def _one_line(change: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(change), sort_keys=False, allow_unicode=True, default_flow_style=True, width=10_000).strip()
    return text[1:-1] if len(change) == 1 else text
