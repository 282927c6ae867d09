"""Whether an arm may be moved without a person beside it. Runs on the robot's host, before every actor."""

from __future__ import annotations

import json
import time
from pathlib import Path

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError
from hilserl.files import write_json
from hilserl.robot.latch import require_released, robot_folder

VALID_S = 900.0


def note_passed(robot_id: str) -> None:
    """Note that a person, with the checks of the doctor, found this arm ready: one actor may drive it, if it starts soon."""
    write_json(_file(robot_id), {"passed_at_s": time.time()})


def require_ready(config: TrainConfig) -> None:
    """Return if the robot of `config` may be moved now. A simulated or virtual one always may; a real one once for each passed check.

    Raises:
        RobotError: A person has to look at the arm first; says at what.
    """
    if config.env is not None or not config.robot.is_real:
        return
    require_released(config.robot.id)
    file = _file(config.robot.id)
    age_s = _age_s(file)
    file.unlink(missing_ok=True)  # used up: an actor that crashed does not move the arm again by itself
    if age_s is None or age_s > VALID_S:
        seen = "nobody has looked at this arm since it was driven last" if age_s is None else f"its check is {age_s / 60:.0f} min old"
        raise RobotError(
            f"robot `{config.robot.id}` ({config.robot.type}): {seen}, so it needs a person. Look at the arm, run `hilserl doctor`, "
            f"then start the run within {VALID_S / 60:.0f} min."
        )


def _age_s(file: Path) -> float | None:
    """Return how old a passed check is [s]; None: there is none."""
    try:
        return max(0.0, time.time() - float(json.loads(file.read_text())["passed_at_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(robot_id: str) -> Path:
    return robot_folder(robot_id) / "preflight.json"
