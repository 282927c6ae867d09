"""The whole examination, in the order in which a careful person would do it: nothing moves before what is still has passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.data.interfaces import SuccessJudge
from hilserl.doctor.arm import examine_cameras, examine_jogs, examine_servos, examine_start_pose
from hilserl.doctor.demonstrations import Demonstrations, examine_start
from hilserl.doctor.findings import Diagnosis, Finding
from hilserl.doctor.host import examine_host
from hilserl.doctor.sight import examine_sight
from hilserl.doctor.weights import examine_weights
from hilserl.environments.make import make_environment
from hilserl.errors import HilserlError
from hilserl.files import home
from hilserl.robot.environment import So101Arm

Show = Callable[[Finding], None]
LoadJudge = Callable[[Path], SuccessJudge]


def examine(config: TrainConfig, load_judge: LoadJudge, *, motion: bool = True, show: Show = lambda finding: None) -> Diagnosis:
    """Examine this host and the arm of `config`.

    Args:
        config: The run's configuration, with an SO-101.
        load_judge: Opens success classifiers, where demonstrations are judged by one.
        motion: Let the arm move: to where an episode begins, and two steps along each axis.
        show: Called with each finding as it is made.
    """
    picture = picture_file(config.robot.id)
    picture.unlink(missing_ok=True)
    findings: list[Finding] = []
    for finding in _all(config, load_judge, motion, picture):
        findings.append(finding)
        show(finding)
    return Diagnosis(config.robot.id, tuple(findings), picture if picture.exists() else None)


def examine_connected(
    config: TrainConfig, environment: Any, demonstrations: Demonstrations | None, picture: Path, *, motion: bool = True
) -> Iterator[Finding]:
    """Examine an arm that is connected: before the first motion of an actor."""
    if isinstance(environment.unwrapped, So101Arm):
        yield from examine_servos(environment.arm, config)
        yield from examine_cameras(environment.cameras, config)
    if not motion:
        observation = environment.observe() if isinstance(environment.unwrapped, So101Arm) else environment.reset(seed=config.seed)[0]
        yield Finding("note", "motion", "left out: it is not known whether the arm goes where it is sent")
    else:
        finding, observation = examine_start_pose(environment, config.seed)
        yield finding
    if observation is None:
        return
    yield from examine_sight(config, observation, demonstrations, picture)
    if motion:
        yield from examine_jogs(environment, config, config.seed)


def picture_file(robot_id: str) -> Path:
    """Return where the picture of an arm's last examination is."""
    return home() / "robots" / robot_id / "doctor.png"


def _all(config: TrainConfig, load_judge: LoadJudge, motion: bool, picture: Path) -> Iterator[Finding]:
    still = list(examine_host(config))
    yield from still
    demonstrations = None
    try:
        demonstrations = Demonstrations.of(config, load_judge)
    except HilserlError as error:
        yield Finding("FAIL", "demonstrations", str(error))
    start = examine_start(config, demonstrations)
    yield start
    yield examine_weights(config)
    if any(finding.verdict == "FAIL" for finding in (*still, start)):
        yield Finding("note", "arm", "not connected: first what is above")
        return
    try:
        environment: Any = make_environment(config)
    except HilserlError as error:
        yield Finding("FAIL", "arm", str(error))
        return
    try:
        yield from examine_connected(config, environment, demonstrations, picture, motion=motion)
    finally:
        environment.close()
