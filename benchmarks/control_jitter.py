"""How evenly the actor's control steps come while the learner is busy on the same cores, with real-time priority and without.

    uv run python benchmarks/control_jitter.py                    # about 6 min
    uv run python benchmarks/control_jitter.py --seconds 20 --repeats 1

A real learner and a real actor in processes of their own, over the link, without Prefect: `reach_state` and, with pictures, `reach`. The
learner owes far more updates than it can do, so it never rests; `--learner-threads` threads, as many as there are cores by default, and
`--burners` further processes that only count, to make it worse. The period is the time between the beginnings of two control steps of
one episode; its jitter is the difference from 100 ms.

Limit (exit code 1): where real-time priority is allowed, jitter of at most 5 ms (p99).
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from _runs import ROOT, commit

from hilserl.config.loader import load_config
from hilserl.config.models import TrainConfig

LIMIT_MS = 5.0
PRIORITY = 10
_SETTLE_S = 3.0


def settings(name: str, priority: int | None, threads: int) -> TrainConfig:
    """Return a run whose learner is always busy and whose actor keeps the wall clock."""
    return load_config(
        name,
        {
            "dataset.record.episodes": 3,
            "encoder.samples": 200,
            "encoder.epochs": 1,
            "tracking.enable": False,
            "policy.online_steps": 100_000_000,
            "policy.online_step_before_learning": 0,
            "policy.utd_ratio": 1000,
            "learner.execution": "eager",
            "learner.torch_threads": threads,
            "actor.pace": "realtime",
            "actor.realtime_priority": priority,
            "actor.evaluate_every_steps": 0,
            "actor.stop_at_success": None,
            "actor.intervention.type": "none",
        },
    )


class _Enough(Exception):
    """The benchmark has seen what it wanted."""


class NoMetrics:
    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        pass


def learn(pipe: Connection, home: str, config: TrainConfig) -> None:
    """Be a learner until told to end."""
    os.environ["HILSERL_HOME"] = home
    from hilserl.learner.run import run_learner
    from hilserl.link.auth import create_token, read_token
    from hilserl.runs import RunFolder
    from hilserl.training import prepare

    offline_buffer, encoders = prepare(config)
    run, _ = RunFolder.open(config, fresh=True)
    create_token(run.token_file)

    def stop_when_told(*_: object) -> None:
        if pipe.poll():
            raise _Enough

    def tell(address: str) -> None:
        pipe.send((address, read_token(run.token_file), run.run_id))

    try:
        run_learner(
            config, run, offline_buffer=offline_buffer, encoders=encoders, metrics=NoMetrics(), on_listening=tell, supervise=stop_when_told
        )
    except _Enough:
        return


def act(pipe: Connection, home: str, config: TrainConfig, address: str, token: str, run_id: str, seconds: float) -> None:
    """Be the actor for a while; then tell when its steps began, and whether it had real-time priority."""
    os.environ["HILSERL_HOME"] = home
    from hilserl.actor import run as actor_run
    from hilserl.actor.pace import Pace

    episodes: list[list[float]] = []
    first: list[float] = []
    got: list[bool] = []

    class NotedPace(Pace):
        def begin(self) -> None:
            super().begin()
            episodes.append([])

        def wait(self) -> None:
            super().wait()
            now = time.monotonic()
            episodes[-1].append(now)
            if not first:
                first.append(now)
                got.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO)

    actor_run.Pace = NotedPace

    def should_stop() -> str | None:
        return "measured" if first and time.monotonic() > first[0] + _SETTLE_S + seconds else None

    actor_run.run_actor(config, address=address, token=token, run_id=run_id, journal_folder=Path(home) / "actor", should_stop=should_stop)
    begin = first[0] + _SETTLE_S
    periods = [after - before for steps in episodes for before, after in itertools.pairwise(steps) if before > begin]
    pipe.send((periods, got[0]))


def burn(parent: int) -> None:
    """Count until the parent is gone."""
    while os.getppid() == parent:
        sum(range(100_000))


def measure(config: TrainConfig, home: Path, seconds: float, burners: int) -> dict[str, float]:
    """Run learner and actor once."""
    context = multiprocessing.get_context("spawn")
    pipe, its_pipe = context.Pipe()
    learner = context.Process(target=learn, args=(its_pipe, str(home), config), daemon=True)
    busy = [context.Process(target=burn, args=(os.getpid(),), daemon=True) for _ in range(burners)]
    actor = None
    learner.start()
    try:
        address, token, run_id = _answer(pipe, 600.0)
        for process in busy:
            process.start()
        actor_pipe, its_actor_pipe = context.Pipe()
        actor = context.Process(target=act, args=(its_actor_pipe, str(home), config, address, token, run_id, seconds), daemon=True)
        actor.start()
        periods, is_realtime = _answer(actor_pipe, seconds + 300.0)
        pipe.send("end")
        actor.join(30.0)
        learner.join(60.0)
    finally:
        for process in (learner, actor, *busy):
            if process is not None and process.is_alive():
                process.kill()
    jitter = 1e3 * np.abs(np.array(periods) - 1.0 / config.robot.control_hz)
    p50, p99 = np.percentile(jitter, [50, 99])
    return {
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(jitter.max()),
        "steps": len(periods),
        "realtime": float(is_realtime),
    }


def _answer(pipe: Connection, timeout_s: float) -> Any:
    if not pipe.poll(timeout_s):
        raise RuntimeError(f"a child did not answer within {timeout_s:.0f} s")
    return pipe.recv()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", choices=("reach_state", "reach"), default=["reach_state", "reach"])
    parser.add_argument("--seconds", type=float, default=60.0, help="of control, each time")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--learner-threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--burners", type=int, default=0)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "control_jitter.jsonl")
    arguments = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {arguments.learner_threads} learner threads, {arguments.burners} burners"
    )
    print(f"{'':14}{'priority':>22}{'steps':>7}{'jitter p50':>12}{'p99':>8}{'largest [ms]':>14}")
    good = True
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        for name in arguments.configs:
            found: dict[int | None, list[dict[str, float]]] = {None: [], PRIORITY: []}
            for _ in range(arguments.repeats):
                for priority, all_ in found.items():
                    figures = measure(settings(name, priority, arguments.learner_threads), Path(home), arguments.seconds, arguments.burners)
                    all_.append(figures)
                    facts = {"config": name, "asked": priority, "burners": arguments.burners, "threads": arguments.learner_threads}
                    with arguments.json.open("a") as lines:
                        lines.write(json.dumps(facts | figures | {"commit": commit(), "cores": os.cpu_count()}) + "\n")
            for priority, all_ in found.items():
                median = {key: statistics.median(one[key] for one in all_) for key in all_[0]}
                label = "none" if priority is None else f"SCHED_FIFO {priority}" if median["realtime"] else "refused by the system"
                print(
                    f"{name:14}{label:>22}{median['steps']:7.0f}{median['p50_ms']:12.2f}{median['p99_ms']:8.2f}{median['max_ms']:14.1f}",
                    flush=True,
                )
                if median["realtime"]:
                    good &= median["p99_ms"] <= LIMIT_MS
                    print(f"  {'passed' if median['p99_ms'] <= LIMIT_MS else 'MISSED'}: p99 {median['p99_ms']:.2f} ms, limit {LIMIT_MS} ms")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
