"""Findings in a few plain words, and not more of one kind than a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hilserl.data.validation.findings import Finding

_TITLES = {
    "D01": "Features that the policy wants",
    "D02": "Where the reward comes from",
    "D03": "How episodes end",
    "D04": "What the numbers of the state are",
    "D05": "Actions that never change",
    "D06": "What the actions are",
    "D07": "Range and coding of the actions",
    "D08": "What the gripper's label is",
    "D09": "Actions and observations in step",
    "D10": "Room for the demonstrations",
    "D11": "A stale offline buffer",
    "D12": "Cached files",
    "D13": "Range of the pixels",
    "D14": "Size and crop of the images",
    "D15": "Resolution of the recording",
    "D16": "State that never changes",
    "D17": "Units of the state",
    "D18": "Integrity of the files",
    "D19": "Clean episodes",
    "D20": "Configuration against data",
    "D21": "The imported configuration",
    "D22": "Video decoder",
    "L13": "Rewards before the end",
}


def title_of(finding: Finding) -> str:
    """Return the cause of a finding, or what its code is about."""
    return finding.title or _TITLES.get(finding.code, "Check")


def condensed(findings: Sequence[Finding], most: int) -> list[tuple[Finding, int]]:
    """Keep at most `most` findings of a kind (severity, code and title), in their order.

    Returns:
        Each with how many more of its kind follow unseen: 0 but for the last kept one.
    """
    total = Counter((finding.severity, finding.code, finding.title) for finding in findings)
    seen: Counter[tuple[str, str, str]] = Counter()
    kept = []
    for finding in findings:
        kind = finding.severity, finding.code, finding.title
        seen[kind] += 1
        if seen[kind] <= most:
            kept.append((finding, total[kind] - most if seen[kind] == most else 0))
    return kept
