"""What a person reads on the run's page. It never costs a run: without a server there is simply no page."""

from __future__ import annotations

import logging
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext, TaskRunContext

logger = logging.getLogger(__name__)


def has_page() -> bool:
    """Whether this code runs inside a Prefect run; `task.fn()` in a test or notebook does not.

    What the flow itself publishes, outside of its tasks, is on the run's page also when the task was `Cached`.
    """
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None


def publish_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Show a table on the run's page."""
    if not has_page():
        return
    try:
        create_table_artifact(rows, key=key, description=description)
    except Exception:
        logger.warning("The artifact %s could not be published", key, exc_info=True)


def publish_markdown(key: str, markdown: str, description: str) -> None:
    """Show a text on the run's page."""
    if not has_page():
        return
    try:
        create_markdown_artifact(markdown, key=key, description=description)
    except Exception:
        logger.warning("The artifact %s could not be published", key, exc_info=True)
