"""Scale `observation.state` to about [-1, 1], and refuse data in another unit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from hilserl.errors import ConfigError, DatasetError, TrainingError
from hilserl.schema import StateComponent

# Demonstrations cover little of what exploration visits: without a floor, a joint that moved 0.01 rad in
# them would meet the policy as 100 a moment later. With a quarter of the declared limit as the smallest
# half range, anything inside the limits stays below 2 / 0.25 = 8 in absolute value.
MIN_HALF_RANGE = 0.25
# So a value beyond 10 is outside what the component can be: another unit, or a broken sensor.
MAX_NORMALISED = 10.0
# Data beyond this multiple of the declared limit are in another unit.
MAX_OVER_LIMIT = 1.5
_UNIT_SUSPICION = {"rad": "degrees", "rad/s": "degrees per second", "m": "centimetres or millimetres"}


@dataclass(frozen=True, eq=False)
class StateNormalizer:
    """Centre and half range of every scalar of the state.

    Attributes:
        names: Scalars, in the state's order.
        center: float32, shape (S,), in the state's units.
        half_range: float32, shape (S,), positive, in the state's units.
    """

    names: tuple[str, ...]
    center: np.ndarray
    half_range: np.ndarray

    @classmethod
    def fit(cls, state: np.ndarray, components: Sequence[StateComponent], allow_constant: Iterable[str] = ()) -> Self:
        """Compute the scaling from demonstrations.

        Args:
            state: Shape (N, S), in physical units.
            components: Named parts of the state, in order, S scalars in all.
            allow_constant: Scalars that may be constant.

        Raises:
            DatasetError: A scalar does not move, is not finite, or is in another unit; names all of them.
            ConfigError: `allow_constant` names a scalar that does not exist.
        """
        problems = state_problems(state, components, tuple(allow_constant))
        if problems:
            raise DatasetError("\n".join(f"{problem.message}. {problem.remedy}" for problem in problems))
        low, high = state.min(axis=0).astype(np.float64), state.max(axis=0).astype(np.float64)
        floor = MIN_HALF_RANGE * np.array([component.limit for component in components for _ in component.labels])
        names = tuple(scalar for component in components for scalar in component.scalars)
        return cls(names, ((low + high) / 2).astype(np.float32), np.maximum((high - low) / 2, floor).astype(np.float32))

    def normalize(self, state: np.ndarray) -> np.ndarray:
        """Scale states, shape (..., S), to about [-1, 1]; float32."""
        return ((state - self.center) / self.half_range).astype(np.float32)

    def check(self, state: np.ndarray, where: str) -> None:
        """Stop when a state, shape (S,) or (B, S), is far outside what the normaliser was made for.

        Raises:
            TrainingError: Names the scalar, its value and `where`.
        """
        normalised = np.atleast_2d(self.normalize(state))
        # Written so that NaN fails the comparison and is caught too.
        bad = np.argwhere(~(np.abs(normalised) <= MAX_NORMALISED))
        if len(bad):
            row, scalar = bad[0]
            value = float(np.atleast_2d(state)[row, scalar])
            raise TrainingError(
                f"{where}: `{self.names[scalar]}` is {value:.4g}, normalised {normalised[row, scalar]:.1f}, allowed ±{MAX_NORMALISED:g} "
                f"(demonstrations: {self.center[scalar]:.4g} ± {self.half_range[scalar]:.4g}). "
                "It is in another unit than the demonstrations (degrees for radians?), or its sensor failed."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return {"names": list(self.names), "center": self.center.tolist(), "half_range": self.half_range.tolist()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Restore what `to_dict` returned; float32 survives JSON exactly."""
        return cls(tuple(value["names"]), np.array(value["center"], np.float32), np.array(value["half_range"], np.float32))


class StateProblem(NamedTuple):
    """One reason why the state cannot be scaled: row of the failure list, what it is and does, and what to paste."""

    code: str
    message: str
    remedy: str
    scalars: tuple[str, ...]


def state_problems(state: np.ndarray, components: Sequence[StateComponent], allow_constant: tuple[str, ...]) -> list[StateProblem]:
    """Find scalars that cannot be normalised."""
    scalars = [(scalar, component) for component in components for scalar in component.scalars]
    if state.ndim != 2 or state.shape[1] != len(scalars) or not len(state):
        raise DatasetError(f"states have shape {state.shape}, expected (N > 0, {len(scalars)}) = {[scalar for scalar, _ in scalars]}")
    known = [scalar for scalar, _ in scalars]
    check_allowed(allow_constant, known)
    not_finite = tuple(known[i] for i in np.flatnonzero(~np.isfinite(state).all(axis=0)))
    if not_finite:
        return [
            StateProblem("D18", f"the state is not finite in {list(not_finite)}", "Drop those episodes, or record them again", not_finite)
        ]
    low, high = state.min(axis=0), state.max(axis=0)
    constant = [name for i, (name, part) in enumerate(scalars) if high[i] - low[i] < part.resolution and name not in allow_constant]
    problems = []
    for i, (name, component) in enumerate(scalars):
        largest = max(abs(float(low[i])), abs(float(high[i])))
        if largest > MAX_OVER_LIMIT * component.limit:
            problems.append(
                StateProblem(
                    "D17",
                    f"`{name}` reaches {largest:.4g} {component.unit}, declared limit {component.limit:.4g} {component.unit}: "
                    f"these look like {_UNIT_SUSPICION.get(component.unit, 'another unit')}",
                    f"Convert the dataset to {component.unit}",
                    (name,),
                )
            )
    if constant:
        quoted = ", ".join(f"`{name}`" for name in constant)
        line = ", ".join((*allow_constant, *constant))
        problems.append(
            StateProblem(
                "D16",
                f"constant in every demonstration: {quoted}. The policy would learn nothing about that, or a sensor was dead",
                f"If it is intended: observation: {{allow_constant: [{line}]}}",
                tuple(constant),
            )
        )
    return problems


def check_allowed(allow_constant: Iterable[str], known: Sequence[str]) -> None:
    """Stop on a name in `observation.allow_constant` that the state does not have.

    Raises:
        ConfigError: Names it and the nearest.
    """
    for name in allow_constant:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"observation.allow_constant: the state has no scalar `{name}`. Did you mean `{near}`? It has {list(known)}")
