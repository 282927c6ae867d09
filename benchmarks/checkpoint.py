"""What a checkpoint costs the update loop, and how long a long run takes to resume.

    uv run python benchmarks/checkpoint.py

It makes a run of 50,000 transitions with one 84x84 camera and an encoder trained end to end (uint8 images on
disk: the largest form that the learner stores; images of noise), in a folder that it removes. Each figure is
the median of fresh processes. "In the loop" is what the loop waits for a save; the longest turn beside it
also counts what the saver's thread takes away from the update.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _fresh_process import run_fresh

from hilserl.config.loader import load_config
from hilserl.config.models import TrainConfig
from hilserl.learner.loop import Learner
from hilserl.learner.run import build_learner
from hilserl.link.ingest import LinkLoad, ReceivedRecord
from hilserl.link.messages import LearnerStatus, Step, Weights
from hilserl.runs import RunFolder
from hilserl.schema import IMAGE_PREFIX, STATE_KEY
from hilserl.training import NoMetrics, prepare

_EPISODE = 100


class SilentEnd:
    """A learner's end at which nothing arrives."""

    def poll(self, timeout_s: float) -> list[ReceivedRecord]:
        return []

    def publish_weights(self, weights: Weights) -> None:
        pass

    def set_status(self, status: LearnerStatus) -> None:
        pass

    def last_heard_s(self) -> dict[str, float]:
        return {"a": 0.0}

    def live_actors(self) -> list[str]:
        return ["a"]

    def load(self) -> LinkLoad:
        return LinkLoad()

    def sync_journal(self) -> None:
        pass

    def trim_journal(self, through: int) -> None:
        pass

    def replay_journal(self, after: int = 0) -> Iterator[ReceivedRecord]:
        return iter(())


def settings() -> TrainConfig:
    return load_config(
        "reach",
        {
            "encoder.type": "cnn",
            "encoder.freeze": False,
            "dataset.record.episodes": 3,
            "policy.batch_size": 256,
            "policy.online_steps": 1_000_000,
            "learner.save_freq": 1_000_000,
            "tracking.enable": False,
        },
    )


def build(config: TrainConfig, run: RunFolder) -> Learner:
    torch.set_num_threads(config.learner.torch_threads)
    buffer, _ = prepare(config)
    return build_learner(config, run, SilentEnd(), offline_buffer=buffer, encoders=None, metrics=NoMetrics(), supervise=lambda view: None)


def fill(learner: Learner, transitions: int) -> None:
    generator = np.random.default_rng(0)
    experience, camera = learner.parts.experience, next(iter(learner.config.observation.images))
    state = experience.sample(2).state[0].numpy()
    images = generator.integers(0, 256, (64, *learner.config.observation.images[camera].resize, 3), np.uint8)
    for number in range(transitions):
        index = number % _EPISODE
        observation = {STATE_KEY: state, IMAGE_PREFIX + camera: images[number % 64]}
        final = observation if index == _EPISODE - 1 else None
        action = generator.uniform(-1, 1, len(learner.config.action_names)).astype(np.float32)
        truncated = final is not None
        experience.add("a", Step(number // _EPISODE, index, observation, action, 0.0, False, truncated, number % 10 == 0, final))
        learner.parts.governor.environment_steps += 1
    learner.intake.taken_in += transitions


def make(transitions: int) -> dict[str, Any]:
    """Make the run, and time saves while it trains."""
    config = settings()
    run, _ = RunFolder.open(config)
    learner = build(config, run)
    learner.announce()
    fill(learner, transitions)
    for _ in range(3):
        learner.turn()
    alone = sorted(_timed(learner.turn) for _ in range(6))
    learner.keeper.save()  # the rows so far: later saves have those of `save_freq` steps
    in_loop, beside = [], []
    for _ in range(3):
        fill(learner, 500)
        in_loop.append(_timed(learner.keeper._start))
        turns = [_timed(learner.turn)]
        while not learner.parts.saver.is_free:
            turns.append(_timed(learner.turn))
        beside.append(max(turns))
    learner.keeper.save()
    learner.close()
    size = sum(file.stat().st_size for file in run.checkpoints.rglob("*.safetensors"))
    rows = sum(file.stat().st_size for file in run.experience.iterdir())
    return {
        "in_loop_ms": statistics.median(in_loop),
        "turn_ms": statistics.median(alone),
        "longest_turn_alone_ms": alone[-1],
        "longest_turn_beside_ms": statistics.median(beside),
        "checkpoint_mb": size / 1e6 / len(list(run.checkpoints.glob("0*"))),
        "rows_mb": rows / 1e6,
    }


def resume() -> dict[str, Any]:
    """Resume the run; the time is that of building the learner, the demonstrations included, the imports not."""
    config = settings()
    run, is_continued = RunFolder.open(config)
    assert is_continued
    buffer, _ = prepare(config)
    torch.set_num_threads(config.learner.torch_threads)
    started = time.perf_counter()
    learner = build_learner(
        config, run, SilentEnd(), offline_buffer=buffer, encoders=None, metrics=NoMetrics(), supervise=lambda view: None
    )
    seconds = time.perf_counter() - started
    steps = learner.parts.governor.environment_steps
    learner.close()
    return {"resume_s": seconds, "steps": steps}


def _timed(function: Any) -> float:
    started = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}, {arguments.transitions:,} transitions, batch 256")
    with tempfile.TemporaryDirectory() as home:
        environment = {"HILSERL_HOME": home}
        made = run_fresh(Path(__file__), "make", {"transitions": arguments.transitions}, environment).result
        resumed = [run_fresh(Path(__file__), "resume", {}, environment) for _ in range(arguments.repeats)]
    print(f"checkpoint {made['checkpoint_mb']:.1f} MB, rows {made['rows_mb']:.0f} MB")
    print(f"a save in the loop: {made['in_loop_ms']:.1f} ms (median of 3)")
    print(
        f"a turn with its update: {made['turn_ms']:.0f} ms, longest {made['longest_turn_alone_ms']:.0f} ms; "
        f"longest beside a save: {made['longest_turn_beside_ms']:.0f} ms (median of 3)"
    )
    seconds = [measured.result["resume_s"] for measured in resumed]
    walls = [measured.wall_s for measured in resumed]
    print(
        f"resume: {statistics.median(seconds):.1f} s ({min(seconds):.1f}-{max(seconds):.1f}); "
        f"the whole process, with imports: {statistics.median(walls):.1f} s, "
        f"of it processor time {statistics.median([measured.cpu_s for measured in resumed]):.1f} s"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        _, _, name, given, answer = sys.argv
        Path(answer).write_text(json.dumps({"make": make, "resume": resume}[name](**json.loads(given))))
    else:
        main()
