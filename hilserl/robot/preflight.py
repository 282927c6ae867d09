"""Whether an arm may be moved without a person beside it. Runs on the robot's host, before every actor."""

from __future__ import annotations

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError

_SIMULATED = ("so101_sim",)


def require_ready(config: TrainConfig) -> None:
    """Return if the robot of `config` may be moved now; a simulated one always may.

    Raises:
        RobotError: A person has to look at the arm first; says at what.
    """
    if config.env is not None or config.robot.type in _SIMULATED:
        return
    raise RobotError(
        f"robot `{config.robot.id}` ({config.robot.type}): there is no preflight check for a real arm yet, so it needs a person. "
        "Look at the arm, then start the run again."
    )
