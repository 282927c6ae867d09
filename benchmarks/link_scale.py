"""1 to 32 simulated actors against one learner: what the link carries, and how many one learner can serve.

    uv run python benchmarks/link_scale.py                        # about 15 min
    uv run python benchmarks/link_scale.py --parts link --actors 1 8 --seconds 4
    uv run python benchmarks/link_scale.py --parts learner --execution eager

`link`: one real `LinkServer` in a process that takes every step off its queue and drops it, as fast as it can; actors are processes
that send recorded steps (one 84x84 picture, state of 18) over the real client with its journal, at full speed (each with at most 256
unacknowledged records) and at 10 Hz. Latency is from `send_step` to the learner's hands; processor time counts all threads of a process.

`learner`: a real learner, once from the state alone and once with a frozen encoder, and 10 Hz actors: 1, 2, 4, ... until the critic
updates that it owes grow. `max actors` is what its rate of updates pays for at 10 Hz.

Everything runs on this one machine, so actors and learner share its cores. Results are appended to benchmarks/results/link_scale.jsonl.
"""

from __future__ import annotations

import argparse
import json
import logging
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
import psutil
from _fleet import SENT_AT, Fleet, Job
from _recorded_steps import record
from _runs import ROOT, commit

from hilserl.config.loader import load_config
from hilserl.config.models import LinkConfig, TrainConfig
from hilserl.link import Handshake, LinkServer

TOKEN = "a-token-for-benchmarks-only"
HZ = 10.0
LEARNERS = {"state only": "reach_state", "frozen encoder": "reach"}
_SETTLE_S = 1.0  # after the first step: not counted
_GROWS = 0.05  # of what comes to be owed


# --------------------------------------------------------------------------------------------- link


def serve(pipe: Connection, folder: str) -> None:
    """Take steps off the queue; between two moments, count them and look at their age."""
    logging.getLogger("hilserl").setLevel(logging.ERROR)  # the actors are killed in the end, which the link tells
    handshake = Handshake(run_id="scale", schema_hash="schema", architecture_hash="architecture")
    with LinkServer(LinkConfig(), token=TOKEN, handshake=handshake, journal_folder=Path(folder)) as server:
        pipe.send((server.start(), handshake))
        begin, end = pipe.recv()
        latencies: list[float] = []
        cpu = began = 0.0
        while (now := time.monotonic()) < end:
            if not began and now >= begin:
                cpu, began = time.process_time(), now
            for received in server.poll(0.02):
                if began:
                    latencies.append(time.monotonic() - float(received.record.observation[SENT_AT][0]))
        cpu, seconds = time.process_time() - cpu, time.monotonic() - began
        pipe.send((latencies, cpu, seconds, psutil.Process(os.getpid()).memory_info().rss / 1e6))
        pipe.recv()


def measure_link(actors: int, hz: float | None, steps_file: Path, seconds: float) -> dict[str, float]:
    """Run one fleet against one server."""
    context = multiprocessing.get_context("spawn")
    pipe, its_pipe = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        learner = context.Process(target=serve, args=(its_pipe, f"{folder}/learner"), daemon=True)
        learner.start()
        try:
            address, handshake = _answer(pipe, 60.0)
            job = Job(address, TOKEN, handshake, steps_file, Path(folder) / "actors", hz, stamped=True)
            with Fleet(job, actors) as fleet:
                begin = time.monotonic() + 0.5
                end = begin + _SETTLE_S + seconds
                pipe.send((begin + _SETTLE_S, end))
                fleet.send_between(begin, end)
                sent = fleet.results()
                latencies, cpu_s, took_s, resident_mb = _answer(pipe, 60.0)
        finally:
            learner.kill()
            learner.join()
    steps, actors_cpu_s = sum(one.steps for one in sent), sum(one.cpu_s for one in sent)
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (float("nan"), float("nan"))
    return {
        "transitions_per_s": len(latencies) / took_s,
        "latency_p50_ms": 1e3 * float(p50),
        "latency_p99_ms": 1e3 * float(p99),
        "learner_cpu_us": 1e6 * cpu_s / max(1, len(latencies)),
        "learner_cpu_share": cpu_s / took_s,
        "actor_cpu_us": 1e6 * actors_cpu_s / max(1, steps),
        "learner_mb": resident_mb,
        "actor_mb": statistics.mean(one.resident_mb for one in sent),
    }


# ------------------------------------------------------------------------------------------ learner


def settings(name: str, execution: str) -> TrainConfig:
    """Return a run that does not end, owes from its first step and starts soon; how fast an update is depends on none of it."""
    quick = {"dataset.record.episodes": 3, "encoder.samples": 200, "encoder.epochs": 1, "tracking.enable": False}
    endless = {"policy.online_steps": 100_000_000, "policy.online_step_before_learning": 0, "actor.stop_at_success": None}
    return load_config(name, {**quick, **endless, "learner.execution": execution, "learner.save_freq": 100_000})


class _Enough(Exception):
    """The benchmark has seen what it wanted."""


