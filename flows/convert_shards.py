"""The flow `convert-shards`: one task a batch of shards, on threads, processes or a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow, unmapped
from prefect.futures import as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from hilserl.config import ConversionConfig
from hilserl.errors import ConfigError
from tasks.convert_shards import convert_shards as convert_batch

# Enough batches that the last ones end together, few enough that Prefect's time for each does not count.
_BATCHES_PER_WORKER = 8


def converting_on(conversion: ConversionConfig) -> Callable[[Sequence[Any], Any, Callable[[float], None]], list[BaseException]]:
    """Return what converts shards on the configured task runner, for `build_offline_buffer`.

    It takes the shards to convert, where to put them, and what to tell the number of frames done; it
    returns what failed, when everything else is done.

    Raises:
        ConfigError: Dask is asked for and not installed.
    """
    runner, workers = _task_runner(conversion)

    def convert(jobs: Sequence[Any], store: Any, on_frames: Callable[[float], None]) -> list[BaseException]:
        @flow(name="convert-shards", flow_run_name=f"{len(jobs)}-shards-on-{conversion.runner}", task_runner=runner, persist_result=False)
        def convert_shards() -> list[BaseException]:
            count = min(len(jobs), workers * _BATCHES_PER_WORKER)
            batches = [jobs[first::count] for first in range(count)]  # the largest shards come first, one in each
            inside = on_frames if conversion.runner == "threads" else None  # a function does not travel to another process
            futures = convert_batch.map(batches, unmapped(store), unmapped(inside))
            sizes = {future.task_run_id: sum(job.frames for job in batch) for future, batch in zip(futures, batches, strict=True)}
            failures: list[BaseException] = []
            for future in as_completed(list(futures)):
                outcome = future.result(raise_on_failure=False)
                if isinstance(outcome, BaseException):
                    failures.append(outcome)
                elif inside is None:
                    on_frames(sizes[future.task_run_id])
            return failures

        failures: list[BaseException] = convert_shards()
        return failures

    return convert


def _task_runner(conversion: ConversionConfig) -> tuple[TaskRunner[Any], int]:
    """Build the runner, and say how many batches it works on at once."""
    workers = conversion.workers or os.cpu_count() or 1
    if conversion.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers), workers
    if conversion.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=workers), workers
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise ConfigError(
            "conversion.runner is `dask`, and prefect-dask is not installed: `uv sync --extra dask`, or set `processes`."
        ) from None
    if conversion.dask_address:
        return DaskTaskRunner(address=conversion.dask_address), workers
    cluster = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None, "host": "127.0.0.1"}
    return DaskTaskRunner(cluster_kwargs=cluster), workers
