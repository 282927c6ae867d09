"""Before the phases: the run's folder, its secret, and the address where actor and learner will meet."""

from __future__ import annotations

import logging

from hilserl.config import TrainConfig
from hilserl.link.auth import create_token
from hilserl.runs import RunFolder
from hilserl.services.processes import free_port

logger = logging.getLogger(__name__)


def open_run(config: TrainConfig, *, fresh: bool) -> tuple[TrainConfig, RunFolder]:
    """Continue the interrupted run of this configuration, or start one.

    Returns:
        The configuration with a definite port, and the run's folder.
    """
    run, continued = RunFolder.open(config, fresh=fresh)
    logger.info("%s run %s in %s", "Continuing" if continued else "Starting", run.run_id, run.path)
    if not run.token_file.exists():
        create_token(run.token_file)
    if config.link.port == 0:
        config = config.model_copy(update={"link": config.link.model_copy(update={"port": free_port(config.link.host)})})
    return config, run
