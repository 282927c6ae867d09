"""The phase before an arm's first motion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_testing import make_tiny_config

import hilserl.doctor.examine
from hilserl.doctor.findings import Diagnosis, Finding
from hilserl.errors import RobotError
from hilserl.robot.preflight import note_passed
from tasks.preflight import needs_preflight, preflight

GOOD, BAD = Finding("ok", "voltage", "12 V"), Finding("FAIL", "jog x", "30 % of the commanded motion arrived.", "Calibrate the arm again.")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Finding]:
    """What the doctor finds."""
    findings = [GOOD]
    monkeypatch.setenv("HILSERL_HOME", str(tmp_path))

    def examine(config: Any, load_judge: Any, *, show: Any) -> Diagnosis:
        return Diagnosis(config.robot.id, tuple(findings))

    monkeypatch.setattr(hilserl.doctor.examine, "examine", examine)
    return findings


def virtual() -> Any:
    return make_tiny_config(robot={"type": "so101_follower", "virtual": {}})


def test_only_a_servo_bus_needs_it(found: list[Finding]) -> None:
    assert needs_preflight(virtual()) and not needs_preflight(make_tiny_config())


def test_an_arm_in_order_may_be_driven(found: list[Finding]) -> None:
    assert preflight.fn(virtual()) == 1


@pytest.mark.failure("R20")
def test_an_arm_that_is_not_ready_is_not_driven_and_never_tried_again(found: list[Finding]) -> None:
    found.append(BAD)
    with pytest.raises(RobotError, match=r"1 of 2 checks failed(.|\n)*jog x .*30 %.* Calibrate the arm again"):
        preflight.fn(virtual())
    assert preflight.retries == 0


@pytest.mark.failure("R20")
def test_a_real_arm_needs_a_person_for_every_start(found: list[Finding]) -> None:
    real = make_tiny_config(
        robot={"type": "so101_follower", "id": "mine", "port": "/dev/null"},
        observation={"privileged": False, "images": {}},
        actor={"intervention": {"type": "none"}},
    )
    with pytest.raises(RobotError, match="needs a person"):
        preflight.fn(real)
    note_passed("mine")
    assert preflight.fn(real) == 1
    with pytest.raises(RobotError, match="needs a person"):
        preflight.fn(real)
