"""A person who only says how an episode went."""

from __future__ import annotations

import logging

import numpy as np

from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.keyboard import EVENTS_HELP, EventKeys
from hilserl.teleop.remote_keys import AllKeys, RemoteKeys
from hilserl.teleop.terminal_keys import TerminalKeys

logger = logging.getLogger(__name__)


class KeysOnly:
    """Keys of this terminal and of `hilserl keys`; nothing moves the arm."""

    def __init__(self, robot_id: str) -> None:
        terminal = TerminalKeys.if_there_are()
        self._keys = EventKeys(AllKeys(terminal, RemoteKeys.if_possible(robot_id)))
        logger.info("Say how an episode went %s `hilserl keys`: %s", "here, or with" if terminal is not None else "with", EVENTS_HELP)

    def reset(self) -> None:
        """Forget what was said before the episode."""
        self._keys.events()

    def intervene(self) -> np.ndarray | None:
        """Never act."""
        return None

    def events(self) -> frozenset[TeleopEvent]:
        """Return what was said since the last call."""
        return self._keys.events()

    def observe_outcome(self, success: bool) -> None:
        """A person knows."""

    def close(self) -> None:
        """Give the terminal back; safe to call twice."""
        self._keys.close()
