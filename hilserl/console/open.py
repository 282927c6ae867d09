"""Open the console of an actor, where its configuration wants one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hilserl.config.models import TrainConfig
from hilserl.teleop.operator import NoOperator, Operator


@contextmanager
def console_of(config: TrainConfig, *, mode: str, run: str = "") -> Iterator[Operator]:
    """Serve the console for as long as the block lasts; without `console.enable`, nobody watches.

    Args:
        config: The run's configuration.
        mode: `train`, `record` or `run`.
        run: What the page calls this run.

    Raises:
        ServiceError: It may not listen where the configuration says.
    """
    if not config.console.enable:
        yield NoOperator()
        return
    from hilserl.console.operator import ConsoleOperator

    operator = ConsoleOperator(config, mode=mode, run=run)
    try:
        yield operator
    except Exception as error:
        operator.told(ended=f"{type(error).__name__}: {error}")
        raise
    finally:
        operator.close()
