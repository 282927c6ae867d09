"""Evaluate a policy: deterministic, seeded, with a confidence interval and a video."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from hilserl.config.models import TrainConfig
from hilserl.environments.make import make_environment
from hilserl.errors import CheckpointError, ConfigError
from hilserl.policy import Policy
from hilserl.progress import Progress, publish
from hilserl.schema import IMAGE_PREFIX, policy_schema

logger = logging.getLogger(__name__)

STAGE = "evaluate-policy"
IN_TRAINING_SEED = 500_000  # first start of the evaluations during training; the final evaluation must use others
_TRAINING_SEEDS = range(1 << 31, 1 << 32)  # see `hilserl.actor.loop`


def wilson_interval(successes: int, trials: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a success rate (Wilson 1927); 95 % with the default z.

    Args:
        successes: Number of successes.
        trials: Number of trials, at least 1.
        z: Quantile of the standard normal distribution.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    rate = successes / trials
    denominator = 1 + z * z / trials
    center = (rate + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / denominator
    return max(0.0, center - half), min(1.0, center + half)


def mean_interval(values: Sequence[float], *, repeats: int = 10_000) -> tuple[float, float]:
    """Confidence interval (95 %) of a mean by the percentile bootstrap (Efron 1979); repeatable.

    Args:
        values: At least one.
        repeats: Resamples.
    """
    sample = np.asarray(values, np.float64)
    rows = np.random.default_rng(0).integers(0, len(sample), (repeats, len(sample)))
    low, high = np.percentile(sample[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class EvaluationResult:
    """Outcome of N deterministic episodes. An environment that knows no success has only returns.

    Attributes:
        episodes: Episodes played.
        successes: Episodes in which the environment saw the task done; None where it knows no success.
        success_rate: Their share.
        interval_low: Lower bound of the 95 % Wilson interval.
        interval_high: Upper bound.
        mean_return: Mean sum of an episode's rewards.
        return_low: Lower bound of its 95 % bootstrap interval.
        return_high: Upper bound.
        mean_steps: Mean episode length [control steps].
        mean_seconds: Mean episode length at the control rate [s].
        judged_by: Who said what success is; `return` where nobody did.
        seed: Seed of the first episode; episode i uses `seed + i`.
        failed_seeds: Seeds of the episodes that failed, to watch them again; empty without success.
        seconds: Wall time [s].
        video: Video file, if one was made.
        smoothness: Mean change of the action from step to step, per dimension: 0 moves evenly, 2 jumps from end to end.
        played: Every episode, in order.
    """

    episodes: int
    successes: int | None
    success_rate: float | None
    interval_low: float | None
    interval_high: float | None
    mean_return: float
    return_low: float
    return_high: float
    mean_steps: float
    mean_seconds: float
    judged_by: str
    seed: int
    failed_seeds: tuple[int, ...]
    seconds: float
    video: Path | None = None
    smoothness: float = 0.0
    played: tuple[Episode, ...] = ()

    @property
    def shown(self) -> str:
        """The outcome in one line, for a person."""
        if self.success_rate is None:
            return f"mean return {self.mean_return:.4g} (95 % interval {self.return_low:.4g} to {self.return_high:.4g})"
        return (
            f"success {self.success_rate:.1%} (95 % Wilson interval {self.interval_low:.1%} to {self.interval_high:.1%}), "
            f"judged by the {self.judged_by}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self) | {"video": str(self.video) if self.video else None, "failed_seeds": list(self.failed_seeds)}


def evaluate_policy(
    config: TrainConfig,
    policy_folder: Path,
    *,
    video: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> EvaluationResult:
    """Play `config.evaluation.episodes` episodes with the saved policy.

    Args:
        config: The run's configuration; its schema must be the policy's.
        policy_folder: A folder written by `Policy.save`.
        video: File for a video of the first `config.evaluation.video_episodes` episodes.
        should_stop: Asked after every episode; True ends early with what was played.

    Raises:
        ConfigError: The episodes' starts were used in training.
        CheckpointError: The policy is unreadable, or sees or does something else than the environment offers.
    """
    torch.set_num_threads(1)
    _require_new_starts(config)
    policy = Policy.load(policy_folder)
    if differences := policy.preprocessor.schema.differences(policy_schema(config)):
        raise CheckpointError(f"{policy_folder}: the policy does not fit this configuration: " + "; ".join(differences))
    settings = config.evaluation
    started = time.monotonic()
    played: list[Episode] = []
    filming = video is not None and settings.video_episodes > 0 and can_render(config)
    environment = make_environment(config, render_mode="rgb_array" if filming else None)
    fps = float(environment.metadata.get("render_fps") or 30)
    film = _Film(video, fps) if video is not None and filming else None
    try:
        for index in range(settings.episodes):
            filmed = film if index < settings.video_episodes else None
            played.append(play_episode(environment, policy, settings.seed + index, filmed))
            name, scores = ("success", [e.success for e in played]) if config.judges_success else ("return", [e.return_ for e in played])
            values = {name: float(np.mean(scores))}
            publish(Progress(STAGE, done=len(played), total=settings.episodes, unit="episodes", values=values))
            if should_stop():
                break
    finally:
        environment.close()
        if film:
            film.close()
    return _summarise(config, played, fps, time.monotonic() - started, video if film else None)


def _summarise(config: TrainConfig, played: Sequence[Episode], fps: float, seconds: float, video: Path | None) -> EvaluationResult:
    judged, count, seed = config.judges_success, len(played), config.evaluation.seed
    successes = sum(episode.success for episode in played)
    low, high = wilson_interval(successes, count) if judged else (None, None)
    return_low, return_high = mean_interval([episode.return_ for episode in played])
    mean_steps = float(np.mean([episode.steps for episode in played]))
    judge = "environment" if config.env is not None else ("success classifier" if config.robot.is_real else "simulator")
    return EvaluationResult(
        episodes=count,
        successes=successes if judged else None,
        success_rate=successes / count if judged else None,
        interval_low=low,
        interval_high=high,
        mean_return=float(np.mean([episode.return_ for episode in played])),
        return_low=return_low,
        return_high=return_high,
        mean_steps=mean_steps,
        mean_seconds=mean_steps / fps,
        judged_by=judge if judged else "return",
        seed=seed,
        failed_seeds=tuple(seed + index for index, episode in enumerate(played) if judged and not episode.success),
        seconds=seconds,
        video=video,
        smoothness=float(np.mean([episode.smoothness for episode in played])),
        played=tuple(played),
    )


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


def _require_new_starts(config: TrainConfig) -> None:
    """Refuse starts that chose the policy or taught it: success on them says nothing about others."""
    settings, record = config.evaluation, config.dataset.record
    starts = range(settings.seed, settings.seed + settings.episodes)
    used = {
        "the evaluations during training": range(IN_TRAINING_SEED, IN_TRAINING_SEED + config.actor.evaluate_episodes),
        "training": _TRAINING_SEEDS,
    }
    if record is not None:
        used["the demonstrations"] = range(record.seed, record.seed + 2 * record.episodes + 5)  # as many attempts as are allowed
    for what, seeds in used.items():
        if starts.start < seeds.stop and seeds.start < starts.stop:
            raise ConfigError(
                f"`evaluation.seed` {settings.seed} with {settings.episodes} episodes uses starts of {what} "
                f"({seeds.start} to {seeds.stop - 1}): the success rate would be too good. The default is 1000000."
            )


@dataclass(frozen=True)
class Episode:
    """How one deterministic episode went.

    Attributes:
        seed: Of its start.
        steps: Control steps.
        success: Whether the environment called it one.
        return_: Sum of rewards.
        smoothness: Mean change of the action from step to step, per dimension.
        cube_m: Where the cube lay at the start, base frame x and y [m]; None where nobody knows.
    """

    seed: int
    steps: int
    success: bool
    return_: float
    smoothness: float = 0.0
    cube_m: tuple[float, float] | None = None


def play_episode(environment: Any, policy: Policy, seed: int, film: _Film | None = None) -> Episode:
    """Play one episode with the mode of the policy's distribution.

    Args:
        environment: Gives native observations, as the policy takes them.
        policy: With weights.
        seed: Of the episode's start.
        film: Takes a picture of every step.
    """
    observation, info = environment.reset(seed=seed)
    cube = info.get("cube_pos_m")
    steps, total, ended, success = 0, 0.0, False, False
    actions: list[np.ndarray] = []
    while not ended:
        if film:
            film.add(environment.render(), observation)
        actions.append(policy.act(observation))
        observation, reward, terminated, truncated, info = environment.step(actions[-1])
        steps += 1
        total += float(reward)
        ended, success = terminated or truncated, bool(info["is_success"])
    if film:
        for _ in range(5):  # hold the last picture for half a second
            film.add(environment.render(), observation)
    change = float(np.abs(np.diff(actions, axis=0)).mean()) if steps > 1 else 0.0
    return Episode(seed, steps, success, total, change, None if cube is None else (float(cube[0]), float(cube[1])))


class _Film:
    """Front view with the policy's cameras set into its corner, as H.264 (or MPEG-4 where that is missing)."""

    def __init__(self, file: Path, fps: float) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(file), "w")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"
        self._sized = False

    def add(self, front: np.ndarray, observation: dict[str, np.ndarray]) -> None:
        picture = compose_picture(front, observation)
        if not self._sized:
            self._stream.height, self._stream.width = picture.shape[:2]
            self._sized = True
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")):
            self._container.mux(packet)

    def close(self) -> None:
        if self._sized:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()


def compose_picture(front: np.ndarray, observation: dict[str, np.ndarray]) -> np.ndarray:
    """Set each camera's frame (H, W, 3) into the lower left of the front view; even height and width."""
    picture = front[: front.shape[0] // 2 * 2, : front.shape[1] // 2 * 2].copy()
    left = 4
    for key, frame in observation.items():
        if key.startswith(IMAGE_PREFIX):
            height, width = frame.shape[:2]
            if left + width + 4 > picture.shape[1] or height + 8 > picture.shape[0]:
                continue
            top = picture.shape[0] - height - 4
            picture[top - 2 : top + height + 2, left - 2 : left + width + 2] = 255
            picture[top : top + height, left : left + width] = frame
            left += width + 8
    return picture
