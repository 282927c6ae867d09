"""An evaluation during training moves the arm for minutes without help: on a real arm, somebody is asked first."""

from __future__ import annotations

import logging
from collections.abc import Collection

from hilserl.teleop.events import TeleopEvent

logger = logging.getLogger(__name__)


class AskByKeys:
    """Asks in the log, hears the answer among what a person says of the episodes; training goes on meanwhile.

    Args:
        episodes: Of an evaluation.
        hears: Whether there is somebody whose keys are read.
    """

    def __init__(self, episodes: int, *, hears: bool) -> None:
        self._episodes, self._hears = episodes, hears
        self._asked_at: int | None = None
        self._answer: bool | None = None

    def hear(self, said: Collection[TeleopEvent]) -> None:
        """Take what was said; only an answer to a question counts."""
        if self._asked_at is None:
            return
        if TeleopEvent.NO in said:
            self._answer = False
        elif TeleopEvent.YES in said:
            self._answer = True

    def may_evaluate(self, at_steps: int) -> bool | None:
        """Return the answer to the evaluation that is due at `at_steps`; None: not answered yet."""
        if self._asked_at != at_steps:
            self._asked_at, self._answer = at_steps, None
            how = (
                "Press y to begin it after the running episode, n to leave it out (here, or with `hilserl keys`)."
                if self._hears
                else "Nobody can answer: use the console (`console.enable: true`), an intervention device, or `hilserl eval` afterwards; "
                "`actor.ask_before_evaluation: false` evaluates unasked."
            )
            logger.warning("An evaluation is due at step %d: %d episodes in which nobody takes over. %s", at_steps, self._episodes, how)
        return self._answer
