"""Exactly `utd_ratio` critic updates per environment step, no more and no fewer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class UtdGovernor:
    """The account of critic updates owed and done.

    Attributes:
        utd_ratio: Critic updates owed per environment step.
        steps_before_learning: Environment steps for which nothing is owed.
        environment_steps: Training steps received so far.
        updates: Critic updates done so far.
    """

    utd_ratio: int
    steps_before_learning: int
    environment_steps: int = 0
    updates: int = 0

    @property
    def owed(self) -> int:
        """Updates that are due now."""
        return self.owed_after(0)

    def owed_after(self, steps: int) -> int:
        """Updates that will be due when `steps` more environment steps are in."""
        return self.utd_ratio * max(0, self.environment_steps + steps - self.steps_before_learning) - self.updates

    @property
    def updates_actor(self) -> bool:
        """Whether the next critic update is followed by one of the actor: the last of each step's `utd_ratio`."""
        return (self.updates + 1) % self.utd_ratio == 0
