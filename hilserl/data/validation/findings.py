"""What validation found, in the user's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        remedy: What settles it, each line being YAML to paste, a `hilserl` command, or a comment (see `remedies`); empty only
            where nothing need be done.
        title: The cause in a few words; empty for what the code is about in general.
    """

    code: str
    severity: Severity
    place: str
    message: str
    remedy: str = ""
    title: str = ""

    def __str__(self) -> str:
        return f"[{self.code}] {self.place}: {self.message}" + (f" → {self.remedy.replace('\n', '\n       ')}" if self.remedy else "")


def few(values: Sequence[int], most: int = 10) -> str:
    """List some numbers, and how many there are."""
    shown = ", ".join(map(str, values[:most]))
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"


def exclude(episodes: Sequence[int], when: str = "") -> str:
    """Write the configuration that leaves episodes out, and when to choose it."""
    line = f"dataset: {{exclude_episodes: [{', '.join(map(str, sorted(episodes)))}]}}"
    return f"{line}  # {when}" if when else line


def restore_or_exclude(episodes: Sequence[int]) -> str:
    """Write the two ways out of damaged episodes.

    Where those are all of them, `remedies.as_offered` takes the first one away again.
    """
    if not episodes:
        return "# restore the file from the recording"
    return f"{exclude(episodes, 'to train without')}\n# or restore the file from the recording"


@dataclass(frozen=True)
class Alignment:
    """How well the commanded motion explains the measured one, shifted in time.

    Attributes:
        lags: Shift of the measured motion behind the command [frames].
        correlation: Pearson correlation at each lag, over all episodes and axes.
        best_lag: The lag where it is highest; 0 when actions are paired with the frame that they were given at.
    """

    lags: tuple[int, ...]
    correlation: tuple[float, ...]
    best_lag: int


@dataclass(frozen=True)
class Drift:
    """One thing that the dataset says otherwise than the configuration.

    Attributes:
        key: Key of the configuration, or feature.
        dataset: What the dataset was recorded with.
        config: What the run wants.
    """

    key: str
    dataset: str
    config: str

    def __str__(self) -> str:
        return f"{self.key}: dataset {self.dataset}, config {self.config}"


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
        alignment: Replay alignment; None where nothing measured can be compared with the command.
        drift: What the dataset was recorded with and the configuration says otherwise.
    """

    root: str
    findings: tuple[Finding, ...]
    episodes: int = 0
    frames: int = 0
    fps: float = 0.0
    positives_per_episode: Mapping[int, int] | None = None
    alignment: Alignment | None = None
    drift: tuple[Drift, ...] = ()

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
