"""The rule by which a candidate becomes the champion."""

from __future__ import annotations

import pytest
from pipeline_testing import make_tiny_config

from hilserl.champions import judge_candidate, model_name
from hilserl.evaluation import Episode, EvaluationResult
from hilserl.evaluation.result import summarise


def result(successes: set[int], episodes: int = 40, judged_by: str = "simulator", first: int = 0) -> EvaluationResult:
    config = make_tiny_config()
    played = [Episode(first + seed, 5, seed in successes, 0.0, judged_by=judged_by) for seed in range(episodes)]
    return summarise(config, played, 10.0, 1.0, None)


ALL = set(range(40))


@pytest.mark.failure("L16")
@pytest.mark.parametrize(
    ("candidate", "champion", "is_better", "why"),
    [
        (result(ALL), None, True, "it is the first"),
        (result(set(range(24))), None, False, "is not above 50%"),  # 60 %, from 45 %
        (result(ALL), result(set(range(30))), True, "10 succeeded only by the candidate and 0 only by the champion"),
        (result(ALL), result(set(range(35))), False, "p = 0.062"),  # five more: may be chance
        (result(set(range(30))), result(ALL), False, "0 succeeded only by the candidate and 10 only"),
        (result(ALL), result(ALL), False, "p = 1"),
        (result(ALL), result(set(), first=1000), False, "not evaluated on the same starts"),
        (result(ALL), result(set(), episodes=20), False, "not evaluated on the same starts"),
        (result(ALL, judged_by="human"), result(set()), False, "judged by the person, the champion by the simulator"),
    ],
)
def test_only_a_paired_test_promotes_by_itself(candidate, champion, is_better, why) -> None:
    verdict = judge_candidate(candidate, champion)
    assert verdict.is_better == is_better and why in verdict.why, verdict.why


@pytest.mark.failure("L21")
@pytest.mark.failure("L13")
def test_a_classifiers_verdict_never_promotes() -> None:
    verdict = judge_candidate(result(ALL, judged_by="classifier"), result(set(), judged_by="classifier"))
    assert not verdict.is_better and "may have learned to please" in verdict.why


def test_the_model_of_a_task() -> None:
    assert model_name(make_tiny_config(task__type="lift")) == "hilserl-lift"
