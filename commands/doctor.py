"""`hilserl doctor`: is this arm ready to learn?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from hilserl.config import TrainConfig, load_config
from hilserl.errors import ConfigError


def run_doctor(config: str, overrides: dict[str, Any], *, motion: bool, show: Callable[[str], None] = print) -> bool:
    """Examine the robot of a configuration on this host, a line each check; return whether it may be driven.

    Raises:
        ConfigError: The configuration has no SO-101.
        RobotError: Somebody else drives the arm.
    """
    from hilserl.actor.lease import robot_lease
    from hilserl.doctor.examine import examine
    from hilserl.robot.preflight import VALID_S, note_passed
    from tasks.build_offline_buffer import load_judge

    settings = load_config(config, overrides)
    if settings.env is not None:
        raise ConfigError("`env` replaces the arm by a Gymnasium environment: there is nothing for the doctor to look at.")
    with robot_lease(settings.robot.id) if motion else nullcontext():
        diagnosis = examine(settings, load_judge, motion=motion, show=lambda finding: show(str(finding)))
    report = f"\n{diagnosis.summary}"
    if settings.robot.is_real and motion and not diagnosis.failures:
        note_passed(settings.robot.id)
        report += f" An actor may drive it once, if it starts within {VALID_S / 60:.0f} min."
    if diagnosis.picture is not None:
        report += f"\nThe camera's picture, what the policy sees of it, and a demonstration where there is one: {diagnosis.picture}"
    show(report)
    return not diagnosis.failures


def examine_now(settings: TrainConfig) -> None:
    """Do the actor's preflight before a command drives the arm; a real arm needs a person who ran `hilserl doctor` before.

    Raises:
        RobotError: The arm may not be driven.
    """
    from tasks.preflight import preflight

    count = preflight.fn(settings)
    print(f"The arm is ready: {count} checks.", flush=True)
