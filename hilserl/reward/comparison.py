"""A new version beside the old one, on what neither learned from: only what is no worse may replace it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hilserl.reward.agreement import frames_of
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.fit import Seen
from hilserl.reward.labelled import LabelledEpisode, require_views
from hilserl.reward.metrics import Metrics, measure


@dataclass(frozen=True)
class Side:
    """What one version says of both sets.

    Attributes:
        version: Of the classifier.
        right: Held-out episodes judged right.
        wrongly_rewarded: Episodes rewarded though they failed, or before it was time.
        missed: Successful episodes that were not rewarded.
        balanced_accuracy: Of the held-out frames.
        hard_right: Frames of disagreements judged right.
    """

    version: str
    right: int
    wrongly_rewarded: int
    missed: int
    balanced_accuracy: float
    hard_right: int


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same episodes and frames.

    Attributes:
        new: The candidate.
        old: What it is to replace.
        episodes: Held-out episodes that neither learned from.
        hard: Held-out frames of disagreements.
        against: Why the new one may not replace the old; empty where it may.
    """

    new: Side
    old: Side
    episodes: int
    hard: int
    against: tuple[str, ...]

    @property
    def may_replace(self) -> bool:
        """Whether the new version is no worse on either set."""
        return not self.against

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "may_replace": self.may_replace}

    @property
    def markdown(self) -> str:
        """The comparison as a table."""
        rows = [
            (f"held-out episodes judged right, of {self.episodes}", self.new.right, self.old.right),
            ("of them wrongly rewarded", self.new.wrongly_rewarded, self.old.wrongly_rewarded),
            ("of them successes missed", self.new.missed, self.old.missed),
            ("balanced accuracy, frames", f"{self.new.balanced_accuracy:.1%}", f"{self.old.balanced_accuracy:.1%}"),
            (f"frames of disagreements judged right, of {self.hard}", self.new.hard_right, self.old.hard_right),
        ]
        verdict = "The new version may replace the old." if self.may_replace else f"It may not: {'; '.join(self.against)}."
        lines = [
            f"| | new `{self.new.version}` | old `{self.old.version}` |",
            "|---|---|---|",
            *(f"| {a} | {b} | {c} |" for a, b, c in rows),
        ]
        return "\n".join([*lines, "", verdict])


def compare_versions(
    new: SuccessClassifier, old: SuccessClassifier, held_out: Sequence[LabelledEpisode], hard: Sequence[Seen]
) -> Comparison:
    """Judge the same episodes and frames with both.

    Args:
        new: The candidate.
        old: What it is to replace.
        held_out: Episodes held out from the new one. Those that the old one learned from are left out: they would favour it.
        hard: Frames of disagreements that were held out from the new one, as it sees them; the old one is asked only if it sees alike.

    Raises:
        DatasetError: A camera that the old one looks at is missing, or a video is damaged.
    """
    parts = old.training.get("episodes", {})
    known = {episode["content"] for name in ("train", "choice") for episode in parts.get(name, [])}
    fair = [episode for episode in held_out if episode.content not in known]
    for classifier in (new, old):
        require_views([episode.dataset for episode in fair], classifier.views)
    sides: list[Side] = []
    against: list[str] = []
    for classifier in (new, old):
        metrics = _measure(classifier, fair)
        sides.append(
            Side(
                classifier.version,
                metrics.episodes.right - metrics.early if metrics else 0,
                metrics.episodes.false_positives + metrics.early if metrics else 0,
                metrics.episodes.false_negatives if metrics else 0,
                metrics.frames.balanced_accuracy if metrics else 0.0,
                sum(_hard_right(classifier, seen) for seen in hard) if classifier.schema_hash == new.schema_hash else 0,
            )
        )
    candidate, incumbent = sides
    if not fair:
        against.append("no held-out episode that the old version did not learn from: record new ones")
    if candidate.wrongly_rewarded > incumbent.wrongly_rewarded:
        against.append(f"it rewards {candidate.wrongly_rewarded} episodes wrongly, the old one {incumbent.wrongly_rewarded}")
    if candidate.right < incumbent.right:
        against.append(f"it judges {candidate.right} of {len(fair)} episodes right, the old one {incumbent.right}")
    count = sum(len(seen.success) for seen in hard)
    if candidate.hard_right < incumbent.hard_right:
        against.append(f"it judges {candidate.hard_right} of {count} frames of disagreements right, the old one {incumbent.hard_right}")
    return Comparison(candidate, incumbent, len(fair), count, tuple(against))


def _measure(classifier: SuccessClassifier, episodes: Sequence[LabelledEpisode]) -> Metrics | None:
    if not episodes:
        return None
    verdicts = [classifier.judge(frames_of(episode.dataset, episode.position, classifier)) for episode in episodes]
    return measure(verdicts, [episode.success for episode in episodes], classifier.threshold)


def _hard_right(classifier: SuccessClassifier, seen: Seen) -> int:
    above = classifier.probabilities_seen(seen.images, seen.state) >= classifier.threshold
    return int((above == seen.success).sum())
