"""Replay storage: each observation once, transitions as explicit links between two of them.

A transition names the row of its observation and the row of its next observation, so a next
observation can never come from a neighbour that merely happens to lie behind it (the end of an
episode, of an intervention, of the ring). Overwriting a row removes every transition that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hilserl.data.augment import ShiftableImages
from hilserl.errors import TrainingError

NO_ROW = -1


@dataclass(frozen=True)
class ArraySpec:
    """One observation part in storage.

    Attributes:
        shape: Without the row axis.
        dtype: NumPy's name of it.
        shift_px: Largest random shift of a sampled image [px]; 0: sampled as stored. Needs uint8 (H, W, C).
    """

    shape: tuple[int, ...]
    dtype: str
    shift_px: int = 0


@dataclass(frozen=True)
class Batch:
    """Transitions in numpy; B rows.

    Attributes:
        observation: Parts of the observation, each (B, ...).
        next_observation: The same parts one control step later; undefined content where terminated.
        action: Executed action in the policy's space, (B, A).
        reward: (B,).
        terminated: True where the task itself ended: no bootstrap, (B,).
    """

    observation: dict[str, np.ndarray]
    next_observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


class ReplayBuffer:
    """A ring of observations with a pinned head that is never overwritten.

    Rows `[0, pinned)` are filled first (demonstrations, then `pin()`); the ring uses the rest.
    """

    def __init__(self, capacity: int, parts: Mapping[str, ArraySpec], action_dim: int) -> None:
        self.capacity = capacity
        self._observation = {name: _storage(capacity, spec) for name, spec in parts.items()}
        self._action = np.zeros((capacity, action_dim), np.float32)
        self._reward = np.zeros(capacity, np.float32)
        self._terminated = np.zeros(capacity, bool)
        self._weight = np.ones(capacity, np.float32)
        self._lightest = self._heaviest = 1.0  # of the transitions held, unless `_extremes_stale`
        self._extremes_stale = False
        self._next_row = np.full(capacity, NO_ROW, np.int64)
        self._previous_row = np.full(capacity, NO_ROW, np.int64)
        # Rows that hold a transition, dense for O(1) uniform sampling, and each row's place in it.
        self._valid = np.zeros(capacity, np.int64)
        self._place = np.full(capacity, NO_ROW, np.int64)
        self._serial = np.zeros(capacity, np.int64)
        self._count = 0
        self._cursor = 0
        self._pinned = 0
        self._added = 0
        self.evicted = 0

    def __len__(self) -> int:
        return self._count

    @property
    def pinned(self) -> int:
        """Rows that are never overwritten."""
        return self._pinned

    def pin(self) -> None:
        """Protect everything added so far from eviction.

        Raises:
            TrainingError: No room is left for anything else.
        """
        if self._added > self.capacity - 2:
            raise TrainingError(
                f"The {self._added} demonstration frames leave no room for interventions in an offline buffer of {self.capacity} rows. "
                f"Set `policy.offline_buffer_capacity` to at least {2 * self._added}."
            )
        self._pinned = self._added

    def add_observation(self, observation: Mapping[str, np.ndarray]) -> int:
        """Store one observation, overwriting the oldest unpinned one when full; return its row."""
        row = self._cursor
        self._added += 1
        self._serial[row] = self._added
        self._drop_transitions_of(row)
        for name, stored in self._observation.items():
            stored[row] = observation[name]
        self._cursor = row + 1 if row + 1 < self.capacity else self._pinned
        return row

    def add_transition(self, row: int, next_row: int, *, action: np.ndarray, reward: float, terminated: bool, weight: float = 1.0) -> None:
        """Link two stored observations. A terminated transition without a final observation links to itself.

        Args:
            row: Of the observation.
            next_row: Of the next observation.
            action: Executed action, (A,).
            reward: That followed.
            terminated: Whether the task itself ended.
            weight: How likely it is to be drawn, relative to the other transitions; positive.
        """
        assert 0 < weight < np.inf, "a transition that is never drawn should not be added"
        assert self._place[row] == NO_ROW, "a row holds one transition"
        assert next_row != row or terminated, "only a terminated transition may lack a next observation"
        self._action[row] = action
        self._reward[row] = reward
        self._terminated[row] = terminated
        self._weight[row] = weight
        held = float(self._weight[row])
        self._lightest = min(self._lightest, held) if self._count else held
        self._heaviest = max(self._heaviest, held) if self._count else held
        self._next_row[row] = next_row
        if next_row != row:
            self._previous_row[next_row] = row
        self._place[row] = self._count
        self._valid[self._count] = row
        self._count += 1

    def sample(self, size: int, generator: np.random.Generator) -> Batch:
        """Draw `size` transitions with replacement, each as likely as its weight says.

        Images are shifted at random where their `ArraySpec` says so, an observation and its next one independently.

        Args:
            size: B.
            generator: Source of everything random here: with its state, the buffer's content decides the batch.
        """
        if not self._count:
            raise TrainingError("sampling from an empty replay buffer")
        rows = self._draw(size, generator)
        next_rows = self._next_row[rows]
        return Batch(
            {name: _gather(stored, rows, generator) for name, stored in self._observation.items()},
            {name: _gather(stored, next_rows, generator) for name, stored in self._observation.items()},
            self._action[rows],
            self._reward[rows],
            self._terminated[rows],
        )

    def _draw(self, size: int, generator: np.random.Generator) -> np.ndarray:
        """Draw the rows of transitions: uniformly, then kept with a probability of their weight over the largest."""
        if self._extremes_stale:
            held = self._weight[self._valid[: self._count]]
            self._lightest, self._heaviest = float(held.min()), float(held.max())
            self._extremes_stale = False
        if self._lightest == self._heaviest:
            return self._valid[generator.integers(0, self._count, size)]
        rows: np.ndarray = np.empty(0, np.int64)
        while len(rows) < size:
            drawn = self._valid[generator.integers(0, self._count, size)]
            rows = np.concatenate((rows, drawn[generator.random(size) * self._heaviest < self._weight[drawn]]))
        return rows[:size]

    def serial(self, row: int) -> int:
        """Number the observation in `row`, from 1 in the order of arrival: a changed one says that it was overwritten."""
        return int(self._serial[row])

    def observation(self, row: int) -> dict[str, np.ndarray]:
        """Return the observation stored in `row`."""
        return {name: stored[row] for name, stored in self._observation.items()}

    def _drop_transitions_of(self, row: int) -> None:
        if self._place[row] != NO_ROW:
            next_row = self._next_row[row]
            if next_row != row:
                self._previous_row[next_row] = NO_ROW
            self._remove(row)
        predecessor = self._previous_row[row]
        if predecessor != NO_ROW:
            self._remove(int(predecessor))
            self._previous_row[row] = NO_ROW

    def _remove(self, row: int) -> None:
        place, last = self._place[row], self._valid[self._count - 1]
        self._valid[place] = last
        self._place[last] = place
        self._place[row] = NO_ROW
        self._next_row[row] = NO_ROW
        self._count -= 1
        self._extremes_stale |= self._lightest != self._heaviest
        self.evicted += 1


def _storage(capacity: int, spec: ArraySpec) -> np.ndarray | ShiftableImages:
    if not spec.shift_px:
        return np.zeros((capacity, *spec.shape), spec.dtype)
    assert spec.dtype == "uint8" and len(spec.shape) == 3, "only uint8 images (H, W, C) can be shifted"
    height, width, channels = spec.shape
    return ShiftableImages(capacity, (height, width, channels), spec.shift_px)


def _gather(stored: np.ndarray | ShiftableImages, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return stored.randomly_shifted(rows, generator) if isinstance(stored, ShiftableImages) else stored[rows]


def concatenate(first: Batch, second: Batch) -> Batch:
    """Join two batches of the same parts along the row axis."""
    return Batch(
        {name: np.concatenate((array, second.observation[name])) for name, array in first.observation.items()},
        {name: np.concatenate((array, second.next_observation[name])) for name, array in first.next_observation.items()},
        np.concatenate((first.action, second.action)),
        np.concatenate((first.reward, second.reward)),
        np.concatenate((first.terminated, second.terminated)),
    )
