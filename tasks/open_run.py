"""Before the phases: the run's folder, and its secret."""

from __future__ import annotations

import logging

from hilserl.config import TrainConfig
from hilserl.learner.trial import require_device
from hilserl.link.auth import create_token
from hilserl.runs import RunFolder

logger = logging.getLogger("hilserl.runs")


def open_run(config: TrainConfig, *, fresh: bool) -> RunFolder:
    """Continue the interrupted run of this configuration, or start one."""
    require_device(config)
    run, continued = RunFolder.open(config, fresh=fresh)
    logger.info("%s run %s in %s", "Continuing" if continued else "Starting", run.run_id, run.path)
    if not run.token_file.exists():
        create_token(run.token_file)
    return run
