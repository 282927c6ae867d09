"""Our link beside LeRobot 0.6.1's actor-learner transport, in the same run: bytes, latency, the control thread's time, the weights' age.

    uv run python benchmarks/link.py                              # about 10 min
    uv run python benchmarks/link.py --seconds 12 --repeats 1 --variants none
    uv run python benchmarks/link.py --sensor-noise 2             # pictures with the noise of a real camera

An actor's process sends recorded steps (two 128x128 cameras, rendered; state of 18) at 10 Hz in episodes of 10 s, as both systems'
actors do; a learner's process takes them into the system's own replay buffer and publishes weights of 1.2 MB with the system's
default frequency; neither trains. LeRobot's part is its own code: `push_transitions_to_transport_queue`, `send_transitions`,
`start_learner` with `LearnerService`, `process_transitions`, `receive_policy`. Between the two stands a TCP proxy that counts bytes.
Times are of CLOCK_MONOTONIC, which both processes share. Every system in turn, repeated; figures are medians over repeats.
Our control thread has real-time priority where the system allows it, as the actor gives it; LeRobot's has none, as LeRobot does.

- taken in: from the call that sends a step to the step's place in the learner's buffer;
- can be sampled: until its transition is complete. We send a step's next observation once, as the next step; LeRobot sends it twice.
- age of the weights: at every control step, time since the learner published the weights that the actor holds.

Limits, for ours (exit code 1): sending takes at most 0.5 ms of the control thread (p99), weights are at most 1 s old (p99).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from _lerobot_link import lerobot_actor, lerobot_learner
from _link_common import CAMERAS, HZ, SIZE, at_control_rate, weights_now
from _proxy import CountingProxy
from _recorded_steps import Recorded, camera_overrides, record
from _runs import ROOT, commit

from hilserl.actor.priority import RealtimePriority
from hilserl.config.loader import load_config
from hilserl.config.models import ActorConfig, LinkConfig, TrainConfig
from hilserl.link.certificates import create_certificates
from hilserl.schema import policy_schema

TOKEN = "a-token-for-benchmarks-only"
LIMIT_SEND_MS, LIMIT_AGE_S = 0.5, 1.0
SKIP_S = 3.0  # connecting, first weights, allocators
Figures = dict[str, float]


# -------------------------------------------------------------------------------------------- ours


VARIANTS = {"none": {}, "deflate": {"compression": "deflate"}, "gzip": {"compression": "gzip"}, "tls": {"tls": True}}


def our_learner(pipe: Connection, folder: str, steps: int, variant: str) -> None:
    """Take steps into the learner's own buffer, and publish weights."""
    from hilserl.learner.experience import Experience
    from hilserl.link import LinkServer, Weights
    from hilserl.policy import PolicyArchitecture
    from hilserl.vision.encoder import Vision

    config = our_config(steps)
    experience = Experience(config, PolicyArchitecture.from_config(config), Vision({}), seed=0)
    taken: list[float] = []
    complete: list[float] = []
    version, next_push = 0, 0.0
    link = LinkConfig.model_validate(VARIANTS[variant])
    journal, schema = Path(folder) / "learner", policy_schema(config)
    with LinkServer(link, token=TOKEN, handshake=our_handshake(), schema=schema, journal_folder=journal) as server:
        pipe.send(server.start())
        while len(taken) < steps:
            if time.monotonic() >= next_push:
                version, next_push = version + 1, time.monotonic() + config.learner.policy_parameters_push_frequency
                server.publish_weights(Weights.create(version, weights_now()))
            for received in server.poll(0.02):
                experience.add(received.actor_id, received.record)
                now = time.monotonic()
                taken.append(now)
                if received.record.step > 0:
                    complete.append(now)  # the step before
                if received.record.final_observation is not None:
                    complete.append(now)
        pipe.send((taken, complete))
        pipe.recv()


def our_actor(pipe: Connection, folder: str, steps_file: str, steps: int, address: str, variant: str) -> None:
    """Send steps at the control rate, and take weights between them."""
    from hilserl.link import LinkClient

    recorded = Recorded(Path(steps_file))
    called, took, ages = [], [], []
    published_at = float("nan")
    link = LinkConfig.model_validate(VARIANTS[variant])
    names = {"token": TOKEN, "actor_id": "arm", "robot_id": "arm", "handshake": our_handshake()}
    options = {"journal_folder": Path(folder) / "actor", "compression": link.compression, "tls": link.tls}
    with LinkClient(address, **names, **options, schema=policy_schema(our_config(steps))) as client:
        client.connect()
        published_at = float(client.wait_for_weights(30.0).tensors["published_at"][0])

        def work(number: int) -> None:
            nonlocal published_at
            if (weights := client.latest_weights()) is not None:
                published_at = float(weights.tensors["published_at"][0])
            ages.append(time.monotonic() - published_at)
            step = recorded.step(number)
            begin = time.monotonic()
            client.send_step(step)
            took.append(time.monotonic() - begin)
            called.append(begin)

        with RealtimePriority(ActorConfig().realtime_priority):  # as `run_actor` does on the wall clock
            at_control_rate(steps, work)
        client.flush(30.0)
        pipe.send((called, took, ages))
        pipe.recv()


