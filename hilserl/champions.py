"""Candidates and champions: which registered policy a task's name means, and what it takes to become the champion.

The rule: a candidate is promoted without a person only if, on the same starts and judged by the same one, it is better than the
champion by the exact paired test (McNemar, p < 0.05). The first one must succeed in most episodes. A verdict of a success
classifier never promotes by itself: the policy may have learned to please it. A person may promote whom they like.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilserl.config.models import TrackingConfig, TrainConfig
from hilserl.errors import CheckpointError, ServiceError
from hilserl.evaluation.paired import PairedTest, paired_test
from hilserl.evaluation.result import EvaluationResult
from hilserl.evaluation.source import CONFIG_FILE
from hilserl.policy import read_policy_manifest
from hilserl.tracking import registry
from hilserl.tracking.registry import CANDIDATE, CHAMPION, Version

LARGEST_P = 0.05
_FIRST_NEEDS = 0.5  # lower bound of the first champion's interval
_EVALUATION_TAG, _PROMOTION_TAG = "evaluation", "promotion"


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may become the champion by the rule.

    Attributes:
        is_better: It may.
        why: In one sentence.
        test: Paired with the champion; None where there is none, or nothing to pair.
    """

    is_better: bool
    why: str
    test: PairedTest | None = None


def model_name(config: TrainConfig) -> str:
    """Name the registered model of a task, such as `hilserl-lift`."""
    return "hilserl-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", config.task_name)


def register_candidate(config: TrainConfig, policy_folder: Path, *, run_id: str | None, facts: Mapping[str, Any]) -> Version:
    """Register a policy with its configuration, and let `@candidate` mean it.

    Args:
        config: What it was trained with.
        policy_folder: Written by `Policy.save`.
        run_id: MLflow's run; None: none.
        facts: For a person, such as what is known of its success.

    Raises:
        CheckpointError: It is no policy.
        ServiceError: The registry cannot be used.
    """
    manifest = read_policy_manifest(policy_folder)
    name = model_name(config)
    tags = {"task": config.task_name, "configuration": config.name, "seed": str(config.seed)}
    tags |= {key: str(value) for key, value in {**manifest["facts"], **facts}.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file in policy_folder.iterdir():
            shutil.copy2(file, folder / file.name)
        (folder / CONFIG_FILE).write_text(json.dumps(config.model_dump(mode="json"), indent=1))  # JSON is YAML
        description = f"`{config.name}`, seed {config.seed}: " + ", ".join(f"{key} {value}" for key, value in facts.items())
        version = registry.register(name, folder, run_id=run_id, tags=tags, description=description, config=config.tracking)
    registry.set_alias(name, CANDIDATE, version.version, config=config.tracking)
    return registry.find(version.uri, config=config.tracking)


def judge_candidate(candidate: EvaluationResult, champion: EvaluationResult | None) -> Verdict:
    """Apply the rule.

    Args:
        candidate: Evaluated now.
        champion: Evaluated now, on the same starts; None: there is no champion yet.
    """
    if candidate.success_rate is None or candidate.interval_low is None:
        return Verdict(False, "nobody knows success in this environment, so a person decides")
    if "classifier" in candidate.judged_by:
        return Verdict(
            False,
            "success was called by a success classifier, which the policy may have learned to please: a person, or another judge, decides",
        )
    if champion is None:
        enough = candidate.interval_low > _FIRST_NEEDS
        return Verdict(
            enough,
            f"it is the first, and its success {'is' if enough else 'is not'} above {_FIRST_NEEDS:.0%} with 95 % confidence "
            f"({candidate.success_rate:.1%}, from {candidate.interval_low:.1%})",
        )
    if champion.judged_by != candidate.judged_by:
        return Verdict(False, f"the candidate was judged by the {candidate.judged_by}, the champion by the {champion.judged_by}")
    test = paired_test(champion.outcomes, candidate.outcomes)
    if test is None or test.pairs < candidate.episodes:
        return Verdict(False, "the two were not evaluated on the same starts", test)
    better = test.only_second > test.only_first and test.p < LARGEST_P
    return Verdict(
        better,
        f"on {test.pairs} same starts, {test.only_second} succeeded only by the candidate and {test.only_first} only by the champion "
        f"(p = {test.p:.2g}, {'below' if better else 'and the rule wants the candidate ahead with p below'} {LARGEST_P:g})",
        test,
    )


def note_evaluation(version: Version, result: EvaluationResult, *, tracking: TrackingConfig) -> None:
    """Write what an evaluation found beside a version.

    Raises:
        ServiceError: The registry cannot be used.
    """
    registry.set_tags(version, {_EVALUATION_TAG: f"{result.shown}; {result.episodes} episodes from seed {result.seed}"}, config=tracking)


def promote(candidate: Version, *, instead_of: Version | None, by: str, why: str, tracking: TrackingConfig) -> Version:
    """Make a version the champion.

    Args:
        candidate: Whom.
        instead_of: The champion that it was compared with; None: there was none.
        by: Who promotes: `rule`, or a person's name.
        why: In one sentence, with the figures.
        tracking: Whose registry.

    Raises:
        ServiceError: Another version became the champion since; or the registry cannot be used.
    """
    name = candidate.name
    now = registry.find_or_none(f"models:/{name}@{CHAMPION}", config=tracking)
    if (now.version if now else None) != (instead_of.version if instead_of else None):
        raise ServiceError(
            f"{name}: the champion is version {now.version if now else 'none'} now, and the comparison was with "
            f"{f'version {instead_of.version}' if instead_of else 'none'}: another promotion came first. Evaluate again."
        )
    instead = f" in place of version {instead_of.version}" if instead_of else ""
    registry.set_tags(candidate, {_PROMOTION_TAG: f"by {by}{instead}: {why}"}, config=tracking)
    registry.set_alias(name, CHAMPION, candidate.version, config=tracking)
    return registry.find(candidate.uri, config=tracking)


def champion_of(config: TrainConfig) -> Version | None:
    """Return the champion of a configuration's task; None where there is none.

    Raises:
        ServiceError: The registry cannot be used.
    """
    return registry.find_or_none(f"models:/{model_name(config)}@{CHAMPION}", config=config.tracking)


def require_version(version: Version | None, asked: str) -> Version:
    """Return what is in the registry.

    Raises:
        CheckpointError: It is not: only what is registered can be promoted.
    """
    if version is None:
        raise CheckpointError(f"{asked}: only a registered policy can become the champion. Register it with `hilserl policies register`.")
    return version
