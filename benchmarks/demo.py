"""How long the demo takes and how good its policy is, from nothing, over several seeds.

Each seed starts with an empty HILSERL_HOME: recording, encoder and buffer are part of the time. Then the
first seed's command is run once more, to see how soon a second run learns. Nothing else should run.

    uv run python benchmarks/demo.py reach --seeds 0 1 2 --require 0.95 --minutes 4
    uv run python benchmarks/demo.py lift  --seeds 0 1 2 --require 0.90 --minutes 8
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
import time
from pathlib import Path


def run_demo(config: str, seed: int, home: Path, *arguments: str) -> tuple[float, float, dict]:
    """Return wall seconds, seconds until the first critic update, and the run's summary."""
    started_at, started = time.time(), time.monotonic()
    command = [sys.executable, "-m", "commands.main", "demo", config, "--seed", str(seed), "--plain", *arguments]
    subprocess.run(command, check=True, env=os.environ | {"HILSERL_HOME": str(home)}, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    newest = max((home / "runs" / config).glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    summary = json.loads(newest.read_text())
    return seconds, summary["first_update_at"] - started_at, summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", choices=("reach", "lift"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--require", type=float, default=0.0, help="exit 1 when a seed's success rate is lower")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="exit 1 when a seed takes longer")
    arguments = parser.parse_args()

    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}")
    print(f"{'seed':>4} {'wall s':>7} {'first update s':>14} {'steps':>6} {'updates':>7} {'success':>8} {'95 % interval':>16}")
    walls, good = [], True
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            wall, first, summary = run_demo(arguments.config, seed, Path(folder) / str(seed))
            walls.append(wall)
            good &= summary["success_rate"] >= arguments.require and wall <= 60 * arguments.minutes
            print_row(str(seed), wall, first, summary)
        again, first, summary = run_demo(arguments.config, arguments.seeds[0], Path(folder) / str(arguments.seeds[0]), "--fresh")
        print_row("2nd", again, first, summary)
    print(f"median {statistics.median(walls):.0f} s from nothing; the second run of a seed learns after {first:.0f} s")
    return 0 if good else 1


def print_row(name: str, wall: float, first: float, summary: dict) -> None:
    low, high = summary["interval"]
    print(
        f"{name:>4} {wall:7.1f} {first:14.1f} {summary['environment_steps']:6d} {summary['updates']:7d} "
        f"{summary['success_rate']:8.1%} {low:7.1%} – {high:6.1%}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
