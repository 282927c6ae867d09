"""How long it takes to validate the tables of a large dataset, and how much memory.

The dataset has no video: what is timed is reading and checking 18-dim states, 4-dim actions, rewards, ends, timestamps and the
episode table. Each run is a fresh process, so its peak memory is its own. Nothing else should run.

    uv run python benchmarks/validation.py --rows 1000000 --require-s 5 --require-mb 600
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

EPISODE_FRAMES = 100
FILE_EPISODES = 2000
_RUN = """
import json, resource, sys, time
from hilserl.config.models import TrainConfig
from hilserl.data.validation import validate_dataset
config = TrainConfig.model_validate(json.loads(sys.argv[1]))
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
report = validate_dataset(config, config.dataset.root)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, imported / 1024, peak / 1024, report.frames, [str(f) for f in report.findings]]))
"""


def make_config(root: Path) -> dict:
    return {
        "task": {"type": "lift"},
        "observation": {"images": {}},
        "dataset": {"root": str(root)},
        "policy": {"offline_buffer_capacity": 100_000_000},
    }


def make_dataset(root: Path, rows: int) -> None:
    """Write `rows` frames of an arm that follows its commands, in several files, as LeRobot lays them out."""
    from hilserl.config.models import TrainConfig
    from hilserl.schema import policy_schema

    schema = policy_schema(TrainConfig.model_validate(make_config(root)))
    names = list(schema.observation["observation.state"].names)
    episodes, rng = rows // EPISODE_FRAMES, np.random.default_rng(0)
    for file, first in enumerate(range(0, episodes, FILE_EPISODES)):
        chosen = np.arange(first, min(first + FILE_EPISODES, episodes))
        count = len(chosen) * EPISODE_FRAMES
        action = np.clip(rng.normal(0, 0.4, (len(chosen), EPISODE_FRAMES, 4)), -1, 1).astype(np.float32)
        state = rng.normal(0, 0.01, (len(chosen), EPISODE_FRAMES, len(names))).astype(np.float32).cumsum(axis=1)
        moved = np.concatenate([np.zeros_like(action[:, :1]), action[:, :-1]], axis=1).cumsum(axis=1)
        where = names.index("ee_pos.x")
        state[:, :, where : where + 3] = np.array([0.22, 0, 0.12]) + 0.004 * moved[:, :, :3]
        state[:, :, names.index("joint_pos.gripper")] = 0.5 + 0.04 * moved[:, :, 3]
        frame = np.tile(np.arange(EPISODE_FRAMES), len(chosen))
        last = frame == EPISODE_FRAMES - 1
        table = pl.DataFrame(
            {
                "observation.state": pl.Series(state.reshape(count, -1), dtype=pl.Array(pl.Float32, len(names))),
                "action": pl.Series(action.reshape(count, -1), dtype=pl.Array(pl.Float32, 4)),
                "next.reward": last.astype(np.float32),
                "next.done": last,
                "timestamp": (frame / 10).astype(np.float32),
                "frame_index": frame,
                "episode_index": np.repeat(chosen, EPISODE_FRAMES),
                "index": first * EPISODE_FRAMES + np.arange(count),
                "task_index": np.zeros(count, np.int64),
            }
        )
        path = root / "data" / "chunk-000" / f"file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(path, compression="snappy")
    index = np.arange(episodes)
    table = pl.DataFrame(
        {
            "episode_index": index,
            "length": np.full(episodes, EPISODE_FRAMES),
            "dataset_from_index": index * EPISODE_FRAMES,
            "dataset_to_index": (index + 1) * EPISODE_FRAMES,
            "data/chunk_index": np.zeros(episodes, np.int64),
            "data/file_index": index // FILE_EPISODES,
        }
    )
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    table.write_parquet(path)
    pl.DataFrame({"task_index": [0], "task": ["lift the cube"]}).write_parquet(root / "meta" / "tasks.parquet")
    scalars = dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
    features = {
        "observation.state": {"dtype": "float32", "shape": [len(names)], "names": names},
        "action": {"dtype": "float32", "shape": [4], "names": list(schema.action.names)},
        **{
            key: {"dtype": dtype, "shape": [1], "names": None}
            for key, dtype in ({"next.reward": "float32", "next.done": "bool", "timestamp": "float32"} | scalars).items()
        },
    }
    info = {"codebase_version": "v3.0", "fps": 10, "features": features, "robot_type": "so101_follower"}
    info |= {"total_episodes": episodes, "total_frames": episodes * EPISODE_FRAMES, "splits": {"train": f"0:{episodes}"}}
    (root / "meta" / "info.json").write_text(json.dumps(info))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--require-s", type=float, default=float("inf"), help="exit 1 when the median takes longer")
    parser.add_argument("--require-mb", type=float, default=float("inf"), help="exit 1 when a run's peak memory is larger")
    parser.add_argument("--show", action="store_true", help="print the findings")
    arguments = parser.parse_args()

    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        make_dataset(root, arguments.rows)
        seconds, peaks = [], []
        for _ in range(arguments.repeat):
            command = [sys.executable, "-c", _RUN, json.dumps(make_config(root))]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            wall, imported, peak, frames, findings = json.loads(output)
            seconds.append(wall)
            peaks.append(peak)
            print(f"{frames} rows: {wall:.2f} s, peak {peak:.0f} MB (imports alone {imported:.0f} MB), {len(findings)} findings")
        if arguments.show:
            print("\n".join(findings))
    print(f"median {statistics.median(seconds):.2f} s, peak {max(peaks):.0f} MB")
    return 0 if statistics.median(seconds) <= arguments.require_s and max(peaks) <= arguments.require_mb else 1


if __name__ == "__main__":
    sys.exit(main())
