"""Evaluate a policy: deterministic, seeded, with a confidence interval and a video."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilserl.config.models import TrainConfig
from hilserl.environments.make import make_environment
from hilserl.errors import CheckpointError
from hilserl.evaluation.film import Film, has_cameras
from hilserl.evaluation.helpers import Helpers, Queue, helper_count
from hilserl.evaluation.play import Attendant, BrokenOff, play_episode
from hilserl.evaluation.result import Episode, EvaluationResult, summarise
from hilserl.evaluation.starts import starts
from hilserl.policy import Policy
from hilserl.progress import Progress, publish
from hilserl.schema import policy_schema

logger = logging.getLogger(__name__)

STAGE = "evaluate-policy"


def evaluate_policy(
    config: TrainConfig,
    policy_folder: Path,
    *,
    video: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    environment: Any = None,
    attendant: Attendant | None = None,
) -> EvaluationResult:
    """Play `config.evaluation.episodes` episodes with the saved policy, and no help.

    Args:
        config: The run's configuration; its schema must be the policy's.
        policy_folder: A folder written by `Policy.save`.
        video: File for a video of the first `config.evaluation.video_episodes` episodes, side by side.
        should_stop: Asked after every episode; True ends early with what was played.
        environment: Already connected, and closed by the caller; None: made here.
        attendant: Clock, person and operator of an arm; None: episodes go as fast as they can, in several processes.

    Raises:
        ConfigError: The episodes' starts were used in training.
        CheckpointError: The policy is unreadable, or sees or does something else than the environment offers; or nothing was played.
    """
    torch.set_num_threads(1)
    to_play, settings = starts(config), config.evaluation
    policy = load_fitting(config, policy_folder)
    started = time.monotonic()
    drawing = video is not None and settings.video_episodes > 0 and environment is None and can_render(config)
    own = environment is None
    if own:
        environment = make_environment(config, render_mode="rgb_array" if drawing else None)
    fps = float(environment.metadata.get("render_fps") or 30)
    filming = video is not None and settings.video_episodes > 0 and (drawing or _shows_cameras(environment))
    count = min(settings.video_episodes, len(to_play)) if filming else 0
    film = Film(video, fps, count) if video is not None and count else None
    queue = Queue(to_play, own=count)
    helpers = helper_count(config, len(to_play)) if own and attendant is None else 0
    try:
        with Helpers(config, policy_folder, queue, helpers):
            while (taken := queue.first()) is not None:
                number, start = taken
                reel = film.reel() if film is not None and number < count else None
                queue.played[number] = play_episode(environment, policy, start, reel, attendant)
                _tell(config, list(queue.played.values()), len(to_play))
                if should_stop():
                    break
    except BrokenOff:
        logger.info("The evaluation was broken off after %d of %d episodes", len(queue.played), len(to_play))
    finally:
        if own:
            environment.close()
    played = [queue.played[number] for number in sorted(queue.played)]
    if not played:
        raise CheckpointError("the evaluation was broken off before its first episode was over: there is nothing to tell")
    return summarise(config, played, fps, time.monotonic() - started, film.write() if film else None)


def load_fitting(config: TrainConfig, policy_folder: Path) -> Policy:
    """Load a policy that sees and does what the configuration offers.

    Raises:
        CheckpointError: It is unreadable, or does not fit.
    """
    policy = Policy.load(policy_folder)
    if differences := policy.preprocessor.schema.differences(policy_schema(config)):
        raise CheckpointError(f"{policy_folder}: the policy does not fit this configuration: " + "; ".join(differences))
    return policy


def can_render(config: TrainConfig) -> bool:
    """Whether the environment draws pictures here; an environment's own drawing often needs packages that learning does not."""
    if config.env is None:
        return not config.robot.is_real
    try:
        environment = make_environment(config, render_mode="rgb_array")
        try:
            environment.reset(seed=0)
            picture: Any = environment.render()
        finally:
            environment.close()
    except Exception as error:  # of the environment's own code; the evaluation is worth having without a video
        logger.warning("There will be no video: `%s` cannot draw here (%s: %s)", config.env.id, type(error).__name__, error)
        return False
    return isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3


def _shows_cameras(environment: Any) -> bool:
    space = getattr(environment, "observation_space", None)
    return has_cameras(list(getattr(space, "spaces", {})))


def _tell(config: TrainConfig, played: list[Episode], total: int) -> None:
    name, scores = ("success", [e.success for e in played]) if config.judges_success else ("return", [e.return_ for e in played])
    publish(Progress(STAGE, done=len(played), total=total, unit="episodes", values={name: float(np.mean(scores))}))
