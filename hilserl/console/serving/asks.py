"""Questions of other processes of this machine, such as whether a policy becomes the champion: a file each, and one for its answer."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import psutil

from hilserl.files import home, write_json

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MOST = 20
_LONGEST = 2000


def asks_folder() -> Path:
    """Return where questions lie."""
    return home() / "console" / "asks"


def put(folder: Path, name: str, kind: str, text: str) -> None:
    """Ask whoever has a console of this machine open, for as long as this process lives, or until `take_back`."""
    write_json(folder / f"{name}.json", {"kind": kind, "text": text, "pid": os.getpid()})


def answered(folder: Path, name: str) -> tuple[bool, str] | None:
    """Return the answer to a question and who gave it; None: there is none yet."""
    try:
        said = json.loads(_answer_file(folder, name).read_text())
        return bool(said["value"]), str(said["by"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # or it is being written


def take_back(folder: Path, name: str) -> None:
    """Ask no more."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    _answer_file(folder, name).unlink(missing_ok=True)


def waiting(folder: Path) -> list[dict[str, Any]]:
    """Return the questions without an answer, as `state.asks` has them."""
    found = []
    for file in sorted(folder.glob("*.json"))[:_MOST]:
        name = file.stem
        if name.endswith(".answer") or not _NAME.fullmatch(name) or _answer_file(folder, name).exists():
            continue
        try:
            asked = json.loads(file.read_text())
            if "pid" in asked and not psutil.pid_exists(int(asked["pid"])):
                continue
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
