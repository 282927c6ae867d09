"""Conversion on each of Prefect's task runners: the same shards, the same bytes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pipeline_testing import make_tiny_config

from flows.convert_shards import converting_on
from hilserl.config.models import TrainConfig
from hilserl.data import shards
from hilserl.data.buffer_build import get_or_build
from hilserl.data.conversion_plan import plan_conversion
from hilserl.data.manifest import OfflineBufferManifest
from hilserl.errors import DatasetError
from hilserl.joints import RobotJointConverter
from hilserl.progress import Progress, subscribed

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MAX_FRAMES", 1)  # an episode a shard


def build(config: TrainConfig, dataset: Path, cache: Path) -> OfflineBufferManifest:
    return get_or_build(config, dataset, cache, RobotJointConverter(config), converting_on(config.conversion))[0]


def contents(cache: Path) -> dict[str, bytes]:
    """Every file of every shard but the records."""
    folder = cache / "shards"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}


@pytest.mark.parametrize(
    "runner", ["threads", pytest.param("processes", marks=pytest.mark.slow), pytest.param("dask", marks=pytest.mark.slow)]
)
def test_every_runner_writes_the_same_bytes(runner: str, tiny_demonstrations: Path, tmp_path: Path) -> None:
    config = make_tiny_config(conversion__runner=runner, conversion__workers=2)
    get_or_build(config, tiny_demonstrations, tmp_path / "library", RobotJointConverter(config))
    seen: list[Progress] = []
    with subscribed(seen.append):
        manifest = build(config, tiny_demonstrations, tmp_path / runner)
    assert manifest.converted_shards == manifest.episodes == 3
    assert contents(tmp_path / runner) == contents(tmp_path / "library")
    assert seen[-1].done == seen[-1].total == manifest.rows


def test_workers_meet_in_a_shared_store(tiny_demonstrations: Path, tmp_path: Path) -> None:
    """What one machine converted, another one finds; the learner keeps a copy of its own."""
    config = make_tiny_config(conversion__store=f"file://{tmp_path}/shared")
    build(config, tiny_demonstrations, tmp_path / "first")
    names = sorted(path.name for path in (tmp_path / "shared").iterdir())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*.npy")}
    build(config, tiny_demonstrations, tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "first") and len(names) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*.npy")} == before, "nothing was converted twice"


def test_a_failed_shard_fails_its_task_and_the_others_are_done(
    tiny_demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_tiny_config()
    bad = plan_conversion(config, tiny_demonstrations, None, RobotJointConverter(config)).jobs[1]
    original = shards.convert_steps

    def broken(config: TrainConfig, dataset: Any, *args: Any) -> Any:
        if dataset.episodes[0].index == 1:
            raise DatasetError("cannot convert episode 1")
        return original(config, dataset, *args)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "convert_steps", broken)
        with pytest.raises(DatasetError, match="cannot convert episode 1"):
            build(config, tiny_demonstrations, tmp_path / "cache")
    done = [path.name for path in (tmp_path / "cache" / "shards").glob("shard-*")]
    assert len(done) == 2 and f"shard-{bad.key}" not in done


@pytest.mark.slow
def test_a_dask_worker_killed_in_the_middle_costs_nothing_but_time(tiny_demonstrations: Path, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    config = make_tiny_config()
    get_or_build(config, tiny_demonstrations, tmp_path / "library", RobotJointConverter(config))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster) as client,
    ):
        on_dask = make_tiny_config(conversion__runner="dask", conversion__workers=2, conversion__dask_address=cluster.scheduler_address)
        victim = min(client.run(os.getpid).values())
        client.run(_kill_on_first_shard, victim)
        manifest = build(on_dask, tiny_demonstrations, tmp_path / "dask")
        assert victim not in client.run(os.getpid).values(), "the worker was killed, and replaced"
    assert manifest.converted_shards == 3
    assert contents(tmp_path / "dask") == contents(tmp_path / "library")


def _kill_on_first_shard(victim: int) -> None:
    """In one worker: die with a half-written shard on the disk, as the kernel's out-of-memory killer would have it."""
    if os.getpid() != victim:
        return
    from hilserl.data import shards as here

    def dying(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    here._record = dying  # type: ignore[assignment]
