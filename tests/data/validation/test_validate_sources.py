"""Several datasets in one run: each by what it shows, and all of them together."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from arm_helpers import arm_config
from data_helpers import set_column, update

from hilserl.config.models import TrainConfig
from hilserl.data.sources import sources_of
from hilserl.data.validation import Finding, ValidationReport, validate_sources

FRAMES = 120


@pytest.fixture
def two(arm: Path, tmp_path: Path) -> tuple[Path, Path]:
    return arm, shutil.copytree(arm, tmp_path / "other")


def make(roots: tuple[Path, Path], **second: object) -> TrainConfig:
    sources = [{"root": str(roots[0])}, {"root": str(roots[1]), **second}]
    config = arm_config(roots[0])
    return update(config, dataset={"root": None, "sources": sources})


def check(config: TrainConfig) -> tuple[ValidationReport, ...]:
    return validate_sources(config, sources_of(config))


def told(report: ValidationReport, severity: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity == severity]


def unrewarded(root: Path) -> None:
    set_column(root, "next.reward", np.zeros(FRAMES, np.float32))


def test_two_good_sources_pass(two: tuple[Path, Path]) -> None:
    reports = check(make(two))
    assert [(report.frames, report.stops) for report in reports] == [(FRAMES, ()), (FRAMES, ())]


@pytest.mark.failure("D10")
def test_capacity_is_for_the_sum(two: tuple[Path, Path]) -> None:
    first, second = check(update(make(two), policy={"offline_buffer_capacity": 2 * FRAMES - 1}))
    assert [finding.code for finding in first.stops] == ["D10"] and f"{2 * FRAMES} transitions" in first.stops[0].message
    assert not second.stops
    assert not check(update(make(two), policy={"offline_buffer_capacity": 2 * FRAMES}))[0].stops


@pytest.mark.failure("D02")
def test_a_failure_that_is_rewarded_is_told(two: tuple[Path, Path]) -> None:
    _, failure = check(make(two, role="failure"))
    (finding,) = told(failure, "warns")
    assert finding.code == "D02" and "a `failure` source is rewarded in episodes 0, 1, 2" in finding.message


@pytest.mark.failure("D02")
def test_a_failure_without_reward_is_as_it_should_be(two: tuple[Path, Path]) -> None:
    unrewarded(two[1])
    assert not told(check(make(two, role="failure"))[1], "warns")


@pytest.mark.failure("D02")
def test_a_demonstration_without_success_is_told_where_another_has_some(two: tuple[Path, Path]) -> None:
    unrewarded(two[1])
    first, second = check(make(two))
    assert not first.stops and not second.stops
    assert "no frame of the 3 episodes of this demonstration source is rewarded" in told(second, "warns")[0].message


@pytest.mark.failure("D02")
def test_no_success_anywhere_stops(two: tuple[Path, Path]) -> None:
    unrewarded(two[0])
    unrewarded(two[1])
    assert [finding.place for finding in check(make(two))[0].stops] == ["dataset.sources"]
    assert [finding.place for finding in check(make(two, role="failure"))[0].stops] == ["dataset.sources"]


def test_the_same_dataset_twice_is_told(arm: Path) -> None:
    assert "is listed twice" in told(check(make((arm, arm)))[0], "warns")[0].message


def test_each_source_is_read_as_it_says(two: tuple[Path, Path]) -> None:
    first, second = check(make(two, exclude_episodes=[0]))
    assert (first.episodes, second.episodes) == (3, 2)


def test_damage_of_one_source_does_not_hide_the_other(two: tuple[Path, Path]) -> None:
    shutil.rmtree(two[0] / "data")
    action = np.zeros((FRAMES, 4), np.float32)
    set_column(two[1], "action", action)
    first, second = check(make(two))
    assert [finding.code for finding in first.stops] == ["D18"] and [finding.code for finding in second.stops] == ["D05"]
