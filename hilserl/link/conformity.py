"""Whether a step is of this run's schema: asked before it is journaled, because a learner must be able to take in all it acknowledged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hilserl.errors import TransportError
from hilserl.link.messages import Record, Step
from hilserl.schema import FeatureSchema

_ROUNDING = 1e-6  # of a float32 action at the end of its range


def check_conformity(record: Record, schema: FeatureSchema) -> None:
    """Compare a step's names, shapes, dtypes and ranges with the schema.

    Raises:
        TransportError: They differ; names the first difference.
    """
    if not isinstance(record, Step):
        return
    where = f"Episode {record.episode} step {record.step}"
    if record.action.shape != schema.action.shape:
        raise TransportError(f"{where}: the action has shape {record.action.shape}, the policy's is {schema.action.shape}.")
    if not (np.abs(record.action) <= 1.0 + _ROUNDING).all():
        raise TransportError(f"{where}: the action {record.action.tolist()} is outside [-1, 1], where the policy acts.")
    _check_observation(record.observation, schema, where)
    if record.final_observation is not None:
        _check_observation(record.final_observation, schema, f"{where}, final observation")


def _check_observation(observation: Mapping[str, np.ndarray], schema: FeatureSchema, where: str) -> None:
    if observation.keys() != schema.observation.keys():
        raise TransportError(f"{where}: it has {sorted(observation)}, the policy sees {sorted(schema.observation)}.")
    for name, feature in schema.observation.items():
        array = observation[name]
        if array.shape != feature.shape or array.dtype != feature.dtype:
            raise TransportError(f"{where}: `{name}` is {array.dtype} {array.shape}, the policy sees {feature.dtype} {feature.shape}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TransportError(f"{where}: `{name}` holds a number that is not finite.")
