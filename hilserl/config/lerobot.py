"""Read a LeRobot HIL-SERL train configuration (JSON), in any of its three dialects.

LeRobot has moved these settings twice and ships no migrator; it rejects a file of another version
key by key. Here each key of each dialect is known (`lerobot_fields`): it is mapped, or it is listed
with the reason why it has no effect. Nothing is dropped in silence, nothing unknown is accepted.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilserl.config.lerobot_draft import Draft, ImportNote
from hilserl.config.lerobot_fields import DEFAULTS, DIALECT_TEXT, OTHER_ALGORITHMS, RULES, Dialect, Rule
from hilserl.config.lerobot_parts import PARTS
from hilserl.errors import ConfigError

_MAY_BE_NULL = {"policy.target_entropy", "policy.num_subsample_critics"}


@dataclass(frozen=True)
class ImportedConfig:
    """What a LeRobot file says, in our words.

    Attributes:
        values: Nested, for `TrainConfig.model_validate`.
        notes: What became of each key, in the file's order; then the defaults that differ.
        dialect: Which LeRobot the file was written for.
    """

    values: dict[str, Any]
    notes: tuple[ImportNote, ...]
    dialect: Dialect


def import_lerobot_config(file: str | Path) -> ImportedConfig:
    """Translate a LeRobot train configuration.

    Raises:
        ConfigError: The file is no JSON, trains another algorithm, holds a key that no LeRobot
            knows (with the nearest one), or says two different things; all findings in one message.
    """
    file = Path(file)
    raw = _read(file)
    _refuse_other_algorithms(raw, file)
    dialect = detect_dialect(raw)
    leaves = dict(_leaves(raw))
    unknown = [path for path in leaves if rule_of(path) is None]
    if unknown:
        raise ConfigError("\n".join(_describe_unknown(path, leaves[path], file, dialect) for path in unknown))
    draft = Draft(file, leaves)
    for path, value in leaves.items():
        rule = rule_of(path)
        assert rule is not None
        if rule.target is not None and (value is not None or rule.target in _MAY_BE_NULL):
            draft.put(path, value, rule.target, rule.reason)
        elif rule.target is None and not rule.is_part:
            draft.note(path, value, "unsupported" if rule.unless is not None and value not in rule.unless else "no effect", rule.reason)
    for part in PARTS:
        part(draft)
    for key, (target, theirs) in DEFAULTS.items():
        draft.note_default(key, target, theirs)
    noted = {note.key for note in draft.notes}
    for path in leaves.keys() - noted:
        assert leaves[path] is None or draft.problems, f"{path} would be dropped in silence"
        draft.note(path, None, "no effect", "null")
    if draft.problems:
        raise ConfigError("\n".join(f"{file}: {problem}" for problem in draft.problems))
    order = {path: index for index, path in enumerate(leaves)}
    notes = sorted(draft.notes, key=lambda note: order.get(note.key, len(order)))
    return ImportedConfig(draft.values, tuple(notes), dialect)


def detect_dialect(raw: Mapping[str, Any]) -> Dialect:
    """Tell which LeRobot a file was written for."""
    env = raw.get("env") or {}
    if raw.get("algorithm") or (raw.get("policy") or {}).get("type") == "gaussian_actor":
        return "0.6"
    return "0.3.3" if env.get("wrapper") is not None else "0.5"


def describe_import(imported: ImportedConfig) -> str:
    """Return a table for a person: each key of the file, its value, and what became of it."""
    lines = [f"LeRobot {DIALECT_TEXT[imported.dialect]}"]
    titles = {
        "mapped": "Taken over",
        "adapted": "Taken over, with a difference",
        "unsupported": "Not available here (yet)",
        "no effect": "Without effect here",
        "default": "Not in the file, and our default is not LeRobot's",
    }
    for status, title in titles.items():
        notes = [note for note in imported.notes if note.status == status]
        if not notes:
            continue
        lines += ["", f"{title} ({len(notes)})"]
        width = max(len(note.key) for note in notes)
        for note in notes:
            shown = json.dumps(note.value, default=str)
            shown = shown if len(shown) <= 40 else shown[:37] + "..."
            target = f" -> {note.target}" if note.target else ""
            reason = f"  ({note.reason})" if note.reason else ""
            lines.append(f"  {note.key:<{width}}  {shown}{target}{reason}")
    return "\n".join(lines)


def rule_of(path: str) -> Rule | None:
    """Find the rule of a dotted path: literal first, then with wildcards for names that users choose."""
    if path in RULES:
        return RULES[path]
    parts = path.split(".")
    for pattern, rule in RULES.items():
        wanted = pattern.split(".")
        if wanted[-1] == "**" and parts[: len(wanted) - 1] == wanted[:-1]:
            return rule
        if len(wanted) == len(parts) and all(want in ("*", part) for want, part in zip(wanted, parts, strict=True)):
            return rule
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}).") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: must hold a JSON object, got {type(raw).__name__}.")
    return raw


def _refuse_other_algorithms(raw: Mapping[str, Any], file: Path) -> None:
    policy = raw.get("policy")
    if policy is None:
        kind = "a recording configuration" if "mode" in raw else "no train configuration"
        raise ConfigError(
            f"{file}: has no `policy`, so it is {kind} of LeRobot. Give the train configuration "
            "(`train_config.json`), or write a YAML file; the shipped ones are examples."
        )
    for section in (raw, policy):
        if not isinstance(section, Mapping):
            raise ConfigError(f"{file}: `policy` must be an object, got {type(section).__name__}.")
    accepted = "`sac` (LeRobot up to 0.5), or `gaussian_actor` with `algorithm.type: sac` (0.6)"
    kind = policy.get("type")
    if kind not in ("sac", "gaussian_actor"):
        reason = OTHER_ALGORITHMS.get(str(kind), "it is not known here")
        raise ConfigError(f"{file}: `policy.type` is {json.dumps(kind)}: {reason}. HIL-SERL is SAC; accepted: {accepted}.")
    algorithm = (raw.get("algorithm") or {}).get("type", "sac")
    if algorithm != "sac":
        raise ConfigError(f"{file}: `algorithm.type` is {json.dumps(algorithm)}. HIL-SERL is SAC; accepted: {accepted}.")


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk to the values that have a rule; a section that is null says nothing."""
    for key, value in section.items():
        path = f"{prefix}{key}"
        if rule_of(path) is not None:
            yield path, value
        elif isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.")
        elif not (value in (None, {}) and any(_starts(pattern, path) for pattern in RULES)):
            yield path, value


