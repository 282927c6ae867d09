"""prefect.yaml keeps the robot's host apart, and `up` fills in its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hilserl.config.models import RobotConfig
from hilserl.errors import ServiceError
from hilserl.services.deployments import ROBOT_POOL, read_plan
from hilserl.services.environment import project_root


def write(folder: Path, *deployments: dict[str, Any]) -> Path:
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": list(deployments)}))
    return folder / "prefect.yaml"


def robot(host: str) -> dict[str, Any]:
    return {"name": host, "entrypoint": "flows/actor.py:actor", "work_pool": {"name": "robot", "work_queue_name": host}}


TRAIN = {"name": "train", "entrypoint": "flows/train.py:hilserl", "work_pool": {"name": "learner"}}


def test_the_shipped_file_deploys_learner_and_robot_apart(prefect_yaml: Path) -> None:
    plan = read_plan(prefect_yaml, "robot-host")
    assert plan.queues == {"learner": None, "robot": "robot-host"}
    learner = ("flows/train.py:hilserl", "flows/reward_classifier.py:reward_classifier", "flows/evaluate.py:evaluate")
    assert plan.entrypoints == (*learner, "flows/actor.py:actor")
    assert plan.modules == ("flows.train", "flows.reward_classifier", "flows.evaluate", "flows.actor")
    for deployment in plan.content["deployments"]:
        assert deployment["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $HILSERL_ROOT }}"}}]
        assert "schedules" not in deployment and "schedule" not in deployment


@pytest.mark.failure("R20")
def test_an_actor_neither_waits_for_a_slot_nor_dies_of_losing_one(prefect_yaml: Path) -> None:
    """A queued actor would move the arm later, unattended; one whose slot a server away cannot renew is killed by Prefect."""
    *_, actor = read_plan(prefect_yaml, "robot-host").content["deployments"]
    assert "concurrency_limit" not in actor


def test_the_shipped_host_is_the_default_of_the_configuration(prefect_yaml: Path) -> None:
    *_, actor = read_plan(prefect_yaml, "robot-host").content["deployments"]
    assert actor["name"] == RobotConfig.model_fields["host"].default


def test_another_host_is_filled_in(prefect_yaml: Path) -> None:
    plan = read_plan(prefect_yaml, "bench-3")
    assert plan.queues == {"learner": None, "robot": "bench-3"}
    assert [d["name"] for d in plan.content["deployments"]] == ["train", "train", "policy", "bench-3"]


def test_of_several_robots_only_this_host_is_kept(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, TRAIN, robot("left"), robot("right")), "right")
    assert [d["name"] for d in plan.content["deployments"]] == ["train", "right"]


def test_an_unknown_host_among_several_lists_them(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"no actor deployment for the robot host `middle`; it has left, right"):
        read_plan(write(tmp_path, robot("left"), robot("right")), "middle")


@pytest.mark.parametrize("text", ["deployments: [{name: a, entrypoint: b}]", "deployments: 3", "]", ""])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(ServiceError, match=r"prefect\.yaml: is no list of deployments"):
        read_plan(tmp_path / "prefect.yaml", "robot-host")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"prefect\.yaml: cannot be read.*HILSERL_ROOT"):
        read_plan(tmp_path / "prefect.yaml", "robot-host")


def test_the_project_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_yaml: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILSERL_ROOT", raising=False)
    assert project_root() == prefect_yaml.parent
    monkeypatch.setenv("HILSERL_ROOT", str(tmp_path))
    with pytest.raises(ServiceError, match=r"No prefect\.yaml in .*HILSERL_ROOT"):
        project_root()


def test_a_learners_host_without_robots_deploys_their_actors_and_starts_no_worker_for_them(prefect_yaml: Path) -> None:
    plan = read_plan(prefect_yaml, "bench-1")
    here = plan.without_robots()
    assert set(plan.queues) - set(here.queues) == {ROBOT_POOL}
    assert here.content == plan.content and "bench-1" in [deployment["name"] for deployment in here.content["deployments"]]
