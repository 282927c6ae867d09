"""The learner's metrics over the run, on disk as they come, so that a checkpoint need not carry them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)


MAX_ENTRIES = 10_000  # some 15 MB; of the older half, every second is then left out


class MetricHistory:
    """One JSON line an entry, about one a second, thinned towards the past; its loss costs a picture, never a run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._says_failure = True
        self.entries: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self.entries)

    def restore(self, through_step: float) -> None:
        """Read the entries up to an environment step, and forget the others on disk too."""
        kept, damaged = [], 0
        for line in self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []:
            try:
                entry = {str(name): float(value) for name, value in json.loads(line).items()}
                is_due = entry["step"] <= through_step
            except (ValueError, TypeError, AttributeError, KeyError):
                damaged += 1
                continue
            if is_due:
                kept.append(line)
                self.entries.append(entry)
        if damaged:
            logger.warning("%s: %d lines are damaged, and not in the learning curve", self._file, damaged)
        self._write(b"".join(kept), "wb")

    def append(self, entry: Mapping[str, float]) -> None:
        """Add one entry."""
        self.entries.append(dict(entry))
        if len(self.entries) > MAX_ENTRIES:
            self.entries = self.entries[: -MAX_ENTRIES // 2 : 2] + self.entries[-MAX_ENTRIES // 2 :]
            self._write(b"".join((json.dumps(kept) + "\n").encode() for kept in self.entries), "wb")
        else:
            self._write((json.dumps(self.entries[-1]) + "\n").encode(), "ab")

    def _write(self, data: bytes, mode: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open(mode) as file:
                file.write(data)
        except OSError as error:
            if self._says_failure:
                self._says_failure = False
                logger.warning("%s cannot be written, so a learning curve after a restart will have a gap: %s", self._file, error)
