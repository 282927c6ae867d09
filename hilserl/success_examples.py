"""Examples for a success classifier from the simulation: successes, near misses and failures, each in another light.

What a person would record by hand and label. Every frame in which the cube is up is marked in `next.reward`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.environments.judged import seeing
from hilserl.errors import SimulationError
from hilserl.progress import Progress, publish
from hilserl.sim.appearance import Variation
from hilserl.sim.attempts import Attempt, Kind, sample_kind

logger = logging.getLogger(__name__)

STAGE = "record-examples"
_NEVER = 10**9
_EPISODE_S = 4.0  # long enough for a grasp; what is held for minutes teaches nothing new


@dataclass(frozen=True)
class ExampleEpisode:
    """One attempt.

    Attributes:
        kind: What the actor had in mind.
        success: Frames in which the task is done, bool, shape (T,).
    """

    kind: Kind
    success: np.ndarray


def play_examples(
    config: TrainConfig,
    episodes: int,
    seed: int,
    variation: Variation,
    on_frame: Callable[[dict[str, np.ndarray], np.ndarray, bool], None],
    *,
    kinds: Callable[[np.random.Generator], Kind] = sample_kind,
) -> Iterator[ExampleEpisode]:
    """Play attempts; an episode does not end with success, so that what comes after it is seen too.

    Args:
        config: The run's configuration; `classifier.images` are the cameras.
        episodes: How many.
        seed: Equal seeds give equal episodes on one machine.
        variation: Of light, table and colours.
        on_frame: Gets each observation, the action that followed, and whether the task is done in it.
        kinds: Draws the kind of an episode.

    Raises:
        SimulationError: The task is not `lift`, or not simulated.
    """
    from hilserl.sim.env import So101Env
    from hilserl.sim.privileged import succeeds

    if not config.robot.is_simulated or config.env is not None:
        raise SimulationError("examples are recorded in simulation (`robot.type: so101_sim`). With a real arm use `hilserl record`.")
    task = config.task.model_copy(
        update={"appearance": variation, "success_hold_steps": _NEVER, "reward": "sparse", "control_time_s": _EPISODE_S}
    )
    environment: Any = So101Env(seeing(config, tuple(config.classifier.images)).model_copy(update={"task": task}))
    try:
        for number in range(episodes):
            rng = np.random.default_rng([seed, number])
            kind = kinds(rng)
            attempt, ended, success = Attempt(config, kind, rng), False, []
            observation, _ = environment.reset(seed=int(rng.integers(2**31)))
            while not ended:
                done = succeeds(task, environment.privileged_state)
                action = attempt.action(environment.privileged_state)
                success.append(done)
                before = observation
                observation, _, terminated, truncated, info = environment.step(action)
                on_frame(before, info["executed_action"], done)
                ended = terminated or truncated
            yield ExampleEpisode(kind, np.array(success, bool))
    finally:
        environment.close()


def record_examples(config: TrainConfig, folder: Path, episodes: int, *, seed: int, variation: Variation) -> list[ExampleEpisode]:
    """Record attempts as a LeRobotDataset whose successful frames are marked. Publishes `Progress("record-examples")`.

    Raises:
        DatasetError: `folder` exists.
        SimulationError: The task is not `lift`, or not simulated.
    """
    from hilserl.data.writer import EpisodeWriter, policy_features

    features = policy_features(seeing(config, tuple(config.classifier.images)))
    found: list[ExampleEpisode] = []
    with EpisodeWriter(folder, f"{config.dataset.repo_id}-examples", features, config.robot.control_hz) as writer:

        def keep(observation: dict[str, np.ndarray], action: np.ndarray, done: bool) -> None:
            writer.add_frame(observation, action, float(done), task=config.task.sentence)

        for episode in play_examples(config, episodes, seed, variation, keep):
            writer.save_episode()
            found.append(episode)
            successes = sum(bool(each.success.any()) for each in found)
            publish(Progress(STAGE, done=len(found), total=episodes, unit="episodes", values={"success": successes / len(found)}))
    logger.info("Recorded %d attempts at %s in %s", episodes, config.task.type, folder)
    return found
