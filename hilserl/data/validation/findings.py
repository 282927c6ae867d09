"""What validation found, in the user's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hilserl.errors import DatasetError

Severity = Literal["stops", "warns", "informs"]


@dataclass(frozen=True)
class Finding:
    """One thing that validation has to say.

    Attributes:
        code: Row of the list of failures, such as `D02`.
        severity: `stops` the run, `warns`, or `informs`.
        place: Where: a file, key, episode or frame.
        message: What it is and what it would do to learning.
        remedy: What to paste or do; empty where nothing need be done.
    """

    code: str
    severity: Severity
    place: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"[{self.code}] {self.place}: {self.message}" + (f" → {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class ValidationReport:
    """Everything found in one dataset, with its numbers.

    Attributes:
        root: Folder of the dataset, as text.
        findings: Stops first, then warnings, then information.
        episodes: Number of episodes.
        frames: Number of frames.
        fps: Frames per second; 0 where it could not be read.
        positives_per_episode: Rewarded frames by episode.
    """

    root: str
    findings: tuple[Finding, ...]
    episodes: int = 0
    frames: int = 0
    fps: float = 0.0
    positives_per_episode: Mapping[int, int] | None = None

    @property
    def stops(self) -> tuple[Finding, ...]:
        """Findings that forbid to go on."""
        return tuple(finding for finding in self.findings if finding.severity == "stops")

    def raise_if_stopped(self) -> None:
        """Stop with one error that lists every reason.

        Raises:
            DatasetError: There is at least one.
        """
        if self.stops:
            lines = "\n".join(f"  {number}. {finding}" for number, finding in enumerate(self.stops, 1))
            raise DatasetError(f"{self.root}: {len(self.stops)} thing(s) must be settled before training:\n{lines}")

    def rows(self) -> list[dict[str, str]]:
        """Return the findings as table rows."""
        return [{"severity": f.severity, "code": f.code, "place": f.place, "message": f.message, "remedy": f.remedy} for f in self.findings]

    def summary(self) -> dict[str, float]:
        """Return the numbers worth showing."""
        positives = self.positives_per_episode or {}
        return {
            "episodes": self.episodes,
            "frames": self.frames,
            "fps": self.fps,
            "positives": sum(positives.values()),
            "episodes_with_positives": sum(count > 0 for count in positives.values()),
        }
