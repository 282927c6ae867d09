"""What the doctor found, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        verdict: `FAIL` keeps the arm from being driven, `note` does not.
        what: What was looked at.
        text: What was found.
        remedy: What to do about it; empty where there is nothing to do.
    """

    verdict: Verdict
    what: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.verdict:<5} {self.what:<14} {self.text}{f' {self.remedy}' if self.remedy else ''}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one examination.

    Attributes:
        robot_id: Whose.
        findings: In the order in which they were made.
        picture: What the policy sees now, beside a demonstration; None: there was nothing to see.
    """

    robot_id: str
    findings: tuple[Finding, ...]
    picture: Path | None = None

    @property
    def failures(self) -> tuple[Finding, ...]:
        """What keeps the arm from being driven."""
        return tuple(finding for finding in self.findings if finding.verdict == "FAIL")

    @property
    def summary(self) -> str:
        """One sentence."""
        notes = sum(finding.verdict == "note" for finding in self.findings)
        if self.failures:
            return f"Robot `{self.robot_id}` is not ready: {len(self.failures)} of {len(self.findings)} checks failed."
        return f"Robot `{self.robot_id}` is ready: {len(self.findings)} checks, {notes} with a note."

    def markdown(self) -> str:
        """The report for a page."""
        signs = {"ok": "✅", "note": "🟡", "FAIL": "❌"}
        rows = [f"| {signs[f.verdict]} | {f.what} | {_cell(f.text)} | {_cell(f.remedy)} |" for f in self.findings]
        return "\n".join((f"### {self.summary}", "", "| | check | found | what to do |", "|---|---|---|---|", *rows, ""))


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of several verdicts."""
    return max(verdicts, key=("ok", "note", "FAIL").index, default="ok")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
