"""Threads that work for somebody: their log lines go where their maker's go.

Prefect files a log record under the flow run of the current context, and a new thread has an empty one: what it
says would be on no page.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable


def background_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Make a daemon thread, not yet started, that does `work` in a copy of the caller's context."""
    return threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
