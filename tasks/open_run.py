"""Around the phases: the run's folder and its secret, how often it crashed, and whether somebody cancelled it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import runtime

from hilserl.attempts import attempt
from hilserl.config import TrainConfig
from hilserl.learner.trial import require_device
from hilserl.link.auth import create_token
from hilserl.link.server import require_listenable
from hilserl.runs import RunFolder
from tasks.link_token import take_token_from_block
from tasks.run_watch import RunWatch
from tasks.server import wait_for_server

logger = logging.getLogger("hilserl.runs")

_SIGNAL_FIRST_S = 8.0  # Prefect's own cancellation is a signal, and a second one in the middle of an orderly end is worth avoiding


@contextmanager
def opened_run(config: TrainConfig, *, fresh: bool) -> Iterator[tuple[RunFolder, RunWatch]]:
    """Continue the interrupted run of this configuration, or start one; a retried flow run continues its own.

    Raises:
        TransportError: The link cannot be where `link` says.
        TrainingError: The run crashed three times in a row without one new critic update.
    """
    require_device(config)
    require_listenable(config.link)
    run, continued = RunFolder.open(config, fresh=fresh, flow_run_id=runtime.flow_run.id)
    logger.info("%s run %s in %s", "Continuing" if continued else "Starting", run.run_id, run.path)
    take_token_from_block()
    if not run.token_file.exists():
        create_token(run.token_file)
    with RunWatch(soft_s=_SIGNAL_FIRST_S) as watch, attempt(run, is_cancelled=watch.is_cancelled):
        try:
            yield run, watch
        except Exception:
            wait_for_server("The end of this run")
            raise
        wait_for_server("The end of this run")
