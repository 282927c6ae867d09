"""The learner's metrics over the run, on disk as they come, so that a checkpoint need not carry them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)


class MetricHistory:
    """One JSON line an entry, about one a second; its loss costs a picture, never a run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._says_failure = True
        self.entries: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self.entries)

    def restore(self, count: int) -> None:
        """Read the first `count` entries, and forget the others on disk too."""
        lines = self._file.read_bytes().splitlines(keepends=True)[:count] if self._file.exists() else []
        for number, line in enumerate(lines):
            try:
                self.entries.append({str(name): float(value) for name, value in json.loads(line).items()})
            except (ValueError, TypeError, AttributeError):
                logger.warning("%s: line %d is damaged; the metrics behind it are not in the learning curve", self._file, number + 1)
                lines = lines[:number]
                break
        self._write(b"".join(lines), "wb")

    def append(self, entry: Mapping[str, float]) -> None:
        """Add one entry."""
        self.entries.append(dict(entry))
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
