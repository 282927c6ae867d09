"""Time the offline buffer, beside LeRobot 0.6.1's loader and beside decoding alone, on 15,858 frames of 640x480 AV1.

    uv run python benchmarks/offline_buffer.py --folder /data/benchmark --json offline_buffer.json
    uv run python benchmarks/offline_buffer.py --folder /data/benchmark --frames 600      # a quick look
    uv run python benchmarks/offline_buffer.py --folder /data/benchmark --size 1gb        # the fingerprint only

The dataset is made on the first call (LeRobot's writer and encoder settings; 10 minutes on 2 cores) and kept in
`--folder`, 2 GB in all. Each step runs in a fresh process, all of them once a repeat, so that whatever else runs on
the machine meets them alike; times are taken inside, imports excluded; memory is that of all its processes together.
The dataset's files are in the page cache for everybody.

LeRobot decodes each frame three times where there is no done column, one by one. It is timed on the first
`--lerobot-frames` (pyav) and `--torchcodec-frames` frames and EXTRAPOLATED to all of them in proportion; `--full`
lets it do all. Exit 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _fresh_process import Measured, run_fresh
from _offline_dataset import (
    HEIGHT,
    SIZE,
    WIDTH,
    benchmark_config,
    copy_of_size,
    copy_with_one_byte_changed,
    copy_with_one_episode_changed,
    copy_with_one_picture_damaged,
    make_dataset,
)
from _offline_peers import decode_and_scale, lerobot, torchcodec_environment

GIGABYTE = 10**9


# Steps, each in a process of its own


def build(root: str, cache: str, policy: dict[str, float]) -> dict[str, Any]:
    """Get the buffer, from nothing or from what `cache` holds."""
    from hilserl.data.buffer_build import get_or_build
    from hilserl.data.offline_buffer import OfflineBuffer
    from hilserl.joints import RobotJointConverter

    config = benchmark_config(Path(root), **policy)
    converter = RobotJointConverter(config)
    started = time.perf_counter()
    manifest, hit, reason = get_or_build(config, Path(root), Path(cache), converter)
    OfflineBuffer.open(manifest.folder)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "hit": hit,
        "reason": reason,
        "rows": manifest.rows,
        "converted_shards": manifest.converted_shards,
        "reused_shards": manifest.reused_shards,
        "bytes": manifest.size_bytes,
        "bytes_in_cache": sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file()),
        "pixels_and_vectors": manifest.rows * (SIZE * SIZE * 3 + _row_bytes(config)),
    }


def build_damaged(root: str, cache: str) -> dict[str, Any]:
    """Try to get the buffer of a dataset with a damaged video."""
    from hilserl.data.buffer_build import get_or_build
    from hilserl.errors import DatasetError
    from hilserl.joints import RobotJointConverter

    config = benchmark_config(Path(root))
    converter = RobotJointConverter(config)
    started = time.perf_counter()
    try:
        get_or_build(config, Path(root), Path(cache), converter)
    except DatasetError as error:
        return {"seconds": time.perf_counter() - started, "error": str(error)}
    return {"seconds": time.perf_counter() - started, "error": ""}


def fingerprint(root: str, cache: str) -> dict[str, Any]:
    """Decide whether anything changed: what `get_or_build` does first, on every start."""
    from hilserl.data.conversion_plan import plan_conversion
    from hilserl.joints import RobotJointConverter

    config = benchmark_config(Path(root))
    converter = RobotJointConverter(config)
    started = time.perf_counter()
    plan = plan_conversion(config, Path(root), Path(cache), converter)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file())
    return {"seconds": seconds, "key": plan.key, "dataset_bytes": size, "shards": len(plan.jobs)}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "lerobot": lerobot,
    "decode_and_scale": decode_and_scale,
    "build": build,
    "build_damaged": build_damaged,
    "fingerprint": fingerprint,
}


def _row_bytes(config: Any) -> int:
    """State, action, reward, and what a row says of itself: terminated, truncated, next row, episode, role."""
    from hilserl.schema import policy_schema

    schema = policy_schema(config)
    state, action = schema.observation["observation.state"].shape[0], schema.action.shape[0]
    return 4 * (state + action + 1) + 3 + 8 + 1


# The benchmark


class Benchmark:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder: Path = arguments.folder
        self.root = self.folder / f"teleop-{arguments.frames}-{arguments.episodes}"
        self.cache = self.folder / "cache"
        self.runs: dict[str, list[Measured]] = {}
        self.limits: list[dict[str, Any]] = []

    def step(self, name: str, step: str, environment: dict[str, str] | None = None, **arguments: Any) -> Measured:
        """Run one step and note it under `name`."""
        print(f"  {name} ... ", end="", flush=True)
        measured = run_fresh(Path(__file__).resolve(), step, arguments, environment)
        self.runs.setdefault(name, []).append(measured)
        print(f"{measured.result['seconds']:.3f} s, {measured.cpu_s:.1f} s of processor time, {measured.peak_mb:.0f} MB")
        return measured

    def make(self) -> None:
        """Make the dataset unless it is there."""
        if not self.root.exists():
            print(f"Making {self.root}")
            make_dataset(self.root, self.arguments.frames, self.arguments.episodes)
        size = sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())
        print(f"{self.root}: {self.arguments.frames:,} frames of {WIDTH}x{HEIGHT} AV1, {size / 1e6:.0f} MB")

    def repeat(self) -> None:
        """Run every step once: peers, the limit, ours from nothing, ours again."""
        frames = {backend: getattr(self.arguments, f"{backend}_frames") for backend in ("lerobot", "torchcodec")}
        if self.arguments.full:
            frames = dict.fromkeys(frames, self.arguments.frames)
        links = torchcodec_environment(self.folder / "ffmpeg")
        if frames["lerobot"]:
            self.step("LeRobot, pyav", "lerobot", root=str(self.root), backend="pyav", frames=frames["lerobot"])
        if frames["torchcodec"]:
            self.step("LeRobot, torchcodec", "lerobot", links, root=str(self.root), backend="torchcodec", frames=frames["torchcodec"])
        out = self.folder / "pixels.npy"
        self.step("decode and scale alone", "decode_and_scale", root=str(self.root), out=str(out))
        out.unlink()
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir(parents=True)
        ours = {"root": str(self.root), "cache": str(self.cache)}
        assert not self.step("ours, from nothing", "build", **ours, policy={}).result["hit"]
        self.step("ours, cached", "build", **ours, policy={})
        self.step("fingerprint, unchanged", "fingerprint", **ours)

    def changes(self) -> None:
        """Change one thing at a time, beside the cache of the unchanged dataset."""
        cache = str(self.cache)
        self.step("another learning rate", "build", root=str(self.root), cache=cache, policy={"critic_lr": 1e-4})
        copy = self.folder / "changed"
        copy_with_one_byte_changed(self.root, copy)
        self.step("one byte of a video", "build", root=str(copy), cache=cache, policy={})
        copy_with_one_picture_damaged(self.root, copy)
        self.step("one byte of a picture", "build_damaged", root=str(copy), cache=cache)
        copy_with_one_episode_changed(self.root, copy, self.arguments.episodes // 2)
        self.step("one episode", "build", root=str(copy), cache=cache, policy={})
        shutil.rmtree(copy)

    def large_fingerprint(self) -> None:
        """Fingerprint a dataset of a gigabyte, first unknown, then unchanged."""
        copy, cache = self.folder / "gigabyte", self.folder / "cache-gigabyte"
        if not copy.exists():
            copy_of_size(self.root, copy.with_name("gigabyte.tmp"), GIGABYTE)
            copy.with_name("gigabyte.tmp").rename(copy)
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        self.step("1 GB, unknown", "fingerprint", root=str(copy), cache=str(cache))
        for _ in range(self.arguments.repeats):
            self.step("1 GB, unchanged", "fingerprint", root=str(copy), cache=str(cache))
        shutil.rmtree(cache)
        self.limit("fingerprint of 1 GB, unchanged [s]", self.median("1 GB, unchanged"), at_most=0.3)

    def median(self, name: str, value: str = "seconds") -> float:
        return statistics.median(float(measured.result[value]) for measured in self.runs[name])

    def ratio(self, first: str, second: str, value: str = "seconds") -> float:
        """Median over the repeats of one step's time over another's."""
        return statistics.median(
            float(a.result[value]) / float(b.result["seconds"]) for a, b in zip(self.runs[first], self.runs[second], strict=True)
        )

    def limit(self, what: str, measured: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        passed = (at_least is None or measured >= at_least) and (at_most is None or measured <= at_most)
        self.limits.append({"what": what, "measured": measured, "at_least": at_least, "at_most": at_most, "passed": passed})

    def judge(self) -> None:
        """Compare with the limits."""
        ours = "ours, from nothing"
        for peer, factor in (("LeRobot, pyav", 50), ("LeRobot, torchcodec", 15)):
            if peer in self.runs:
                self.limit(f"times as fast as {peer}", self.ratio(peer, ours, "full_s"), at_least=factor)
        self.limit("time / decoding and scaling alone", 1 / self.ratio("decode and scale alone", ours), at_most=1.15)
        self.limit("peak memory [MB]", max(measured.peak_mb for measured in self.runs[ours]), at_most=600)
        size = self.runs[ours][0].result
        self.limit("bytes on disk / pixels and vectors", size["bytes_in_cache"] / size["pixels_and_vectors"], at_most=1.05)
        self.limit("cached load [ms]", self.median("ours, cached") * 1e3, at_most=100)
        self.limit("fingerprint, unchanged [s]", self.median("fingerprint, unchanged"), at_most=0.3)
        changed = {name: self.runs[name][0].result for name in ("another learning rate", "one byte of a video", "one episode")}
        self.limit("another learning rate: rebuilt", float(not changed["another learning rate"]["hit"]), at_most=0)
        self.limit("one byte of a video: rebuilt", float(not changed["one byte of a video"]["hit"]), at_least=1)
        damage = self.runs["one byte of a picture"][0].result["error"]
        print(f"The damaged picture: {damage}")
        self.limit("one byte of a picture: stops and names the episode", float("episode" in damage), at_least=1)
        # One shard: or two, where the change moves the place where a shard ends.
        self.limit("one episode: shards converted", changed["one episode"]["converted_shards"], at_least=1, at_most=2)

    def print_table(self) -> None:
        print(f"\n{'step':26} {'median':>10} {'min':>9} {'max':>9} {'CPU':>8} {'peak MB':>8}")
        for name, runs in self.runs.items():
            seconds = [float(measured.result["seconds"]) for measured in runs]
            note = ""
            if "full_s" in runs[0].result and runs[0].result["frames"] < runs[0].result["of"]:
                did, of = runs[0].result["frames"], runs[0].result["of"]
                note = f"{did} frames; {self.median(name, 'full_s'):.0f} s by extrapolation to {of:,}"
            elif not runs[0].result.get("hit", True):
                note = f"{runs[0].result['converted_shards']} shards converted, {runs[0].result['reused_shards']} reused"
            peak, cpu = max(measured.peak_mb for measured in runs), statistics.median(measured.cpu_s for measured in runs)
            times = f"{statistics.median(seconds):8.3f} s {min(seconds):7.3f} s {max(seconds):7.3f} s"
            print(f"{name:26} {times} {cpu:6.1f} s {peak:8.0f}  {note}")
        print()
        for limit in self.limits:
            signs = {"at_least": ">=", "at_most": "<="}
            wanted = " and ".join(f"{sign} {limit[key]:g}" for key, sign in signs.items() if limit[key] is not None)
            print(f"{'passed' if limit['passed'] else 'MISSED'}: {limit['what']}: {limit['measured']:.3g} ({wanted})")


def main() -> int:
    if sys.argv[1:2] == ["step"]:
        _, _, name, arguments, answer = sys.argv
        result = STEPS[name](**json.loads(arguments))
        Path(answer).write_text(json.dumps(result))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the dataset, its changed copies and the cache")
    parser.add_argument("--frames", type=int, default=15_858)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lerobot-frames", type=int, default=300, help="frames that LeRobot with pyav is timed on; 0: leave it out")
    parser.add_argument("--torchcodec-frames", type=int, default=600, help="the same with torchcodec")
    parser.add_argument("--full", action="store_true", help="let LeRobot do all frames: half an hour and 5 GB")
    parser.add_argument("--size", choices=("1gb",), help="only fingerprint the dataset repeated to this size")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.absolute()
    load = os.getloadavg()[0]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start; Python {platform.python_version()}"
    print(machine)
    benchmark = Benchmark(arguments)
    benchmark.make()
    if arguments.size:
        benchmark.large_fingerprint()
    else:
        for repeat in range(arguments.repeats):
            print(f"Repeat {repeat + 1} of {arguments.repeats}")
            benchmark.repeat()
        benchmark.changes()
        benchmark.judge()
    benchmark.print_table()
    if arguments.json:
        runs = {name: [vars(measured) for measured in runs] for name, runs in benchmark.runs.items()}
        arguments.json.write_text(json.dumps({"machine": machine, "runs": runs, "limits": benchmark.limits}, indent=1))
    return 0 if all(limit["passed"] for limit in benchmark.limits) else 1


if __name__ == "__main__":
    sys.exit(main())
