"""Who is in control: one explicit state machine for every device (FAILURES R21).

POLICY --wants, long enough--> HUMAN --wants no more--> HANDING_BACK --long enough--> POLICY
                                 ^---------wants again--------'
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

from hilserl.config.intervention import InterventionConfig

logger = logging.getLogger(__name__)


class Control(Enum):
    """Who acts."""

    POLICY = auto()
    HUMAN = auto()
    HANDING_BACK = auto()
    """The human still acts, but has let go."""


@dataclass(frozen=True)
class Steps:
    """Delays, in control steps.

    Attributes:
        take_over: So many steps in a row a person wants control before getting it, at least 1.
        hand_back: So many steps in a row the person does not want it before the policy acts again, at least 1.
        longest: A bout that is longer is taken for a stuck device, and ended.
    """

    take_over: int = 1
    hand_back: int = 2
    longest: int = 600

    @classmethod
    def of(cls, config: InterventionConfig, control_hz: float, hand_back_s: float) -> Self:
        """Convert a configuration's seconds; `hand_back_s` is the device's own."""
        chosen = hand_back_s if config.hand_back_s is None else config.hand_back_s

        def steps(seconds: float) -> int:
            return max(1, math.ceil(seconds * control_hz - 1e-9))

        return cls(steps(config.take_over_s), steps(chosen), steps(config.longest_s))


class Intervention:
    """The state machine. An intervention begins with a change, never with a state.

    A device that asks for control from the start of an episode on (a stuck button, a leader that lies elsewhere), or after a bout
    that was ended because it never did, gets it only after it has stopped asking once.

    Attributes:
        control: Who acts now.
        bouts: Interventions so far in this episode.
    """

    def __init__(self, steps: Steps, on_change: Callable[[Control], None] = lambda control: None) -> None:
        """Begin with the policy; `on_change` is called with each new state."""
        self.control = Control.POLICY
        self.bouts = 0
        self._delays = steps
        self._on_change = on_change
        self.reset()

    def reset(self) -> None:
        """Begin an episode: the policy acts."""
        self._released = False
        self._count = self._length = 0
        self.bouts = 0
        self._to(Control.POLICY)

    @property
    def acts(self) -> bool:
        """Whether the human acts."""
        return self.control is not Control.POLICY

    def update(self, wants: bool) -> Control:
        """Take one control step.

        Args:
            wants: The person asks for control.

        Returns:
            Who acts in this step.
        """
        self._released = self._released or not wants
        match self.control:
            case Control.POLICY:
                self._count = self._count + 1 if wants and self._released else 0
                if self._count >= self._delays.take_over:
                    self._length, self.bouts = 0, self.bouts + 1
                    self._to(Control.HUMAN)
            case Control.HUMAN if not wants:
                self._count = 1
                self._to(Control.HANDING_BACK)
            case Control.HANDING_BACK:
                self._count += 1
                if wants:
                    self._to(Control.HUMAN)
                elif self._count > self._delays.hand_back:
                    self._give_back()
        if self.acts:
            self._length += 1
            if self._length > self._delays.longest:
                logger.warning(
                    "A person has been in control for %d steps without a pause: taken for a stuck device, so the policy acts again. "
                    "Let go of it once to take over anew; raise actor.intervention.longest_s if that was on purpose.",
                    self._delays.longest,
                )
                self._released = False
                self._give_back()
        return self.control

    def _give_back(self) -> None:
        self._count = 0
        self._to(Control.POLICY)

    def _to(self, control: Control) -> None:
        if control is not self.control:
            self.control = control
            self._on_change(control)
