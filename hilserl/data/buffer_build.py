"""Build the offline buffer, or find the one that was built from the same things.

A buffer is a folder with a `manifest.json`, which lists shards (see `shards.py`), and `model_input.png`,
which shows what the policy sees. Its name is the hash of everything that went in: the datasets' content,
the preprocessor, the conversion's settings and the code. A hit is believed only after the files on disk
were compared with the manifest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.conversion_plan import ConversionPlan, LoadJudge, plan_conversion
from hilserl.data.convert import ROLES, constant_actions, too_fast
from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_frames, rgb
from hilserl.data.interfaces import JointConverter
from hilserl.data.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    SHARDS,
    OfflineBufferManifest,
    SourceRecord,
    changed_inputs,
    is_whole,
    verified_memo,
    verify_offline_buffer,
)
from hilserl.data.normalize import StateNormalizer
from hilserl.data.picture import write_model_input
from hilserl.data.shard_store import ShardStore, joined_failures, run_in_threads
from hilserl.data.shards import ShardJob, ShardRecord, shard_folder
from hilserl.data.validation import validate_sources
from hilserl.errors import DatasetError
from hilserl.files import atomic_directory, file_lock, require_free_space, write_json
from hilserl.progress import Progress, publish
from hilserl.schema import IMAGE_PREFIX, policy_schema, state_components

STAGE = "build-offline-buffer"
PICTURE = "model_input.png"
_PREFIX = "offline-buffer-"
_PUBLISH_EVERY_S = 0.2
_COPIES_AT_ONCE = 8

RunJobs = Callable[[Sequence[ShardJob], ShardStore | Path, Callable[[float], None]], list[BaseException]]
"""Convert jobs into shards in a folder or shared store, report frames done, and return what failed."""


def offline_buffer_folder(cache_folder: Path, key: str) -> Path:
    """Return where the buffer of `key` belongs."""
    return cache_folder / f"{_PREFIX}{key}"


def get_or_build(
    config: TrainConfig,
    root: Path | None,
    cache_folder: Path,
    converter: JointConverter | None = None,
    run_jobs: RunJobs | None = None,
    load_judge: LoadJudge | None = None,
) -> tuple[OfflineBufferManifest, bool, str]:
    """Return the buffer of a run's datasets, built if it is not there or no longer what its manifest says.

    One process builds at a time; the others wait and then use what it built. What an interrupted build
    finished is kept. Publishes `Progress("build-offline-buffer")` in recorded frames.

    Args:
        config: The run's configuration.
        root: Folder of the dataset made for `dataset.record`; otherwise the configuration names the datasets.
        cache_folder: Where buffers and shards are kept.
        converter: Kinematics; needed for datasets recorded in joint space.
        run_jobs: Who converts; by default threads of this process, one a core.
        load_judge: Opens success classifiers; needed for `reward_from: classifier`.

    Returns:
        The manifest, whether it was there already, and why or why not.

    Raises:
        DatasetError: A dataset cannot be used as configured, or episodes are damaged; names all of them.
        CacheError: Not enough space on the disk.
    """
    plan = plan_conversion(config, root, cache_folder, converter, load_judge)
    folder = offline_buffer_folder(cache_folder, plan.key)
    with file_lock(cache_folder / f".{folder.name}.lock"):
        reasons = verify_offline_buffer(folder, plan.key, plan.inputs)
        if not reasons:
            return OfflineBufferManifest.read(folder), True, f"{folder.name}: verified on disk"
        reason = "; ".join(reasons[:5]) if folder.exists() else _why_new(cache_folder, plan.inputs)
        publish(Progress(STAGE, message=f"building: {reason}"))
        started = time.perf_counter()
        for report in validate_sources(config, plan.sources, check_videos="none", converter=converter):
            report.raise_if_stopped()
        jobs = missing_shards(plan, cache_folder)
        convert_missing(plan, jobs, cache_folder, run_jobs)
        manifest = assemble_offline_buffer(plan, cache_folder, converted={job.key for job in jobs}, seconds=time.perf_counter() - started)
        return manifest, False, reason


def missing_shards(plan: ConversionPlan, cache_folder: Path) -> list[ShardJob]:
    """List the shards that are not there, or not as they were written, the largest first."""
    store, memo = cache_folder / SHARDS, verified_memo(cache_folder)
    missing = {job.key: job for job in plan.jobs if not is_whole(store, job.key, memo)}
    memo.save()
    return sorted(missing.values(), key=lambda job: -job.frames)


def convert_missing(plan: ConversionPlan, jobs: Sequence[ShardJob], cache_folder: Path, run_jobs: RunJobs | None = None) -> None:
    """Convert `jobs`; those that succeed stay even if another fails.

    Raises:
        DatasetError: Names every episode that could not be converted.
        CacheError: Not enough space on the disk.
    """
    if not jobs:
        return
    schema = policy_schema(plan.config)
    row_bytes = sum(
        int(np.prod(feature.shape)) * np.dtype(feature.dtype).itemsize for feature in (*schema.observation.values(), schema.action)
    )
    frames = sum(job.frames for job in jobs)
    store = cache_folder / SHARDS
    require_free_space(store, int(frames * row_bytes * 1.05) + (1 << 20), f"the offline buffer of {frames} frames")
    run = run_jobs or partial(run_in_threads, workers=plan.config.conversion.workers)
    shared = ShardStore(plan.config.conversion.store) if plan.config.conversion.store else None
    with _counted(frames) as on_frames:
        failures = run(jobs, shared or store, on_frames)
        if shared is not None:
            _fetch(shared, jobs, store)
    memo = verified_memo(cache_folder)
    for job in jobs:
        folder = shard_folder(store, job.key)
        if folder.is_dir():
            for name, file in ShardRecord.read(folder).files.items():
                memo.put(folder / name, file["sha256"])
    memo.save()
    if failures:
        raise joined_failures(failures, len(jobs))


def assemble_offline_buffer(plan: ConversionPlan, cache_folder: Path, *, converted: set[str], seconds: float) -> OfflineBufferManifest:
    """Write the manifest and the picture of a buffer whose shards are all there.

    Raises:
        DatasetError: A scalar of the state or an action never changes over all datasets, or is in another unit.
        CacheError: A shard is missing.
    """
    started = time.perf_counter()
    folder, store = offline_buffer_folder(cache_folder, plan.key), cache_folder / SHARDS
    records = {job.key: ShardRecord.read(shard_folder(store, job.key)) for job in plan.jobs}
    config, ordered = plan.config, [records[job.key] for job in plan.jobs]
    if not ordered:
        raise DatasetError("no episode is left: dataset.exclude_episodes names all of them")
    for number, source in enumerate(plan.sources):
        own = [records[job.key] for job in plan.jobs if job.source == number]
        clipped, steps = sum(record.clipped_steps for record in own), sum(record.rows for record in own)
        problem = too_fast(source.config, clipped, steps, max((record.largest_motion for record in own), default=0.0))
        if problem:
            raise DatasetError(f"{source.root}: {problem}")
    constant = constant_actions(_extremes([record.action_range for record in ordered]), config.action_names)
    if constant:
        raise DatasetError(f"{', '.join(str(source.root) for source in plan.sources)}: {constant}")
    states = _extremes([record.state_range for record in ordered])
    normalizer = StateNormalizer.fit(states, state_components(config), config.observation.allow_constant)
    residuals = [record.residual_m for record in ordered if record.residual_m is not None]
    rows = sum(record.rows for record in ordered)
    frames = sum(job.frames for job in plan.jobs if job.key in converted)
    with atomic_directory(folder) as temporary:
        write_model_input(temporary / PICTURE, _first_frames(plan, store))
        seconds += time.perf_counter() - started
        manifest = OfflineBufferManifest(
            format_version=FORMAT_VERSION,
            key=plan.key,
            inputs=plan.inputs,
            sources=_sources(plan, records),
            shards=records,
            rows=rows,
            transitions=sum(record.transitions for record in ordered),
            dropped=rows - sum(record.transitions for record in ordered),
            episodes=sum(len(record.episode_rows) for record in ordered),
            positives_per_episode=tuple(count for record in ordered for count in record.positives),
            roles={role: sum(record.roles[number] for record in ordered) for number, role in enumerate(ROLES)},
            normalizer=normalizer.to_dict(),
            clipped_steps=sum(record.clipped_steps for record in ordered),
            residual_m={"mean": sum(r[0] for r in residuals) / rows, "max": max(r[1] for r in residuals)} if residuals else None,
            size_bytes=sum(file["bytes"] for record in records.values() for file in record.files.values())
            + (temporary / PICTURE).stat().st_size,
            converted_shards=len(converted & records.keys()),
            reused_shards=len(records.keys() - converted),
            seconds=round(seconds, 3),
            frames_per_s=round(frames / seconds, 1),
            folder=folder,
        )
        write_json(temporary / MANIFEST, manifest.to_dict())
    return manifest


def _extremes(ranges: Sequence[tuple[tuple[float, ...], tuple[float, ...]]]) -> np.ndarray:
    """Join (lowest, highest) of several shards into one array of two rows."""
    return np.array([np.min([low for low, _ in ranges], axis=0), np.max([high for _, high in ranges], axis=0)])


def _sources(plan: ConversionPlan, records: Mapping[str, ShardRecord]) -> tuple[SourceRecord, ...]:
    found = []
    for number, source in enumerate(plan.sources):
        jobs = [job for job in plan.jobs if job.source == number]
        rows = sum(records[job.key].rows for job in jobs)
        keys = tuple(job.key for job in jobs)
        found.append(SourceRecord(str(source.root), source.weight, source.role, plan.episodes[number], keys, rows))
    return tuple(found)


def _first_frames(plan: ConversionPlan, store: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the first frame of each camera: as recorded, and as it is in the buffer."""
    first = plan.jobs[0]
    dataset = Dataset.open(first.root).select(first.positions[:1])
    frames = {}
    for camera in plan.config.observation.images:
        key = IMAGE_PREFIX + camera
        _, frame = next(decode_frames(dataset, key))
        seen = np.load(shard_folder(store, first.key) / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        frames[camera] = (rgb(frame), np.array(seen[0]))
    return frames


def _fetch(shared: ShardStore, jobs: Sequence[ShardJob], store: Path) -> None:
    """Copy what is in the shared store to this machine."""
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        list(pool.map(lambda job: shared.fetch(job.key, store) if shared.has(job.key) else None, jobs))


@contextmanager
def _counted(total: int) -> Iterator[Callable[[float], None]]:
    """Publish the frames that any number of threads report."""
    state = {"done": 0.0, "published": 0.0}

    def on_frames(frames: float) -> None:
        state["done"] += frames
        if time.monotonic() - state["published"] >= _PUBLISH_EVERY_S:
            state["published"] = time.monotonic()
            publish(Progress(STAGE, min(round(state["done"]), total), total, "frames", "decoding"))

    yield on_frames
    publish(Progress(STAGE, total, total, "frames", "decoding"))


def _why_new(cache_folder: Path, inputs: Mapping[str, Any]) -> str:
    """Say what is different from the most similar buffer in the cache, the newest of several."""
    known = []
    for path in cache_folder.glob(f"{_PREFIX}*/{MANIFEST}"):
        try:
            before = json.loads(path.read_text())["inputs"]
        except (OSError, ValueError, KeyError):
            continue  # Another format or damaged: it says nothing about these inputs.
        known.append((len(changed_inputs(before, inputs)), -path.stat().st_mtime, path.parent.name, before))
    if not known:
        return "no buffer yet"
    _, _, name, before = min(known, key=lambda entry: entry[:2])
    return f"compared with {name}: " + "; ".join(changed_inputs(before, inputs))
