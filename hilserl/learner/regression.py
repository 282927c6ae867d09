"""Training went on past its best: told from noise by the intervals of the evaluations, and what is done about it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hilserl.errors import CheckpointError
from hilserl.evaluation.source import policy_tensors
from hilserl.intervals import wilson_interval
from hilserl.learner.best import BestPolicy
from hilserl.learner.checkpoint import load_checkpoint
from hilserl.learner.keeper import Keeper
from hilserl.learner.parts import LearnerParts
from hilserl.learner.statistics import EvaluationPoint

logger = logging.getLogger(__name__)

MOST_ROLL_BACKS = 3


@dataclass(frozen=True)
class Regression:
    """An evaluation that is worse than the best one beyond doubt.

    Attributes:
        best: The best evaluation before.
        now: The evaluation whose interval lies below its.
    """

    best: EvaluationPoint
    now: EvaluationPoint

    @property
    def gap(self) -> float:
        """How far apart the two intervals are, in success."""
        return _interval(self.best)[0] - _interval(self.now)[1]

    def __str__(self) -> str:
        """One sentence."""
        (low, high), (least, most) = _interval(self.best), _interval(self.now)
        return (
            f"success fell from {self.best.shown} at step {self.best.environment_steps:,} (95 % interval {low:.0%} to {high:.0%}) "
            f"to {self.now.shown} at step {self.now.environment_steps:,} ({least:.0%} to {most:.0%})"
        )


def find_regression(evaluations: Sequence[EvaluationPoint]) -> Regression | None:
    """Compare the last evaluation with the best one before it; None where their intervals overlap, or success is not known."""
    if len(evaluations) < 2 or evaluations[-1].by_return:
        return None
    found = Regression(max(evaluations[:-1], key=lambda point: point.score), evaluations[-1])
    return found if found.gap > 0 else None


def roll_back(parts: LearnerParts, keeper: Keeper, best: BestPolicy, regression: Regression) -> str | None:
    """Go on from the best checkpoint, acting as the best policy did; the experience and the counters stay.

    The state is saved at once: a learner that is killed later goes on from here, and does not repeat it.

    Returns:
        Why it could not be done; None: it was.
    """
    keeper.save()  # writes the best policy and its checkpoint, if they were still waiting
    folder = parts.checkpoints.best
    if folder is None or best.point is None:
        return "there is no best checkpoint"
    try:
        tensors = dict(load_checkpoint(folder).tensors)
        acting = policy_tensors(parts.checkpoints.path.parent / "policy" / "best")
    except CheckpointError as error:
        return str(error)
    generator = parts.agent.generator.get_state()
    tensors |= {name: tensor for name, tensor in acting.items() if name in tensors}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point()):
        return f"{folder} is not finite"
    parts.agent.load_state_dict(tensors)
    parts.agent.generator.set_state(generator)  # other batches than the ones that led astray
    parts.statistics.roll_backs.append(parts.governor.environment_steps)
    keeper.save()
    logger.error("Rolled back to the best policy, of step %d: %s", best.point.environment_steps, regression)
    return None


def reason_to_end(on_regression: str, evaluations: Sequence[EvaluationPoint], roll_backs: Sequence[int]) -> str | None:
    """Say why the training ends now; None: it does not. Knows nothing but what a checkpoint holds, so that a resumed run agrees.

    Args:
        on_regression: Of the configuration.
        evaluations: In order.
        roll_backs: Environment steps of those that were done.
    """
    found = find_regression(evaluations)
    if found is None or on_regression == "alarm":
        return None
    if on_regression == "stop":
        return f"training went on past its best: {found}"
    is_new = not roll_backs or roll_backs[-1] < found.now.environment_steps
    return (
        f"training went on past its best after {len(roll_backs)} roll-backs: {found}"
        if is_new and len(roll_backs) >= MOST_ROLL_BACKS
        else None
    )


def metrics(evaluations: Sequence[EvaluationPoint], roll_backs: Sequence[int]) -> dict[str, float]:
    """Return `eval/regression`, the gap between the intervals, and how often the learner was rolled back."""
    if len(evaluations) < 2 or evaluations[-1].by_return:
        return {}
    found = find_regression(evaluations)
    return {"eval/regression": found.gap if found else 0.0, "eval/roll_backs": float(len(roll_backs))}


def _interval(point: EvaluationPoint) -> tuple[float, float]:
    return wilson_interval(point.successes, point.episodes)
