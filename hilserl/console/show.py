"""Which pictures go to the pages, and when: those of a step, those of live cameras, those of an arm that stands still."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.console.pictures import Pictures
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import RobotError
from hilserl.teleop.operator import Moment

logger = logging.getLogger(__name__)

_LIVE_S = 1.0 / 30.0
_IS_LIVE_S = 1.0
_LOOK_S = 0.5
_LOOK_AFTER_ERROR_S = 5.0


class Show:
    """Publishes pictures and says so to the console's process."""

    def __init__(self, config: TrainConfig, send: Callable[[dict[str, Any]], object]) -> None:
        """Begin without any; `send` takes a message for the console's process."""
        self._config, self._send = config, send
        self._pictures = Pictures()
        self._live_s = 0.0
        self._next_look_s = 0.0
        self._preprocessor: Preprocessor | None = None

    @property
    def folder(self) -> Path:
        """Where the frames are."""
        return self._pictures.folder

    def step(self, environment: Any, moment: Moment, *, always: bool = False) -> None:
        """Show what was seen at a step; raw pictures only where no camera is live."""
        live = getattr(environment, "cameras", None) is not None and time.monotonic() - self._live_s < _IS_LIVE_S
        new = [] if live else self._pictures.show("raw", moment.observation, always=always)
        self._tell(new + self._pictures.show("policy", moment.seen, always=always), moment.step)

    def live(self, environment: Any, step: int) -> None:
        """Show what the cameras have that is newer."""
        now = time.monotonic()
        cameras = getattr(environment, "cameras", None)
        if cameras is None or now - self._live_s < _LIVE_S:
            return
        if new := self._pictures.show_live(cameras):
            self._live_s = now
            self._tell(new, step)

    def still(self, environment: Any, episode: int, step: int) -> None:
        """Nothing moves and no step is under way: look again now and then, so that pages see what somebody does to the scene."""
        now = time.monotonic()
        look: Callable[[], dict[str, np.ndarray]] | None = getattr(environment, "observe", None)
        if look is None or now < self._next_look_s:
            return
        self._next_look_s = now + _LOOK_S
        try:
            observation = look()
        except RobotError as error:  # who goes on is told by the environment itself
            self._next_look_s = now + _LOOK_AFTER_ERROR_S
            logger.warning("The arm stands still, and nothing is seen of it: %s", error)
            return
        if self._preprocessor is None:
            self._preprocessor = Preprocessor.from_config(self._config)
        self.step(environment, Moment(episode, step, observation, {}, seen=self._preprocessor(observation)))

    def close(self) -> None:
        """Take the pictures away; safe to call twice."""
        self._pictures.close()

    def _tell(self, new: list[list[Any]], step: int) -> None:
        if new:
            self._send({"kind": "pictures", "new": new, "step": step})