def _starts(pattern: str, path: str) -> bool:
    wanted, parts = pattern.split("."), path.split(".")
    return len(wanted) > len(parts) and all(want in ("*", part) for want, part in zip(wanted, parts, strict=False))


def _describe_unknown(path: str, value: Any, file: Path, dialect: Dialect) -> str:
    """Name the nearest key beside it, or the same name elsewhere."""
    parent, _, name = path.rpartition(".")
    beside = {pattern.split(".")[parent.count(".") + 1 if parent else 0] for pattern in RULES if not parent or _starts(pattern, parent)}
    beside -= {"*", "**"}
    close = difflib.get_close_matches(name, beside, n=1, cutoff=0.6)
    if close:
        hint = f" Did you mean `{f'{parent}.' if parent else ''}{close[0]}`?"
    else:
        elsewhere = [pattern for pattern in RULES if pattern.rpartition(".")[2] == name and "*" not in pattern]
        hint = (
            f" LeRobot has `{elsewhere[0]}`; did you mean that?"
            if elsewhere
            else f" Known beside it: {', '.join(sorted(beside)) or 'nothing'}."
        )
    shown = json.dumps(value, default=str)
    return f"{file}: `{path}` is in no LeRobot (got {shown[:60]}; the file reads as {DIALECT_TEXT[dialect]}).{hint}"
