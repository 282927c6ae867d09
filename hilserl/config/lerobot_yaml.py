"""Write an imported LeRobot configuration as a YAML file of ours, each value with the key that it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from hilserl.config.lerobot import ImportedConfig
from hilserl.config.lerobot_fields import DIALECT_TEXT

_COMMENT_COLUMN = 52


def to_yaml(imported: ImportedConfig, source: Path) -> str:
    """Write the values that the file decides, and below them what it asks for that is not available here.

    Reading the result gives the same configuration as reading the LeRobot file.
    """
    taken = [note for note in imported.notes if note.target and note.status in ("mapped", "adapted")]
    origins = [(target, note) for note in taken for target in str(note.target).split(", ")]
    lines = [
        f"# From {source.name}, written for LeRobot {DIALECT_TEXT[imported.dialect]}.",
        "# What is not here has our default: `hilserl config FILE`.",
    ]
    for line, path in _lines(imported.values):
        note = next((note for target, note in origins if fnmatch(path, target)), None)
        comment = note.key + (f": {note.reason}" if note.reason else "") if note else ""
        lines.append(f"{line:<{_COMMENT_COLUMN}}  # {comment}" if comment else line)
    missing = [note for note in imported.notes if note.status == "unsupported"]
    if missing:
        lines += ["", "# Asked for in the LeRobot file, and not available here:"]
        lines += [f"#   {note.key} = {json.dumps(note.value, default=str)}: {note.reason}" for note in missing]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        here = f"{path}{key}"
        start = "  " * depth + f"{_scalar(key)}:"
        if isinstance(value, Mapping) and value:
            yield start, here
            yield from _lines(value, f"{here}.", depth + 1)
        else:
            yield f"{start} {_scalar(value)}", here


def _scalar(value: Any) -> str:
    """Write one value on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
