"""Whether a step is of this run's schema: asked before it is journaled, because a learner must be able to take in all it acknowledged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hilserl.errors import TransportError
from hilserl.link.messages import Record, Step
from hilserl.schema import FeatureSchema

_LARGEST = 1.0 + 1e-6  # rounding of a float32 action at the end of its range


class Conformity:
    """Compares steps with a schema; made once, because the control thread asks at every step."""

    def __init__(self, schema: FeatureSchema) -> None:
        self._action_shape = schema.action.shape
        self._features = {name: (feature.shape, np.dtype(feature.dtype)) for name, feature in schema.observation.items()}

    def check(self, record: Record) -> None:
        """Compare a step's names, shapes, dtypes and ranges with the schema.

        Raises:
            TransportError: They differ; names the first difference.
        """
        if not isinstance(record, Step):
            return
        if record.action.shape != self._action_shape:
            raise TransportError(f"{_where(record)}: the action has shape {record.action.shape}, the policy's is {self._action_shape}.")
        values = record.action.tolist()
        if not all(-_LARGEST <= value <= _LARGEST for value in values):  # false for NaN
            raise TransportError(f"{_where(record)}: the action {values} is outside [-1, 1], where the policy acts.")
        self._check_observation(record.observation, record, "")
        if record.final_observation is not None:
            self._check_observation(record.final_observation, record, ", final observation")

    def _check_observation(self, observation: Mapping[str, np.ndarray], step: Step, part: str) -> None:
        if observation.keys() != self._features.keys():
            raise TransportError(f"{_where(step)}{part}: it has {sorted(observation)}, the policy sees {sorted(self._features)}.")
        for name, (shape, dtype) in self._features.items():
            array = observation[name]
            if array.shape != shape or array.dtype != dtype:
                raise TransportError(f"{_where(step)}{part}: `{name}` is {array.dtype} {array.shape}, the policy sees {dtype} {shape}.")
            if dtype.kind == "f" and not np.isfinite(array).all():
                raise TransportError(f"{_where(step)}{part}: `{name}` holds a number that is not finite.")


def _where(step: Step) -> str:
    return f"Episode {step.episode} step {step.step}"
