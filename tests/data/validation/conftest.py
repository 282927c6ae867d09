import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from arm_helpers import record_arm, record_leader

from hilserl.data.validation import ValidationReport, run


@pytest.fixture(autouse=True)
def every_finding_is_complete(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In every report of every damaged dataset of these tests: a place, a reason, and a remedy that is not in the reason."""
    whole = run._sorted

    def checked(report: ValidationReport, more: list) -> ValidationReport:
        report = whole(report, more)
        for finding in report.findings:
            assert finding.code and finding.place and finding.message, finding
            if finding.severity != "informs":
                assert finding.remedy, f"no remedy: {finding}"
                assert "dataset: {" not in finding.message and "observation: {" not in finding.message, f"remedy in the message: {finding}"
        return report

    monkeypatch.setattr(run, "_sorted", checked)
    yield


@pytest.fixture(scope="session")
def arm_recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("arm") / "arm"
    record_arm(root)
    return root


@pytest.fixture
def arm(arm_recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(arm_recorded, tmp_path / "arm")


@pytest.fixture(scope="session")
def leader_recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("leader") / "leader"
    record_leader(root)
    return root


@pytest.fixture
def leader(leader_recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(leader_recorded, tmp_path / "leader")
