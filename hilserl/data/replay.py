"""Replay: each observation once, transitions as explicit links between two of them.

A transition names the row of its observation and the row of its next observation, so a next
observation can never come from a neighbour that merely happens to lie behind it (the end of an
episode, of an intervention, of the ring). Overwriting a row removes every transition that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilserl.data.observation_storage import ArraySpec, HostStorage, ObservationStorage, choose
from hilserl.errors import TrainingError

__all__ = ["NO_ROW", "ArraySpec", "Batch", "Draw", "ReplayBuffer", "gather"]

NO_ROW = -1


@dataclass(frozen=True)
class Batch:
    """Transitions; B rows. Observations are NumPy arrays, or tensors on the device where they are stored.

    Attributes:
        observation: Parts of the observation, each (B, ...).
        next_observation: The same parts after the last step of the return; undefined content where terminated.
        action: Executed action in the policy's space, (B, A).
        reward: Discounted sum over the steps of the return, (B,).
        terminated: True where the task itself ended within them: no bootstrap, (B,).
        discount: Of the next observation's value: `discount ** steps`, (B,).
    """

    observation: dict[str, Any]
    next_observation: dict[str, Any]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    discount: np.ndarray


@dataclass(frozen=True)
class Draw:
    """Transitions that were drawn and not gathered yet; rows are those of the storage."""

    rows: np.ndarray
    next_rows: np.ndarray
    choices: Mapping[str, np.ndarray]
    next_choices: Mapping[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    discount: np.ndarray


class ReplayBuffer:
    """A ring of observations with a pinned head that is never overwritten.

    Rows `[0, pinned)` are filled first (demonstrations, then `pin()`); the ring uses the rest.

    Args:
        capacity: Rows.
        parts: What an observation consists of.
        action_dim: A.
        discount: Per control step.
        n_step: Steps of a return before it bootstraps, where nothing ends it earlier.
        storage: Shared with other buffers; None makes one in main memory.
        first_row: This buffer's first row in `storage`.
    """

    def __init__(
        self,
        capacity: int,
        parts: Mapping[str, ArraySpec],
        action_dim: int,
        *,
        discount: float = 1.0,
        n_step: int = 1,
        storage: ObservationStorage | None = None,
        first_row: int = 0,
    ) -> None:
        self.capacity = capacity
        self.storage: ObservationStorage = HostStorage(capacity, parts) if storage is None else storage
        self._first_row = first_row
        self._n_step = n_step
        self._discounts = (discount ** np.arange(n_step + 1)).astype(np.float32)
        self._action = np.zeros((capacity, action_dim), np.float32)
        self._reward = np.zeros(capacity, np.float32)
        self._terminated = np.zeros(capacity, bool)
        self._is_intervention = np.zeros(capacity, bool)
        self._weight = np.ones(capacity, np.float32)
        self._lightest = self._heaviest = 1.0  # of the transitions held, unless `_extremes_stale`
        self._extremes_stale = False
        self._next_row = np.full(capacity, NO_ROW, np.int32)
        self._previous_row = np.full(capacity, NO_ROW, np.int32)
        # Rows that hold a transition, dense for O(1) uniform sampling, and each row's place in it.
        self._valid = np.zeros(capacity, np.int32)
        self._place = np.full(capacity, NO_ROW, np.int32)
        self._serial = np.zeros(capacity, np.int32)
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

    @property
    def added(self) -> int:
        """Observations added so far, those overwritten since included."""
        return self._added

    @property
    def bookkeeping_nbytes(self) -> int:
        """Bytes of everything but the observations."""
        return sum(array.nbytes for array in vars(self).values() if isinstance(array, np.ndarray))

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

    def add_observation(self, observation: Mapping[str, Any]) -> int:
        """Store one observation, overwriting the oldest unpinned one when full; return its row."""
        row = self.reserve()
        self.write(row, observation)
        return row

    def reserve(self) -> int:
        """Take the next row for an observation that `write` or `load` then stores; what used the row before is gone."""
        row = self._cursor
        self._added += 1
        self._serial[row] = self._added
        self._drop_transitions_of(row)
        self._cursor = row + 1 if row + 1 < self.capacity else self._pinned
        return row

    def write(self, row: int, observation: Mapping[str, Any]) -> None:
        """Store the observation of a reserved row."""
        self.storage.write(self._first_row + row, observation)

    def load(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Store one part of the observations of many reserved rows, (n, *stored_shape)."""
        first, count = int(rows[0]), len(rows)
        is_run = int(rows[-1]) - first == count - 1 and bool((np.diff(rows) == 1).all())
        first += self._first_row
        self.storage.load(name, slice(first, first + count) if is_run else rows.astype(np.int64) + self._first_row, values)

    def add_transition(
        self,
        row: int,
        next_row: int,
        *,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        is_intervention: bool = False,
        weight: float = 1.0,
    ) -> None:
        """Link two stored observations. A terminated transition without a final observation links to itself.

        Args:
            row: Of the observation.
            next_row: Of the next observation.
            action: Executed action, (A,).
            reward: That followed.
            terminated: Whether the task itself ended.
            is_intervention: Whether a human acted; no return goes on from the policy's steps to a human's, or back.
            weight: How likely it is to be drawn, relative to the other transitions; positive.
        """
        assert 0 < weight < np.inf, "a transition that is never drawn should not be added"
        assert self._place[row] == NO_ROW, "a row holds one transition"
        assert next_row != row or terminated, "only a terminated transition may lack a next observation"
        self._action[row] = action
        self._reward[row] = reward
        self._terminated[row] = terminated
        self._is_intervention[row] = is_intervention
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
        """Draw `size` transitions and gather their observations; see `draw`."""
        return gather(self.storage, [self.draw(size, generator)])

    def draw(self, size: int, generator: np.random.Generator) -> Draw:
        """Draw `size` transitions with replacement, each as likely as its weight says.

        Images are to be shown shifted, and stored views chosen, at random, an observation's and its next one's independently.

        Args:
            size: B.
            generator: Source of everything random here: with its state, the buffer's content decides the batch.
        """
        if not self._count:
            raise TrainingError("sampling from an empty replay buffer")
        rows = self._draw(size, generator)
        if self._n_step == 1:
            next_rows, reward, terminated = self._next_row[rows], self._reward[rows], self._terminated[rows]
            discount = np.full(size, self._discounts[1], np.float32)
        else:
            next_rows, reward, terminated, discount = self._returns(rows)
        return Draw(
            rows.astype(np.int64) + self._first_row,
            next_rows.astype(np.int64) + self._first_row,
            choose(self.storage.parts, size, generator),
            choose(self.storage.parts, size, generator),
            self._action[rows],
            reward,
            terminated,
            discount,
        )

    def _returns(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Follow the transitions of `rows` for up to `n_step` steps.

        A return ends early at a termination, where the next row holds no transition (the end of a segment, a step
        still without its next observation, an evicted one), and where the actor changes between policy and human.

        Returns:
            Next rows, discounted rewards, whether terminated, and discounts, each (B,).
        """
        next_rows, terminated = self._next_row[rows], self._terminated[rows]
        reward, steps = self._reward[rows], np.ones(len(rows), np.int64)
        goes_on = ~terminated
        for done in range(1, self._n_step):
            goes_on &= self._place[next_rows] != NO_ROW
            goes_on &= self._is_intervention[next_rows] == self._is_intervention[rows]
            if not goes_on.any():
                break
            at = next_rows[goes_on]
            reward[goes_on] += self._discounts[done] * self._reward[at]
            terminated[goes_on] = self._terminated[at]
            next_rows[goes_on] = self._next_row[at]
            steps[goes_on] += 1
            goes_on &= ~terminated
        return next_rows, reward, terminated, self._discounts[steps]

    def _draw(self, size: int, generator: np.random.Generator) -> np.ndarray:
        """Draw the rows of transitions: uniformly, then kept with a probability of their weight over the largest."""
        if self._extremes_stale:
            held = self._weight[self._valid[: self._count]]
            self._lightest, self._heaviest = float(held.min()), float(held.max())
            self._extremes_stale = False
        if self._lightest == self._heaviest:
            return self._valid[generator.integers(0, self._count, size)]
        rows: np.ndarray = np.empty(0, np.int32)
        while len(rows) < size:
            drawn = self._valid[generator.integers(0, self._count, size)]
            rows = np.concatenate((rows, drawn[generator.random(size) * self._heaviest < self._weight[drawn]]))
        return rows[:size]

    def serial(self, row: int) -> int:
        """Number the observation in `row`, from 1 in the order of arrival: a changed one says that it was overwritten."""
        return int(self._serial[row])

    def observation(self, row: int) -> dict[str, Any]:
        """Return the observation stored in `row`."""
        return self.storage.read(self._first_row + row)

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


def gather(storage: ObservationStorage, draws: Sequence[Draw]) -> Batch:
    """Copy out what was drawn from the buffers that share `storage`, one draw behind the other, in one pass."""
    rows = np.concatenate([draw.rows for draw in draws] + [draw.next_rows for draw in draws])
    sides = [draw.choices for draw in draws] + [draw.next_choices for draw in draws]
    choices = {name: np.concatenate([side[name] for side in sides], axis=-1) for name in sides[0]}
    both, count = storage.gather(rows, choices), len(rows) // 2
    return Batch(
        {name: values[:count] for name, values in both.items()},
        {name: values[count:] for name, values in both.items()},
        *(
            getattr(draws[0], name) if len(draws) == 1 else np.concatenate([getattr(draw, name) for draw in draws])
            for name in ("action", "reward", "terminated", "discount")
        ),
    )
