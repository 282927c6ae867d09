"""What was done to make a dataset, kept inside it as `meta/hilserl_edits.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hilserl.files import write_json

RECORD_PATH = "meta/hilserl_edits.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Edit:
    """One command.

    Attributes:
        command: Such as `trim`.
        arguments: What it was given besides folders.
    """

    command: str
    arguments: Mapping[str, Any]


def write_record(root: Path, edit: Edit, sources: Mapping[Path, str], episodes: Sequence[Mapping[str, Any]]) -> None:
    """Write the record of an edit into the new dataset at `root`.

    Args:
        root: The new dataset, perhaps still under its temporary name.
        edit: What was done.
        sources: Content hash of every source, by folder.
        episodes: For each new episode: `source` (its folder), `episode`, and the frames [`start`, `stop`) taken.
    """
    write_json(
        root / RECORD_PATH,
        {
            "format": FORMAT_VERSION,
            "command": edit.command,
            "arguments": dict(edit.arguments),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "hilserl": version("hilserl"),
            "sources": [{"folder": str(path), "content_hash": digest, "record": read_record(path)} for path, digest in sources.items()],
            "episodes": list(episodes),
        },
    )


def read_record(root: Path) -> dict[str, Any] | None:
    """Return the record inside a dataset, or None where it has none that can be read."""
    try:
        record = json.loads((root / RECORD_PATH).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
