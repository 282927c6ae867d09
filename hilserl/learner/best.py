"""Which weights were evaluated, which of them were the best, and what the end was against them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence

from torch import Tensor

from hilserl.learner.statistics import EvaluationPoint

logger = logging.getLogger(__name__)

_VERSIONS_KEPT = 64


class BestPolicy:
    """Keeps published weights until it is known how good they are, and those of the best evaluation until saved.

    Attributes:
        point: The best evaluation whose weights there are, on disk or here; None before the first.
        tensors: Its weights, while they are not on disk; else None.
    """

    def __init__(self) -> None:
        self.point: EvaluationPoint | None = None
        self.tensors: Mapping[str, Tensor] | None = None
        self._published: OrderedDict[int, Mapping[str, Tensor]] = OrderedDict()
        self._evaluated: dict[int, Mapping[str, Tensor]] = {}

    @property
    def newest_version(self) -> int:
        """Version published last; 0 before the first."""
        return next(reversed(self._published), 0)

    def publish(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep weights that actors may evaluate."""
        self._published[version] = tensors
        if len(self._published) > _VERSIONS_KEPT:
            self._published.popitem(last=False)

    def keep_evaluated(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep weights of which an evaluation is known to come."""
        self._evaluated[version] = tensors

    def hold(self, version: int) -> None:
        """Keep these weights beyond newer ones: the first episode of their evaluation is in."""
        if version in self._published and version not in self._evaluated:
            self._evaluated[version] = self._published[version]

    def take(self, point: EvaluationPoint, pending: Container[int] = ()) -> bool:
        """Judge a complete evaluation; True if it is the best. A tie goes to the later policy: it has seen more.

        Args:
            point: The evaluation.
            pending: Versions that other actors are evaluating.
        """
        tensors = self._evaluated.get(point.weights_version)
        self._evaluated = {v: held for v, held in self._evaluated.items() if v > point.weights_version or v in pending}
        if self.point is not None and point.score < self.point.score:
            return False
        if tensors is None:
            logger.warning(
                "The evaluation at step %d is the best (%s), but its weights (version %d) are gone, so they cannot be kept",
                point.environment_steps, point.shown, point.weights_version,
            )  # fmt: skip
            return False
        self.point, self.tensors = point, tensors
        return True


def describe_choice(best: EvaluationPoint | None, evaluations: Sequence[EvaluationPoint]) -> str:
    """Say which policy is used and what it is measured against at the end."""
    if best is None:
        return "the last policy is used: none was evaluated during training"
    counted = "" if best.by_return else f"{best.successes} of {best.episodes}: "
    used = f"the policy of step {best.environment_steps:,} is used ({counted}{best.shown})"
    if not evaluations or evaluations[-1].score >= best.score:
        return used
    last = evaluations[-1]
    return f"{used}; training went on past its best: {best.shown} -> {last.shown} at step {last.environment_steps:,}"
