"""What inverse kinematics takes in a control step, and how much of a commanded displacement it delivers.

    uv run python benchmarks/kinematics.py

Random displacements of up to 20 mm from random tool positions in the workspace, as the action codec asks for them.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from hilserl.config.models import RobotConfig
from hilserl.robot.kinematics import HOME_RAD, Kinematics

_TURN_RAD = 0.1  # of one control step, on a servo bus
_REACHED_M = 1e-4


def measure(steps: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the time of each solution [s], what the reachable ones delivered of their command, and how many were out of reach."""
    kinematics, rng, robot = Kinematics(), np.random.default_rng(0), RobotConfig()
    seconds, ratios, missed = np.empty(steps), [], 0
    for index in range(steps):
        start = kinematics.inverse(HOME_RAD, rng.uniform(robot.workspace_min_m, robot.workspace_max_m))
        tool, _ = kinematics.forward(start)
        command = rng.uniform(-0.02, 0.02, 3)
        began = time.perf_counter()
        found, residual_m = kinematics.inverse_with_residual(start, tool + command, _TURN_RAD)
        seconds[index] = time.perf_counter() - began
        if residual_m < _REACHED_M:
            ratios.append(float((kinematics.forward(found)[0] - tool) @ command / (command @ command)))
        else:
            missed += 1
    return seconds, np.array(ratios), missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000)
    arguments = parser.parse_args()
    measure(200)  # warms up
    seconds, ratios, missed = measure(arguments.steps)
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}, {arguments.steps} steps")
    low, middle, high = np.quantile(seconds, [0.05, 0.5, 0.95]) * 1e6
    print(f"time of one solution: median {middle:.0f} us (5 % {low:.0f}, 95 % {high:.0f})")
    print(f"delivered / commanded: least {ratios.min():.3f}, median {np.median(ratios):.3f}, greatest {ratios.max():.3f}")
    print(f"out of reach, and told so: {missed} of {arguments.steps}")


if __name__ == "__main__":
    main()