def our_config(steps: int) -> TrainConfig:
    return load_config("reach", camera_overrides(CAMERAS, SIZE) | {"policy.online_buffer_capacity": steps + steps // 10 + 100})


def our_handshake() -> Any:
    from hilserl.link import Handshake

    return Handshake(run_id="link", schema_hash="schema", architecture_hash="architecture")


SYSTEMS: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "ours": (our_learner, our_actor),
    "LeRobot": (lerobot_learner, lerobot_actor),
}


# ------------------------------------------------------------------------------------------ measuring


def measure(system: str, variant: str, steps_file: Path, steps: int) -> Figures:
    """Run one system once."""
    context = multiprocessing.get_context("spawn")
    learner, actor = SYSTEMS[system]
    learner_pipe, its_learner_pipe = context.Pipe()
    actor_pipe, its_actor_pipe = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        learning = context.Process(target=learner, args=(its_learner_pipe, folder, steps, variant), daemon=True)
        learning.start()
        acting = None
        try:
            address = answer(learner_pipe, learning, 300.0)
            with CountingProxy(address) as proxy:
                arguments = (its_actor_pipe, folder, str(steps_file), steps, proxy.address, variant)
                acting = context.Process(target=actor, args=arguments, daemon=True)
                acting.start()
                called, took, ages = answer(actor_pipe, acting, steps / HZ + 300.0)
                taken, complete = answer(learner_pipe, learning, 60.0)
                up = proxy.up
                for pipe in (actor_pipe, learner_pipe):
                    pipe.send("end")
                for process in (acting, learning):
                    process.join(20.0)
        finally:
            for process in (acting, learning):
                if process is not None and process.is_alive():
                    process.kill()
    skip = min(round(SKIP_S * HZ), steps // 2)
    in_ms = [1e3 * (there - here) for there, here in zip(taken, called, strict=True)][skip:]
    complete_ms = [1e3 * (there - here) for there, here in zip(complete, called, strict=False)][skip:]
    return {
        "bytes": up / steps,
        **spread("send_ms", [1e3 * value for value in took[skip:]]),
        **spread("taken_ms", in_ms),
        **spread("sampleable_ms", complete_ms),
        **spread("age_s", ages[skip:]),
    }


def answer(pipe: Connection, process: Any, timeout_s: float) -> Any:
    """Wait for a child's word."""
    deadline = time.monotonic() + timeout_s
    while not pipe.poll(0.2):
        if not process.is_alive():
            raise RuntimeError(f"{process.name} ended with code {process.exitcode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.name} did not answer within {timeout_s:.0f} s")
    return pipe.recv()


def spread(name: str, values: list[float]) -> Figures:
    p50, p99 = np.percentile(values, [50, 99])
    return {f"{name}_p50": float(p50), f"{name}_p99": float(p99), f"{name}_max": max(values)}


def add_sensor_noise(file: Path, deviation: float) -> None:
    """Add Gaussian noise to every pixel, as a real camera does; a lossless code cannot compress it."""
    random = np.random.default_rng(1)
    with np.load(file) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    for name, column in columns.items():
        if column.dtype == np.uint8:
            noisy = column + random.normal(0.0, deviation, column.shape)
            columns[name] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    np.savez(file, **columns)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=33.0, help="of sending, each time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="of ours")
    parser.add_argument("--sensor-noise", type=float, default=0.0, help="standard deviation of a pixel, of 255")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "link.jsonl", help="append a line per run here")
    arguments = parser.parse_args()
    steps = round(arguments.seconds * HZ)
    runs = [*(("ours", variant) for variant in arguments.variants), ("LeRobot", "none")]
    found: dict[tuple[str, str], list[Figures]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory() as folder:
        steps_file = Path(folder) / "steps.npz"
        record(our_config(steps), steps_file, min(steps, 200), episode_steps=round(10 * HZ))
        if arguments.sensor_noise:
            add_sensor_noise(steps_file, arguments.sensor_noise)
        os.environ["HILSERL_CERTIFICATES"] = f"{folder}/certificates"  # of the children, which the variant `tls` needs
        create_certificates(Path(folder) / "certificates", ["127.0.0.1"], ["robot-host"])
        print(
            f"{steps} steps at {HZ:g} Hz; an observation and action are {Recorded(steps_file).bytes_a_step:,} bytes of arrays", flush=True
        )
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        for repeat in range(arguments.repeats):
            for system, variant in runs:
                figures = measure(system, variant, steps_file, steps)
                found[system, variant].append(figures)
                line = {"system": system, "variant": variant, "noise": arguments.sensor_noise, "repeat": repeat, "commit": commit()}
                with arguments.json.open("a") as file:
                    file.write(json.dumps(line | figures) + "\n")
    medians = {run: {name: statistics.median(one[name] for one in all_) for name in all_[0]} for run, all_ in found.items()}
    return report(medians)


def report(medians: dict[tuple[str, str], Figures]) -> int:
    """Print the table and judge it."""
    print(f"{'':18}{'bytes per':>12}{'sending [ms]':>22}{'taken in [ms]':>18}{'can be sampled [ms]':>22}{'weights age [s]':>18}")
    print(f"{'':18}{'transition':>12}{'p50     p99     max':>22}{'p50      p99':>18}{'p50      p99':>22}{'p50     p99':>18}")
    good = True
    for (system, variant), f in medians.items():
        name = system if system == "LeRobot" else f"ours, {variant}"
        print(
            f"{name:18}{f['bytes']:12,.0f}{f['send_ms_p50']:8.3f}{f['send_ms_p99']:7.2f}{f['send_ms_max']:7.1f}"
            f"{f['taken_ms_p50']:10.1f}{f['taken_ms_p99']:8.1f}{f['sampleable_ms_p50']:14.1f}{f['sampleable_ms_p99']:8.1f}"
            f"{f['age_s_p50']:11.2f}{f['age_s_p99']:7.2f}"
        )
        if system == "ours":
            for text, value, limit in (
                ("sending p99 [ms]", f["send_ms_p99"], LIMIT_SEND_MS),
                ("weights' age p99 [s]", f["age_s_p99"], LIMIT_AGE_S),
            ):
                good &= value <= limit
                print(f"  {'passed' if value <= limit else 'MISSED'}: {text} {value:.2f}, limit {limit}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
