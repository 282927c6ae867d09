"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.intervals import mean_interval, wilson_interval

StartKey = tuple[int, float, float] | int


@dataclass(frozen=True)
class Episode:
    """How one deterministic episode went.

    Attributes:
        seed: Of its start.
        steps: Control steps.
        success: Whether it was called one, by `judged_by`.
        return_: Sum of rewards.
        smoothness: Mean change of the action from step to step, per dimension.
        cube_m: Where the object lay at the start, base frame x and y [m]; None where nobody knows.
        judged_by: Who called it a success or a failure: `simulator`, `classifier`, `human` or `environment`; empty: nobody said.
        true_success: What the simulator knows, where it does; else None.
        placed: The start was placed, and is not the seed's own.
    """

    seed: int
    steps: int
    success: bool
    return_: float
    smoothness: float = 0.0
    cube_m: tuple[float, float] | None = None
    judged_by: str = ""
    true_success: bool | None = None
    placed: bool = False

    @property
    def start(self) -> StartKey:
        """The same for two policies that began in the same place."""
        return (self.seed, round(self.cube_m[0], 4), round(self.cube_m[1], 4)) if self.placed and self.cube_m else self.seed

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        cube = values.get("cube_m")
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "cube_m": None if cube is None else (float(cube[0]), float(cube[1]))})


@dataclass(frozen=True)
class EvaluationResult:
    """Outcome of N deterministic episodes. An environment that knows no success has only returns.

    Attributes:
        episodes: Episodes played.
        successes: Episodes called a success; None where nobody knows success.
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
        true_successes: Successes that the simulator knows of, where a classifier or a person judged in a simulation; else None.
        wrongly_called: Episodes called a success that the simulator knows as a failure; None where it says nothing.
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
    true_successes: int | None = None
    wrongly_called: int | None = None

    @property
    def shown(self) -> str:
        """The outcome in one line, for a person."""
        if self.success_rate is None:
            return f"mean return {self.mean_return:.4g} (95 % interval {self.return_low:.4g} to {self.return_high:.4g})"
        said = (
            f"success {self.success_rate:.1%} (95 % Wilson interval {self.interval_low:.1%} to {self.interval_high:.1%}), "
            f"judged by the {self.judged_by}"
        )
        if self.true_successes is None:
            return said
        return (
            f"{said}; the simulator knows of {self.true_successes / self.episodes:.1%}, "
            f"and {self.wrongly_called} episodes were called a success that were none"
        )

    @property
    def outcomes(self) -> dict[StartKey, bool]:
        """Success by start, for a paired test; empty where success is not known."""
        return {} if self.successes is None else {episode.start: episode.success for episode in self.played}

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self) | {"video": str(self.video) if self.video else None, "failed_seeds": list(self.failed_seeds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, also what an earlier version did."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known["played"] = tuple(Episode.from_dict(episode) for episode in values.get("played", ()))
        known["failed_seeds"] = tuple(values.get("failed_seeds", ()))
        known["video"] = Path(values["video"]) if values.get("video") else None
        return cls(**known)


def summarise(config: TrainConfig, played: Sequence[Episode], fps: float, seconds: float, video: Path | None) -> EvaluationResult:
    """Make the result of episodes.

    Args:
        config: Of the evaluation.
        played: At least one.
        fps: Control steps a second.
        seconds: Wall time [s].
        video: File, if one was made.
    """
    judged, count, seed = config.judges_success, len(played), config.evaluation.seed
    successes = sum(episode.success for episode in played)
    low, high = wilson_interval(successes, count) if judged else (None, None)
    return_low, return_high = mean_interval([episode.return_ for episode in played])
    mean_steps = float(np.mean([episode.steps for episode in played]))
    judge = _judge(config, played) if judged else "return"
    known = judged and judge != "simulator" and all(episode.true_success is not None for episode in played)
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
        judged_by=judge,
        seed=seed,
        failed_seeds=tuple(episode.seed for episode in played if judged and not episode.success),
        seconds=seconds,
        video=video,
        smoothness=float(np.mean([episode.smoothness for episode in played])),
        played=tuple(played),
        true_successes=sum(bool(episode.true_success) for episode in played) if known else None,
        wrongly_called=sum(episode.success and not episode.true_success for episode in played) if known else None,
    )


class Point(Protocol):
    """An evaluation during training."""

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""

    @property
    def episodes(self) -> int:
        """Episodes played."""

    @property
    def mean_return(self) -> float:
        """Mean sum of an episode's rewards."""


def result_during_training(config: TrainConfig, best: Point | None) -> EvaluationResult:
    """Say what is known of a policy that was not evaluated after its training; that its evaluation chose it flatters it.

    Args:
        config: The run's configuration.
        best: The evaluation that chose it; None: none.
    """
    known = best if config.judges_success else None
    low, high = wilson_interval(known.successes, known.episodes) if known else (None, None)
    value = best.mean_return if best else 0.0
    return EvaluationResult(
        episodes=best.episodes if best else 0,
        successes=known.successes if known else None,
        success_rate=known.successes / known.episodes if known else None,
        interval_low=low,
        interval_high=high,
        mean_return=value,
        return_low=value,
        return_high=value,
        mean_steps=0.0,
        mean_seconds=0.0,
        judged_by="evaluation during training that chose it; it was not evaluated afterwards" if best else "return",
        seed=config.evaluation.seed,
        failed_seeds=(),
        seconds=0.0,
    )


def _judge(config: TrainConfig, played: Sequence[Episode]) -> str:
    """Name whoever said what a success is, as the environment told it."""
    shown = {"classifier": "success classifier", "human": "person"}
    names = sorted({shown.get(episode.judged_by, episode.judged_by) for episode in played if episode.judged_by})
    return " and the ".join(names) or ("environment" if config.env is not None else "simulator")
