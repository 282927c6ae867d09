"""Phases: the policy meant, the registry, the rule, and the promotion."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl.champions import (
    Verdict,
    champion_of,
    judge_candidate,
    note_evaluation,
    promote,
    register_candidate,
    require_version,
)
from hilserl.config import TrackingConfig, TrainConfig
from hilserl.errors import ServiceError
from hilserl.evaluation import EvaluationResult
from hilserl.evaluation.source import Source, find_policy
from hilserl.files import home, write_json
from hilserl.learner.loop import LearnerResult
from hilserl.report.evaluation_page import comparison_table, write_evaluation_page
from hilserl.runs import RunFolder
from hilserl.tracking import Tracker
from hilserl.tracking.registry import Version
from tasks.artifacts import publish_markdown

REGISTER = "register-policy"


@dataclass(frozen=True)
class Contest:
    """A candidate, the champion it is compared with, and the rule's verdict.

    Attributes:
        candidate: Whom.
        champion: In the registry now; None: none yet.
        verdict: By the rule.
        figures: Markdown, for a person who decides.
        page: With maps and the video.
    """

    candidate: Source
    champion: Source | None
    verdict: Verdict
    figures: str
    page: Path

    @property
    def question(self) -> str:
        """In one line, for a person to whom the rule leaves it."""
        instead = f" in place of {self.champion.shown}" if self.champion is not None else ""
        return f"Make {self.candidate.shown} the champion{instead}? The rule does not: {self.verdict.why}. The figures: {self.page}"


@task(name=REGISTER, cache_policy=NO_CACHE, persist_result=False)
def register_policy(
    config: TrainConfig, run: RunFolder, learned: LearnerResult, evaluated: EvaluationResult | None, tracker: Tracker
) -> Version | None:
    """Register what was learned as the candidate of its task. A registry that is away costs no training: the page says what to do."""
    if not config.tracking.enable:
        return None
    facts = {"run": run.run_id, "evaluated": "not yet" if evaluated is None else evaluated.shown}
    try:
        version = register_candidate(config, learned.policy, run_id=tracker.wait_ready(), facts=facts)
    except ServiceError as error:
        text = f"The policy is not registered: {error}\n\nWhen MLflow is back: `uv run hilserl policies register {run.path}`\n"
        publish_markdown("registered", text, "Not registered")
        return None
    publish_markdown(
        "registered",
        f"`{version.uri}` is the candidate of `{version.name}`. To evaluate it against the champion:\n\n"
        f"```\nuv run prefect deployment run evaluate/policy -p policy=models:/{version.name}@candidate\n```\n",
        "The candidate",
    )
    run.update(registered=version.uri)
    return version


@task(name="find-policy", cache_policy=NO_CACHE, persist_result=False)
def find(policy: str, tracking: TrackingConfig) -> Source:
    """Fetch what is meant, checked against its hash."""
    return find_policy(policy, tracking=tracking)


@task(name="find-champion", cache_policy=NO_CACHE, persist_result=False)
def find_champion(config: TrainConfig) -> Source | None:
    """Fetch the champion of the task; None where there is none."""
    champion = champion_of(config) if config.tracking.enable else None
    return None if champion is None else find_policy(champion.uri, tracking=config.tracking)


def reigns(candidate: Source, champion: Source | None) -> bool:
    """Tell whether the candidate is the champion already."""
    if champion is None or candidate.version is None or champion.version is None:
        return False
    return candidate.version.content_hash == champion.version.content_hash


@task(name="compare-policies", cache_policy=NO_CACHE, persist_result=False)
def compare(
    config: TrainConfig, candidate: Source, evaluated: EvaluationResult, champion: Source | None, its: EvaluationResult | None, folder: Path
) -> Contest:
    """Apply the rule, and publish the figures and the page."""
    verdict = Verdict(False, "it is the champion already") if reigns(candidate, champion) else judge_candidate(evaluated, its)
    results = [(candidate.shown, evaluated)] + ([(champion.shown, its)] if champion is not None and its is not None else [])
    page = write_evaluation_page(results, folder / "evaluation.html")
    rows = comparison_table(results)
    head, line = f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows[1:])
    said = "The rule promotes it" if verdict.is_better else "The rule does not promote it"
    if candidate.version is None:
        said = f"It is not registered, so it cannot become the champion (`hilserl policies register` registers it). {said}"
    figures = f"# {evaluated.shown}\n\n{head}\n{line}\n{body}\n\n{said}: {verdict.why}.\n\nPage with maps and video: `{page}`\n"
    publish_markdown("evaluation", figures, "How good it is")
    write_json(folder / "verdict.json", json.loads(json.dumps(asdict(verdict), default=str)))
    if candidate.version is not None:
        note_evaluation(candidate.version, evaluated, tracking=config.tracking)
    return Contest(candidate, champion, verdict, figures, page)


@task(name="promote-policy", cache_policy=NO_CACHE, persist_result=False)
def promote_policy(config: TrainConfig, contest: Contest, by: str, why: str) -> Version:
    """Make the candidate the champion."""
    candidate = require_version(contest.candidate.version, contest.candidate.shown)
    instead = contest.champion.version if contest.champion is not None else None
    version = promote(candidate, instead_of=instead, by=by, why=why, tracking=config.tracking)
    publish_markdown("promotion", f"`{version.uri}` is the champion of `{version.name}`: by {by}, {why}.\n", "The new champion")
    return version


def evaluation_folder(config: TrainConfig, name: str) -> Path:
    """Return where an evaluation of its own leaves its files."""
    return home() / "evaluations" / f"{config.name}-{name}"


def summary(contest: Contest, evaluated: EvaluationResult, promoted: Version | None) -> dict[str, Any]:
    """Return what a program wants to know of an evaluation."""
    return {
        "policy": contest.candidate.shown,
        "success_rate": evaluated.success_rate,
        "interval": [evaluated.interval_low, evaluated.interval_high],
        "mean_return": evaluated.mean_return,
        "episodes": evaluated.episodes,
        "judged_by": evaluated.judged_by,
        "is_better": contest.verdict.is_better,
        "why": contest.verdict.why,
        "promoted": None if promoted is None else promoted.uri,
        "page": str(contest.page),
    }
