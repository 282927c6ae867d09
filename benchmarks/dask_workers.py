"""Time the conversion on a local Dask cluster of 1 and of 2 worker processes, through Prefect, and compare the bytes.

    uv run python benchmarks/dask_workers.py --folder /data/benchmark          # the dataset of benchmarks/offline_buffer.py

Each repeat converts everything anew, on 1 and on 2 workers that have imported what they need; a Prefect server runs
beside them, as it does for a user. Timed is `get_or_build`: fingerprint, validation, conversion, assembly.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from _offline_dataset import benchmark_config, make_dataset


def _import_ahead() -> None:
    import tasks.convert_shards  # noqa: F401  Prefect takes seconds to import


def _convert(dataset: Path, cache: Path, workers: int) -> tuple[float, dict[str, bytes]]:
    from distributed import Client, LocalCluster

    from flows.convert_shards import converting_on
    from hilserl.config.models import TrainConfig
    from hilserl.data.buffer_build import get_or_build
    from hilserl.joints import RobotJointConverter

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster) as client,
    ):
        client.run(_import_ahead)
        value = benchmark_config(dataset).model_dump()
        value["conversion"] = {"runner": "dask", "workers": workers, "dask_address": cluster.scheduler_address}
        config = TrainConfig.model_validate(value)
        started = time.perf_counter()
        manifest, hit, _ = get_or_build(config, dataset, cache, RobotJointConverter(config), converting_on(config.conversion))
        seconds = time.perf_counter() - started
    assert not hit and manifest.reused_shards == 0
    return seconds, {str(path.relative_to(cache)): path.read_bytes() for path in sorted(cache.rglob("shard-*/columns.npy"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the benchmark's dataset is kept")
    parser.add_argument("--frames", type=int, default=15_858)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    dataset = arguments.folder / f"teleop-{arguments.frames}-{arguments.episodes}"
    if not dataset.exists():
        make_dataset(dataset, arguments.frames, arguments.episodes)
    home = Path(tempfile.mkdtemp(prefix="hilserl-dask-"))
    os.environ["HILSERL_HOME"] = str(home)
    from hilserl.services.prefect_server import PrefectServer

    server = PrefectServer(owner="benchmarks/dask_workers.py")
    os.environ.update(server.environment() | {"PREFECT_LOGGING_LEVEL": "ERROR"})
    server.launch()
    try:
        server.wait_ready()
        times: dict[int, list[float]] = {1: [], 2: []}
        for repeat in range(arguments.repeats):
            contents = []
            for workers in times:
                cache = home / f"buffers-{workers}"
                seconds, content = _convert(dataset, cache, workers)
                shutil.rmtree(cache)
                times[workers].append(seconds)
                contents.append(content)
                print(f"repeat {repeat}: {workers} worker(s): {seconds:.1f} s", flush=True)
            assert contents[0] == contents[1], "the same shards, the same bytes"
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
    one, two = (statistics.median(times[workers]) for workers in (1, 2))
    print(f"median of {arguments.repeats}: 1 worker {one:.1f} s, 2 workers {two:.1f} s: {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
