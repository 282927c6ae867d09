"""Prefect results that are only believed when the disk agrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.logging import get_run_logger

from hilserl.progress import Progress, publish

# For a task whose parameter `key` names everything that decides its result.
BY_KEY = CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: f"{context.task.name}-{parameters['key']}")


def run_verified(task: Task[..., Any], key: str, problems: Sequence[str], *args: Any, **kwargs: Any) -> Any:
    """Run a cached task; a cached result is refreshed when what it stands for has `problems` on disk.

    Args:
        task: A task with the cache policy `BY_KEY`.
        key: Content hash of everything that decides the result.
        problems: What is wrong with the result's files; empty when they were verified.
        *args: The task's other arguments.
        **kwargs: The task's other keyword arguments.
    """
    if problems:
        get_run_logger().info("%s runs: %s", task.name, "; ".join(problems))
    publish(Progress(task.name))
    state = task.with_options(refresh_cache=bool(problems))(*args, key=key, **kwargs, return_state=True)
    result = state.result()
    if state.name == "Cached":
        publish(Progress(task.name, cached=True))
    return result
