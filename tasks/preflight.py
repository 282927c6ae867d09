"""Phase: look at the arm before its first motion. Never retried: it moves hardware."""

from __future__ import annotations

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl.actor.lease import robot_lease
from hilserl.config import TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.preflight import require_ready
from tasks.artifacts import publish_markdown
from tasks.build_offline_buffer import load_judge

logger = logging.getLogger("hilserl.doctor")

_HANDOVER_S = 15.0  # an actor that the training gave up ends within this


@task(name="preflight", retries=0, cache_policy=NO_CACHE, persist_result=False)
def preflight(config: TrainConfig) -> int:
    """Do what `hilserl doctor` does, and publish its report; returns the number of checks. A real arm needs a person who did it before.

    Raises:
        RobotError: The arm may not be driven; lists what is wrong and how to fix it.
    """
    from hilserl.doctor.examine import examine

    require_ready(config)
    with robot_lease(config.robot.id, wait_s=_HANDOVER_S):
        diagnosis = examine(config, load_judge, show=lambda finding: logger.info("%s", finding))
    publish_markdown("preflight", diagnosis.markdown(), "Is the arm ready?")
    if diagnosis.failures:
        raise RobotError("\n".join((diagnosis.summary, *(str(finding) for finding in diagnosis.failures))))
    return len(diagnosis.findings)


def needs_preflight(config: TrainConfig) -> bool:
    """Whether there is a servo bus."""
    return config.env is None and not config.robot.is_simulated
