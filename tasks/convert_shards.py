"""Phase: decode and convert a batch of shards, on whatever task runner the flow has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from hilserl.data.shard_store import ShardStore, convert_batch, joined_failures
from hilserl.data.shards import ShardJob


@task(name="convert-shards", cache_policy=NO_CACHE, persist_result=False)
def convert_shards(jobs: Sequence[ShardJob], store: ShardStore | Path, on_frames: Callable[[float], None] | None) -> int:
    """Convert some shards and return how many; those that succeed stay even if another fails.

    Raises:
        DatasetError: Names every episode that could not be converted.
    """
    failures = convert_batch(jobs, store, on_frames)
    if failures:
        raise joined_failures(failures, len(jobs))
    return len(jobs)
