"""A process that plays episodes for an evaluation: `python -m hilserl.evaluation.helper POLICY`, a start and an episode a line."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from hilserl.config.models import TrainConfig
from hilserl.environments.make import make_environment
from hilserl.evaluation.play import play_episode
from hilserl.evaluation.starts import Start
from hilserl.policy import Policy


def main(policy_folder: Path) -> None:
    """Take the configuration, then starts, from standard input; answer each with the episode that was played."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    config = TrainConfig.model_validate_json(sys.stdin.readline())
    policy, environment = Policy.load(policy_folder), make_environment(config)
    try:
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            seed, cube_m = json.loads(line)
            episode = play_episode(environment, policy, Start(seed, None if cube_m is None else (cube_m[0], cube_m[1])))
            print(json.dumps(asdict(episode)), file=answers, flush=True)
    finally:
        environment.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
