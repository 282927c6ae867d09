import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from arm_helpers import record_arm, record_leader

from hilserl.config.loader import merge
from hilserl.config.models import TrainConfig
from hilserl.data.sources import Source
from hilserl.data.validation import ValidationReport, run
from hilserl.data.validation.findings import Finding
from hilserl.data.validation.remedies import OR, everything_to_paste


@pytest.fixture(autouse=True)
def every_finding_is_complete(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In every report of every damaged dataset of these tests: a place, a reason, and a remedy that can be pasted as it stands."""
    validate, whole = run._validate, run._sorted
    configs: dict[str, TrainConfig] = {}

    def remembered(config: TrainConfig, root: Path, *arguments: Any, **named: Any) -> ValidationReport:
        configs[str(root)] = config
        return validate(config, root, *arguments, **named)

    def checked(report: ValidationReport, more: list) -> ValidationReport:
        report, config = whole(report, more), configs[report.root]
        for finding in report.findings:
            assert finding.code and finding.place and finding.message, finding
            if finding.severity != "informs":
                assert finding.remedy, f"no remedy: {finding}"
                assert "dataset: {" not in finding.message and "observation: {" not in finding.message, f"remedy in the message: {finding}"
            check_remedy(finding, config, report.episodes)
        if paste := everything_to_paste(config, [(Source(config, Path(report.root)), report)]):
            TrainConfig.model_validate(merge(config.model_dump(mode="json"), yaml.safe_load(paste)))
        return report

    monkeypatch.setattr(run, "_validate", remembered)
    monkeypatch.setattr(run, "_sorted", checked)
    yield


def check_remedy(finding: Finding, config: TrainConfig, episodes: int) -> None:
    """Each line is a comment, a command, or YAML that changes the configuration into another valid one."""
    values = config.model_dump(mode="json")
    together: dict[str, Any] = {}
    for line in finding.remedy.splitlines():
        text = line.removeprefix(OR)
        if text.startswith(("#", "hilserl ")):
            continue
        change = yaml.safe_load(text)
        assert isinstance(change, dict) and change and set(change) <= set(TrainConfig.model_fields), f"not ours: {line!r} in {finding}"
        assert merge(values, change) != values, f"set already: {line!r} in {finding}"
        excluded = set(change.get("dataset", {}).get("exclude_episodes", ())) - set(config.dataset.exclude_episodes)
        assert not excluded or len(excluded) < episodes or not episodes, f"no episode is left: {finding}"
        if text == line:
            together = merge(together, change)
        else:
            TrainConfig.model_validate(merge(values, change))
    TrainConfig.model_validate(merge(values, together))


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
