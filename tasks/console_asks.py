"""A paused run's question, on the operator's consoles of this host as well: whoever answers first, there or in Prefect's UI, wins."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import SetStateStatus

from hilserl.console.serving import asks
from hilserl.errors import HilserlError
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

_LOOK_S = 0.5


@contextmanager
def also_on_the_page(run_id: str, kind: str, text: str, form: Callable[[bool, str], dict[str, Any]]) -> Iterator[None]:
    """In the block, in which the flow run pauses, resume it with what a person answers on a console's page.

    Args:
        run_id: Flow run that pauses.
        kind: Of question, such as `promotion`.
        text: The question, to be answered with yes or no.
        form: Makes the paused run's input of the answer and of who gave it.
    """
    folder, name = asks.asks_folder(), f"{kind}-{run_id}"
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            try:
                if (said := asks.answered(folder, name)) is not None and _resume(run_id, form(*said)):
                    return
            except Exception:  # a server that is away for a moment: the answer stays, and is tried again
                logger.warning("The answer on the page did not reach the paused run; it is tried again", exc_info=True)

    try:
        asks.put(folder, name, kind, text)
    except (OSError, HilserlError) as error:  # the UI has the question all the same
        logger.warning("The question is not on the operator's page: %s", error)
        yield
        return
    looking = background_thread(look, "console-ask")
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        asks.take_back(folder, name)


def _resume(run_id: str, values: dict[str, Any]) -> bool:
    """Resume the run; False: it is not paused yet."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(uuid.UUID(run_id))
        if run.state is None or not run.state.is_paused():
            return False  # or no more: then the block is about to end
        return client.resume_flow_run(run.id, run_input=values).status == SetStateStatus.ACCEPT
