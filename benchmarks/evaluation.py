"""How long 100 evaluation episodes of `lift` take: with a policy that succeeds, with one that fails in all its time, and filmed.

    python benchmarks/evaluation.py POLICY          # a policy's or run's folder, or models:/hilserl-lift@champion

Prints a line a case: wall time, steps a second, success. Exits with 1 where 100 episodes of POLICY take more than 30 s.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hilserl.config import TrainConfig, load_config
from hilserl.data.preprocess import Preprocessor
from hilserl.evaluation import evaluate_policy
from hilserl.evaluation.source import find_policy
from hilserl.policy import Policy, PolicyArchitecture

LIMIT_S = 30.0


def untrained(config: TrainConfig, folder: Path) -> Path:
    """Save a policy that stands almost still: every episode lasts to its time-out."""
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    policy.load_tensors(policy.tensors(), 1)
    policy.save(folder, {"weights_version": 1})
    return folder


def main() -> int:
    """Measure every case once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy")
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    config = load_config("lift", {"evaluation.episodes": arguments.episodes})
    trained = find_policy(arguments.policy).folder
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cases = [
            ("trained, one process", trained, 1, None),
            ("trained", trained, None, None),
            ("trained, four filmed", trained, None, folder / "film.mp4"),
            ("untrained: every episode to its time-out", untrained(config, folder / "untrained"), None, None),
        ]
        seconds = {}
        for name, policy, workers, video in cases:
            settings = config.evaluation.model_copy(update={"workers": workers})
            result = evaluate_policy(config.model_copy(update={"evaluation": settings}), policy, video=video)
            steps = sum(episode.steps for episode in result.played)
            seconds[name] = result.seconds
            print(f"{name}: {result.seconds:.1f} s, {steps} steps, {steps / result.seconds:.0f} steps/s, {result.shown}", flush=True)
    return int(seconds["trained"] > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
