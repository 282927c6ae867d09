"""Kill the processes of a training at random moments, again and again, and count what was lost and how long until it went on.

    uv run python benchmarks/chaos.py                            # 20 kills of each kind, about 2-3 h
    uv run python benchmarks/chaos.py --kills 2 --kinds learner actor
    uv run python benchmarks/chaos.py --minutes 60               # soak: random kinds at random intervals
    uv run python benchmarks/chaos.py --minutes 60 --kills 0     # soak without kills: is memory flat?

A real `hilserl up` with a HILSERL_HOME and ports of its own, and a real training (`reach_state` at 10 Hz on the wall clock), started
by `prefect deployment run hilserl/train`. Each kill is SIGKILL of one process: the learner's or the actor's flow run, the Prefect
server, MLflow's server (which keeps the metrics here), the learner's or the robot's worker. Nobody helps afterwards. After each kill
the journals of both sides are compared record by record, by content; what an actor journaled and the learner never gets is lost. An
action that was executed and not yet journaled is in no file: at most one control step per kill of the actor.

Limits (exit code 1): everything goes on by itself, no record is lost, altered or doubled, no file is torn, no process is left over.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _chaos_report import Kill, Report, describe, metric_points, show, torn_files
from _journal_audit import JournalAudit
from _runs import ROOT, commit
from _up import KINDS, Up
from _watch import Watch, disk_summary, memory_summary

from hilserl.errors import HilserlError

_CONFIG = "reach_state"
_MARGIN_S = 0.5  # what was on its way when the process died still arrives
_DELIVERY_S = 30.0  # records on their way have so long to arrive, once everything goes on
_OVER = ("Completed", "Failed", "Cancelled")


class Chaos:
    """One training under fire.

    Args:
        up: Ready, nothing trains yet.
        arguments: Of the command line.
    """

    def __init__(self, up: Up, arguments: argparse.Namespace) -> None:
        self._up, self._arguments = up, arguments
        self._random = random.Random(arguments.seed)
        self._lost: set[tuple[str, int]] = set()
        self.report = Report(commit(), arguments.seed)

    def run(self) -> None:
        """Train, kill, look, stop; the report is complete also when something went wrong."""
        self._up.start_training(f"configs/{_CONFIG}.yaml", overrides(self._up.mlflow_url, self._arguments.hz))
        folder = self._up.wait_for_run(_CONFIG)
        began = time.monotonic()
        watch = Watch(self._up.home, folder, self._up.find)
        audit = JournalAudit(self._up.home / "actors", folder / "journal" / "learner")
        try:
            self._wait_until_it_goes_on(watch, began, Kill("start", 0.0))
            for kind in self._schedule(began):
                self._pause(*self._arguments.interval)
                self._kill(kind, watch, audit, began)
        finally:
            watch.close()
            self.report.seconds = time.monotonic() - began
            self.report.updates = int(watch.updates.value)
            self.report.memory, self.report.disk = memory_summary(watch.memory), disk_summary(watch.disk)
            self._finish(folder, audit)
        if watch.failure is not None:
            raise watch.failure

    def _schedule(self, began: float) -> Iterator[str]:
        """Yield what to kill next."""
        kinds = self._arguments.kinds
        if self._arguments.minutes and not self._arguments.kills:
            self._pause(60 * self._arguments.minutes, 60 * self._arguments.minutes)
        elif self._arguments.minutes:
            while time.monotonic() - began < 60 * self._arguments.minutes:
                yield self._random.choice(kinds)
        else:
            order = [kind for kind in kinds for _ in range(self._arguments.kills)]
            self._random.shuffle(order)
            yield from order

    def _pause(self, shortest_s: float, longest_s: float) -> None:
        until = time.monotonic() + self._random.uniform(shortest_s, longest_s)
        while time.monotonic() < until:
            self._up.require_alive()
            time.sleep(0.05)

    def _kill(self, kind: str, watch: Watch, audit: JournalAudit, began: float) -> None:
        target = self._up.find().get(kind)
        if target is None:
            raise RuntimeError(f"there is no process of kind {kind} to kill; there are {sorted(self._up.find())}")
        kill = Kill(kind, time.monotonic() - began)
        self.report.kills.append(kill)
        target.kill()
        self._wait_until_it_goes_on(watch, time.monotonic(), kill, killed=target.pid)
        kill.lost = self._count_lost(audit)
        number = len(self.report.kills)
        print(f"{number:4} {kind:15} at {kill.at_s:7.1f} s: {describe(kill)}", flush=True)

    def _wait_until_it_goes_on(self, watch: Watch, since: float, kill: Kill, killed: int = 0) -> None:
        """Fill in how long it took; returns when everything goes on, or the time is over."""
        updates_before = watch.updates.value
        while time.monotonic() - since < self._arguments.recover_within and not kill.went_on:
            self._up.require_alive()
            if watch.failure is not None:
                raise watch.failure
            past = since + _MARGIN_S
            if kill.acting_s is None and watch.acting.at > past:
                kill.acting_s = watch.acting.at - since
            if kill.steps_s is None and watch.learning_from.at > past:
                kill.steps_s = watch.learning_from.at - since
            if kill.updates_s is None and watch.updates.value > updates_before and watch.updates.at > past:
                kill.updates_s = watch.updates.at - since
            there = self._up.find()
            if kill.back_s is None and set(there) >= set(KINDS) and all(process.pid != killed for process in there.values()):
                kill.back_s = time.monotonic() - since
            time.sleep(0.1)
        if not kill.went_on:
            print(f"{kill.kind}: not everything went on within {self._arguments.recover_within:.0f} s", file=sys.stderr, flush=True)
            self._require_training()

    def _require_training(self) -> None:
        """Stop where the training is over: what is killed after that says nothing."""
        runs = [run for run in self._flow_runs() if run["flow"] == "train"]
        if runs and all(run["state"] in _OVER for run in runs):
            raise RuntimeError(f"the training is over: {runs}")

    def _flow_runs(self) -> list[dict[str, Any]]:
        try:
            return self._up.flow_runs()
        except HilserlError as error:
            print(f"the flow runs cannot be listed: {error}", file=sys.stderr)
            return []

    def _count_lost(self, audit: JournalAudit) -> int:
        """Wait for what was journaled by now to arrive; what has not after a while is lost."""
        audit.update()
        due = audit.missing() - self._lost
        deadline = time.monotonic() + _DELIVERY_S
        while due and time.monotonic() < deadline:
            time.sleep(0.5)
            audit.update()
            due &= audit.missing()
        self._lost |= due
        return len(due)

    def _finish(self, folder: Path, audit: JournalAudit) -> None:
        """Stop everything, then look at what is on disk."""
        report = self.report
        report.flow_runs = self._flow_runs()
        report.exit_code = self._up.stop()
        report.left_over = [f"{process.pid} {' '.join(process.cmdline())[:200]}" for process in self._up.left_over()]
        audit.update()
        report.environment_steps = audit.steps
        missing = audit.missing()
        waiting = {(actor, seq) for actor, seq in missing if seq > max(audit.received.get(actor, {0: None}))}
        report.waiting, report.lost = len(waiting), len(missing) - len(waiting)
        report.different, report.twice = len(audit.different()), audit.twice
        report.evaluations = [(at, seen.successes / seen.episodes) for at, seen in sorted(audit.evaluations.items())]
        report.damaged_files = [*torn_files(folder), *(f"removed: {path}" for path in audit.removed)]
        if audit.damaged or audit.torn_bytes:
            report.damaged_files.append(f"journals: {audit.damaged} damaged records, {audit.torn_bytes} torn bytes")
        report.metric_points = metric_points(self._up.home / "mlflow" / "mlflow.db", folder / "history.jsonl")


def overrides(mlflow_url: str, hz: float) -> dict[str, Any]:
    """What makes `reach_state` last, keeps the journals, and has the metrics go through MLflow's server."""
    return {
        "robot": {"control_hz": hz},
        "policy": {"online_steps": 100_000_000, "hidden_dims": [64, 64], "batch_size": 64, "online_buffer_capacity": 1_000_000},
        "learner": {"save_freq": 200, "execution": "eager"},
        "actor": {"pace": "realtime", "evaluate_every_steps": 500, "evaluate_episodes": 2, "stop_at_success": None},
        "link": {"keep_journals": True},
        "tracking": {"uri": mlflow_url},
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--minutes", type=float, default=0.0, help="soak: kill random kinds until the time is over")
    parser.add_argument("--interval", type=float, nargs=2, default=(5.0, 25.0), metavar="S", help="between going on and the next kill")
    parser.add_argument("--recover-within", type=float, default=300.0, metavar="S")
    parser.add_argument("--hz", type=float, default=10.0, help="control rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep everything here; by default a temporary one")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "chaos.json")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        up = Up(arguments.folder or Path(temporary))
        chaos = Chaos(up, arguments)
        try:
            up.wait_ready()
            chaos.run()
        finally:
            if up.process.poll() is None:
                up.stop()
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(asdict(chaos.report), indent=1) + "\n")
    show(chaos.report)
    problems = chaos.report.problems()
    print("\n".join(["MISSED", *problems]) if problems else "passed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
