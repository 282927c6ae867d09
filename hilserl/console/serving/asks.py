"""Questions of other processes of this machine, such as whether a policy becomes the champion: a file each, and one for its answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hilserl.files import write_json

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MOST = 20
_LONGEST = 2000


def waiting(folder: Path) -> list[dict[str, Any]]:
    """Return the questions without an answer, as `state.asks` has them."""
    found = []
    for file in sorted(folder.glob("*.json"))[:_MOST]:
        name = file.stem
        if name.endswith(".answer") or not _NAME.fullmatch(name) or _answer_file(folder, name).exists():
            continue
        try:
            asked = json.loads(file.read_text())
            found.append({"ask": name, "kind": str(asked["kind"])[:40], "text": str(asked["text"])[:_LONGEST]})
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is being written, or taken back
    return found


def answer(folder: Path, name: str, value: bool, by: str) -> bool:
    """Answer a question; False: nobody asks it."""
    if all(ask["ask"] != name for ask in waiting(folder)):
        return False
    write_json(_answer_file(folder, name), {"value": value, "by": by})
    return True


def _answer_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.answer.json"
