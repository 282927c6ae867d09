"""The arm moved by keys of a terminal. A key is a step; held, it repeats."""

from __future__ import annotations

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.teleop.device import Action
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.intervention import Control
from hilserl.teleop.remote_keys import Keys

_MOVES: dict[str, tuple[int, float]] = {
    "up": (0, 1.0),
    "down": (0, -1.0),
    "left": (1, 1.0),
    "right": (1, -1.0),
    "page up": (2, 1.0),
    "e": (2, 1.0),
    "page down": (2, -1.0),
    "d": (2, -1.0),
    "o": (3, 1.0),
    "c": (3, -1.0),
}
_SAYS = {
    "s": TeleopEvent.SUCCESS,
    "f": TeleopEvent.FAILURE,
    "q": TeleopEvent.FAILURE,  # as in LeRobot
    "r": TeleopEvent.RERECORD_EPISODE,
    "t": TeleopEvent.TERMINATE_EPISODE,
    "y": TeleopEvent.YES,
    "n": TeleopEvent.NO,
}
EVENTS_HELP = "s success, f failure, r forget this episode, t end it; y, n: answer a question"
HELP = f"arrows: forward, back, left, right; e, d (or page up, page down): up, down; o, c: open, close; {EVENTS_HELP}"


class EventKeys:
    """What a person says of an episode by keys, whatever moves the arm."""

    def __init__(self, keys: Keys | None) -> None:
        """Listen to these keys; None: nobody says anything."""
        self._keys = keys
        self._said: set[TeleopEvent] = set()
        self._moves: list[str] = []

    def moves(self) -> list[str]:
        """Return the keys since the last call that move the arm."""
        self._look()
        pending, self._moves = self._moves, []
        return pending

    def events(self) -> frozenset[TeleopEvent]:
        """Return what was said since the last call."""
        self._look()
        pending, self._said = frozenset(self._said), set()
        return pending

    def close(self) -> None:
        """Give the terminal back; safe to call twice."""
        if self._keys is not None:
            self._keys.close()

    def _look(self) -> None:
        pressed = [key.lower() for key in self._keys.pressed()] if self._keys is not None else []
        self._said.update(_SAYS[key] for key in pressed if key in _SAYS)
        self._moves += [key for key in pressed if key in _MOVES]


class Keyboard:
    """Keys as a device; any key that moves the arm asks for control."""

    name = "keyboard"
    hand_back_s = 0.6  # a held key repeats only after half a second

    def __init__(self, config: TrainConfig, keys: Keys) -> None:
        self._keys = EventKeys(keys)
        self._size = len(config.action_names)
        self._moves: list[tuple[int, float]] = []

    def begin_episode(self) -> None:
        """Forget what was pressed before."""
        self._keys.moves()

    def wants(self) -> bool:
        """Look at the keys; tell whether one moves the arm."""
        self._moves = [_MOVES[key] for key in self._keys.moves() if _MOVES[key][0] < self._size]
        return bool(self._moves)

    def action(self) -> Action:
        """Return one step for the keys pressed since the last one; a key and its opposite cancel out."""
        action = np.zeros(self._size, np.float32)
        for axis, sign in self._moves:
            action[axis] += sign
        return np.clip(action, -1.0, 1.0)

    def changed(self, control: Control) -> None:
        """Nothing to do: keys neither hold nor mirror."""

    def events(self) -> frozenset[TeleopEvent]:
        """Return what was said since the last call."""
        return self._keys.events()

    def close(self) -> None:
        """Give the terminal back."""
        self._keys.close()
