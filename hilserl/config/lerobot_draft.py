"""An import of a LeRobot file while it is made: our values so far, and a note per key of theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hilserl.config.models import TrainConfig

Status = Literal["mapped", "adapted", "unsupported", "no effect", "default"]


@dataclass(frozen=True)
class ImportNote:
    """What became of one key.

    Attributes:
        key: LeRobot's, dotted.
        value: Its value in the file; for `default` LeRobot's default.
        status: `mapped`, `adapted` (with a difference), `unsupported`, `no effect`, `default` (not in
            the file, and the defaults differ).
        target: Our key that took it.
        reason: Why, or what differs.
    """

    key: str
    value: Any
    status: Status
    target: str | None = None
    reason: str = ""


@dataclass
class Draft:
    """An import while it is made.

    Attributes:
        file: Where the keys come from.
        leaves: LeRobot's keys, dotted, with their values.
        values: Ours, nested.
        notes: One per key.
        problems: What stops the import, in words.
    """

    file: Path
    leaves: Mapping[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[ImportNote] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _sources: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def note(self, key: str, value: Any, status: Status, reason: str = "", target: str | None = None) -> None:
        """Say what became of a key."""
        self.notes.append(ImportNote(key, value, status, target, reason))

    def put(self, key: str, value: Any, target: str, reason: str = "", *, ours: Any = None) -> None:
        """Let `value` (or `ours`, its translation) be our `target`; two keys must not disagree about it."""
        ours = value if ours is None else ours
        if target in self._sources and self._sources[target][1] != ours:
            other, theirs = self._sources[target]
            self.problems.append(
                f"`{other}` says {json.dumps(theirs)} and `{key}` says {json.dumps(ours)} for the same thing, `{target}`. Keep one."
            )
            return
        self._sources[target] = (key, ours)
        self.put_quietly(target, ours)
        self.note(key, value, "adapted" if reason else "mapped", reason, target)

    def put_quietly(self, target: str, value: Any) -> None:
        """Set our `target` where no single key asked for it."""
        place = self.values
        *path, name = target.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value

    def note_default(self, name: str, target: str, theirs: Any) -> None:
        """Say that the file is silent about something for which the two defaults differ."""
        if target in self._sources:
            return
        ours: Any = TrainConfig()
        for part in target.split("."):
            ours = getattr(ours, part)
        self.note(name, theirs, "default", f"LeRobot's default; here {json.dumps(ours)}", target)

    def find(self, *names: str) -> dict[str, Any]:
        """Return the keys of the file that end in one of `names`, with their values, None left out."""
        return {
            key: value
            for key, value in self.leaves.items()
            if value is not None and any(key.endswith(f".{name}") or key == name for name in names)
        }

    def first(self, *names: str) -> tuple[str, Any]:
        """Return the key that `find` finds, with its value; `("", None)` if there is none.

        A second one that says the same is noted; one that says something else is a problem.
        """
        found = self.find(*names)
        if not found:
            return "", None
        (key, value), *others = found.items()
        for other, theirs in others:
            if theirs == value:
                self.note(other, theirs, "no effect", f"says the same as `{key}`")
            else:
                self.problems.append(f"`{key}` says {json.dumps(value)} and `{other}` says {json.dumps(theirs)}. Keep one.")
        return key, value
