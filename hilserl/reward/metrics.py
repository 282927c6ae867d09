"""How good a classifier is, by frame and by episode, always with the counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from hilserl.reward.debounce import Verdict


@dataclass(frozen=True)
class Confusion:
    """Counts of right and wrong answers."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def of(cls, said: Sequence[bool] | np.ndarray, true: Sequence[bool] | np.ndarray) -> Self:
        """Compare answers with the truth, both bool, shape (N,)."""
        said, true = np.asarray(said, bool), np.asarray(true, bool)
        return cls(int((said & true).sum()), int((said & ~true).sum()), int((~said & true).sum()), int((~said & ~true).sum()))

    @property
    def total(self) -> int:
        """How many were judged."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    @property
    def right(self) -> int:
        """How many were judged right."""
        return self.true_positives + self.true_negatives

    @property
    def accuracy(self) -> float | None:
        """Share that was judged right; None where there was nothing to judge."""
        return _share(self.right, self.total)

    @property
    def precision(self) -> float | None:
        """Share of the claimed successes that were some; None where none was claimed."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Share of the successes that were found; None where there were none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float | None:
        """Share of the failures that were found; None where there were none."""
        return _share(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of recall and specificity where they exist: 0.5 is what always giving one answer reaches."""
        known = [value for value in (self.recall, self.specificity) if value is not None]
        return sum(known) / len(known) if known else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return counts and shares as JSON values."""
        return asdict(self) | {"accuracy": self.accuracy, "precision": self.precision, "recall": self.recall}


@dataclass(frozen=True)
class Metrics:
    """Quality on some episodes.

    Attributes:
        frames: Each frame by itself, probability against threshold.
        episodes: Whether an episode contains success, after debouncing.
        early: Successful episodes whose success was called before the first frame that is marked so.
        flickers: Changes of opinion that debouncing ignored.
    """

    frames: Confusion
    episodes: Confusion
    early: int
    flickers: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"frames": self.frames.to_dict(), "episodes": self.episodes.to_dict(), "early": self.early, "flickers": self.flickers}


def measure(verdicts: Sequence[Verdict], labels: Sequence[np.ndarray], threshold: float) -> Metrics:
    """Compare verdicts with marked frames, bool, shape (T,) an episode."""
    above = np.concatenate([verdict.probability >= threshold for verdict in verdicts])
    early = sum(
        label.any() and verdict.first_success is not None and verdict.first_success < int(label.argmax())
        for verdict, label in zip(verdicts, labels, strict=True)
    )
    return Metrics(
        frames=Confusion.of(above, np.concatenate(labels)),
        episodes=Confusion.of([verdict.first_success is not None for verdict in verdicts], [bool(label.any()) for label in labels]),
        early=int(early),
        flickers=sum(verdict.flickers for verdict in verdicts),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
