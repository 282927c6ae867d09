"""Environment steps per second: random actions, inverse kinematics and physics, without and with one 84x84 picture.

    uv run python benchmarks/environment_steps.py

The figure in the README is this script's, on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np

from hilserl.config.loader import load_config
from hilserl.sim.env import So101Env
from hilserl.sim.gl import select_gl_backend


def steps_per_second(env: So101Env, steps: int, repeats: int) -> list[float]:
    """Measure `repeats` times how fast `steps` steps run, resets included."""
    rng = np.random.default_rng(0)
    shape = env.action_space.shape
    env.reset(seed=0)
    rates = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, shape).astype(np.float32))
            if terminated or truncated:
                env.reset()
        if repeat > 0:  # the first warms up
            rates.append(steps / (time.perf_counter() - start))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="steps of one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPUs, load average {load:.1f}, pictures by {select_gl_backend()}")
    print(f"median (min-max) of {arguments.repeats} repeats of {arguments.steps} steps")
    for name, label in (("lift_state", "no picture"), ("lift", "one 84x84 picture")):
        env = So101Env(load_config(name))
        rates = steps_per_second(env, arguments.steps, arguments.repeats)
        env.close()
        print(f"{label:>18}: {statistics.median(rates):6.0f} steps/s ({min(rates):.0f}-{max(rates):.0f})")


if __name__ == "__main__":
    main()
