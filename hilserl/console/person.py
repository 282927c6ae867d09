"""Who may take over: the page, in front of whomever the configuration names, who can be exchanged while the actor runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.console.commands import Commands
from hilserl.errors import HilserlError
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.intervention import Control, Intervention, Steps

logger = logging.getLogger(__name__)

_AT_ONCE = Steps(take_over=1, hand_back=1, longest=1 << 31)  # a page says explicitly what it wants, and its dead-man watches it

Make = Callable[[TrainConfig, Any], Any]


class PagePerson:
    """The page's person, and the device or simulated human behind them.

    The page wins while it has taken over; the device behind is asked all the same, so that a leader arm goes on mirroring.

    Attributes:
        control: Who acts, as far as the page is concerned.
    """

    def __init__(self, config: TrainConfig, environment: Any, make: Make, commands: Commands, receive: Callable[[], None]) -> None:
        """Connect the device that the configuration names.

        Args:
            config: The run's configuration.
            environment: The robot.
            make: Connects a device: `hilserl.teleop.make.make_human`.
            commands: What the page wants.
            receive: Takes what has arrived from the page.

        Raises:
            RobotError: The device is not there.
        """
        self._config, self._environment, self._make, self._commands, self._receive = config, environment, make, commands, receive
        self._page = Intervention(_AT_ONCE)
        self._zero = np.zeros(len(config.action_names), np.float32)
        self._behind: Any = self._connect(commands.source)

    @property
    def control(self) -> Control:
        """Who acts, as far as the page is concerned."""
        return self._page.control

    def reset(self) -> None:
        """An episode starts: the policy acts, until somebody takes over."""
        self._change_source()
        if self._behind is not None:
            self._behind.reset()
        self._commands.take_marks()  # what was said between episodes belongs to none
        self._page.reset()
        self._page.update(False)

    def intervene(self) -> np.ndarray | None:
        """Return the person's action while in control, else None."""
        self._receive()
        behind = None if self._behind is None else self._behind.intervene()
        with self._commands.lock:
            self._page.update(self._commands.drive.taken)
            if self._commands.stays:
                return self._zero
            return self._commands.drive.action if self._page.acts else behind

    def events(self) -> frozenset[TeleopEvent]:
        """Return what was said of the episode since the last call, on the page or with the device."""
        self._receive()
        behind: frozenset[TeleopEvent] = frozenset() if self._behind is None else self._behind.events()
        return behind | self._commands.take_marks()

    def observe_outcome(self, success: bool) -> None:
        """An episode ended: the page has handed back."""
        self._commands.drive.release()
        if self._behind is not None:
            self._behind.observe_outcome(success)

    def paused(self) -> None:
        """The arm stands still, so the device may be exchanged now."""
        self._change_source()

    def close(self) -> None:
        """Let go of the device; safe to call twice."""
        if self._behind is not None:
            self._behind.close()
            self._behind = None

    def _change_source(self) -> None:
        wanted = self._commands.wanted_source
        if wanted is None:
            return
        before = self._commands.source
        self.close()
        try:
            self._behind = self._connect(wanted)
            if self._behind is not None:
                self._behind.reset()
            error = ""
            logger.info("The intervention source is now `%s`, it was `%s`.", wanted, before)
        except HilserlError as reason:
            error, wanted = str(reason), before
            logger.warning("The intervention source stays `%s`: %s", before, reason)
            self._behind = self._connect(before)
        with self._commands.lock:
            self._commands.source, self._commands.wanted_source, self._commands.source_error = wanted, None, error

    def _connect(self, source: str) -> Any:
        if source in ("none", "console"):
            return None
        kind = cast(Literal["simulated", "leader", "gamepad", "keyboard"], source)
        intervention = self._config.actor.intervention.model_copy(update={"type": kind})
        actor = self._config.actor.model_copy(update={"intervention": intervention})
        return self._make(self._config.model_copy(update={"actor": actor}), self._environment)


def sources_of(config: TrainConfig, environment: Any) -> tuple[str, ...]:
    """Return which intervention sources this robot can have."""
    if config.env is not None:
        return ("none",)
    settings = config.actor.intervention
    found = ["none", "console"]
    if hasattr(environment, "privileged_state"):
        found.append("simulated")
    if settings.leader.port is not None or settings.leader.virtual:
        found.append("leader")
    return (*found, "gamepad", "keyboard")