class Debts:
    """Keeps (time [s], updates owed, updates done)."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float]] = []

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        if "utd/owed" in values:
            self.seen.append((time.monotonic(), values["utd/owed"], values["utd/done"]))


def learn(pipe: Connection, home: str, name: str, execution: str) -> None:
    """Be a learner until told to end; then tell what was owed when."""
    os.environ["HILSERL_HOME"] = home
    from hilserl.learner.run import _handshake, run_learner
    from hilserl.link.auth import create_token, read_token
    from hilserl.runs import RunFolder
    from hilserl.training import prepare

    config = settings(name, execution)
    offline_buffer, encoders = prepare(config)
    run, _ = RunFolder.open(config, fresh=True)
    create_token(run.token_file)
    debts = Debts()

    def stop_when_told(*_: object) -> None:
        if pipe.poll():
            raise _Enough

    def tell(address: str) -> None:
        pipe.send((address, read_token(run.token_file), _handshake(config, run)))

    try:
        run_learner(
            config, run, offline_buffer=offline_buffer, encoders=encoders, metrics=debts, on_listening=tell, supervise=stop_when_told
        )
    except _Enough:
        pipe.send((debts.seen, psutil.Process(os.getpid()).memory_info().rss / 1e6))


def measure_learner(name: str, actors: int, home: Path, steps_file: Path, seconds: float, execution: str) -> dict[str, float]:
    """Run one fleet at 10 Hz against one learner."""
    context = multiprocessing.get_context("spawn")
    pipe, its_pipe = context.Pipe()
    learner = context.Process(target=learn, args=(its_pipe, str(home), name, execution), daemon=True)
    learner.start()
    try:
        address, token, handshake = _answer(pipe, 600.0)
        with (
            tempfile.TemporaryDirectory() as folder,
            Fleet(Job(address, token, handshake, steps_file, Path(folder), HZ, stamped=False), actors) as fleet,
        ):
            begin = time.monotonic() + 0.5
            end = begin + seconds
            fleet.send_between(begin, end)
            fleet.results()
            pipe.send("end")
            seen, resident_mb = _answer(pipe, 120.0)
    finally:
        learner.kill()
        learner.join()
    counted = [(at, owed, done) for at, owed, done in seen if begin + seconds / 3 <= at <= end]
    times = [at for at, _, _ in counted]
    demand = settings(name, "eager").policy.utd_ratio * HZ
    growth = statistics.linear_regression(times, [owed for _, owed, _ in counted]).slope
    rate = statistics.linear_regression(times, [done for _, _, done in counted]).slope
    return {
        "updates_per_s": rate,
        "needed_per_s": demand * actors,
        "owed_at_end": counted[-1][1],
        "owed_growth_per_s": growth,
        "grows": float(growth > _GROWS * demand * actors),
        "max_actors": rate / demand,
        "learner_mb": resident_mb,
    }


# ------------------------------------------------------------------------------------------ tables


def _answer(pipe: Connection, timeout_s: float) -> Any:
    if not pipe.poll(timeout_s):
        raise RuntimeError(f"the learner's process did not answer within {timeout_s:.0f} s")
    return pipe.recv()


def _write(file: Path, facts: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(facts | {"commit": commit(), "cores": os.cpu_count()}) + "\n")


def link_part(actors: list[int], seconds: float, steps_file: Path, results: Path) -> None:
    for label, hz in (("full speed", None), ("10 Hz each", HZ)):
        print(f"\n{label}, {seconds:g} s")
        print(
            f"{'actors':>6} {'transitions/s':>14} {'latency p50 / p99 [ms]':>24} "
            f"{'CPU us per transition: learner, actor':>40} {'learner, actor [MB]':>20}"
        )
        for count in actors:
            found = measure_link(count, hz, steps_file, seconds)
            _write(results, {"part": "link", "pace": label, "actors": count} | found)
            print(
                f"{count:6} {found['transitions_per_s']:14.0f} {found['latency_p50_ms']:14.1f} / {found['latency_p99_ms']:7.1f} "
                f"{found['learner_cpu_us']:33.0f}, {found['actor_cpu_us']:5.0f} {found['learner_mb']:13.0f}, {found['actor_mb']:4.0f}",
                flush=True,
            )


def learner_part(actors: list[int], seconds: float, steps: dict[str, Path], home: Path, execution: str, results: Path) -> None:
    for label, name in LEARNERS.items():
        print(f"\na real learner, {label}, actors at 10 Hz, UTD {settings(name, 'eager').policy.utd_ratio}, {seconds:g} s")
        print(
            f"{'actors':>6} {'updates/s':>10} {'needed':>8} {'owed at the end':>16} "
            f"{'growth [updates/s]':>19} {'max actors':>11} {'learner [MB]':>13}"
        )
        for count in actors:
            found = measure_learner(name, count, home, steps[name], seconds, execution)
            _write(results, {"part": "learner", "learner": label, "execution": execution, "actors": count} | found)
            limit = f"{found['max_actors']:11.1f}" if found["grows"] else f"{'> ' + str(count):>11}"
            print(
                f"{count:6} {found['updates_per_s']:10.0f} {found['needed_per_s']:8.0f} {found['owed_at_end']:16.0f} "
                f"{found['owed_growth_per_s']:19.1f} {limit} {found['learner_mb']:13.0f}",
                flush=True,
            )
            if found["grows"]:
                break


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("link", "learner"), default=["link", "learner"])
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=10.0, help="of sending in `link`")
    parser.add_argument("--learner-seconds", type=float, default=30.0, help="of sending in `learner`; the last two thirds count")
    parser.add_argument(
        "--execution", choices=("auto", "eager", "compiled"), default="auto", help="`learner.execution` of the real learner"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "link_scale.jsonl")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        steps = {}
        for name in LEARNERS.values():
            steps[name] = folder / f"{name}.npz"
            record(settings(name, "eager"), steps[name], 200, episode_steps=30)
        if "link" in arguments.parts:
            link_part(arguments.actors, arguments.seconds, steps["reach"], arguments.json)
        if "learner" in arguments.parts:
            learner_part(arguments.actors, arguments.learner_seconds, steps, folder / "home", arguments.execution, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
