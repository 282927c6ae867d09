"""What leader, gamepad and keyboard have in common: each is a `Human` of the actor's loop."""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.intervention import Control, Intervention, Steps

logger = logging.getLogger(__name__)

Action = NDArray[np.float32]


class Device(Protocol):
    """Something that a person moves the arm with.

    Attributes:
        name: For people.
        hand_back_s: After so long without a wish, the policy acts again [s].
    """

    name: str
    hand_back_s: float

    def begin_episode(self) -> None:
        """The arm is at its reset pose; the policy acts."""

    def wants(self) -> bool:
        """Look at the device once; tell whether the person asks for control."""

    def action(self) -> Action:
        """Return what the person does, in the policy's space, shape (A,); `wants` has been called in this step."""

    def changed(self, control: Control) -> None:
        """Control has changed hands."""

    def events(self) -> frozenset[TeleopEvent]:
        """Return what the person said since the last call."""

    def close(self) -> None:
        """Let go of it; safe to call twice."""


class Person:
    """A person with a device: decides with the one state machine who acts, and acts.

    Attributes:
        device: What is held.
        intervention: Who is in control.
    """

    def __init__(self, config: TrainConfig, device: Device) -> None:
        settings = config.actor.intervention
        self.device = device
        self.intervention = Intervention(Steps.of(settings, config.robot.control_hz, device.hand_back_s), self._changed)

    def reset(self) -> None:
        """An episode starts: the policy acts."""
        self.device.events()  # what was said between episodes belongs to none
        self.device.begin_episode()
        self.intervention.reset()

    def intervene(self) -> Action | None:
        """Return the person's action while in control, else None."""
        self.intervention.update(self.device.wants())
        return self.device.action() if self.intervention.acts else None

    def events(self) -> frozenset[TeleopEvent]:
        """Return what the person said of the episode since the last call."""
        return self.device.events()

    def observe_outcome(self, success: bool) -> None:
        """An episode ended; people remember that themselves."""

    def close(self) -> None:
        """Let go of the device; safe to call twice."""
        self.device.close()

    def _changed(self, control: Control) -> None:
        said = {Control.HUMAN: "A person takes over with the %s.", Control.POLICY: "The policy acts again; the %s was let go."}
        if control in said:
            logger.info(said[control], self.device.name)
        self.device.changed(control)
