"""From the steps of several actors to transitions: which rows they take, and which transitions they complete.

Only the buffers' book-keeping is done here, from what a step says besides its observations. So a restart
repeats it from a log of steps, and comes to the same rows in the same order, without touching an image.
"""

from __future__ import annotations

from dataclasses import dataclass

from hilserl.data.replay import NO_ROW, ReplayBuffer
from hilserl.learner.statistics import ReturnBound
from hilserl.link.messages import Step

_Copies = tuple[tuple[int, int], ...]
_NONE: _Copies = ()


@dataclass(frozen=True)
class OpenStep:
    """The last step of one actor whose next observation has not arrived."""

    step: Step
    row: int
    serial: int
    offline_row: int  # row of the same observation in the offline buffer, or NO_ROW
    offline_serial: int


@dataclass(frozen=True)
class Placement:
    """Where one arrived observation goes.

    Attributes:
        row: In the online buffer.
        copies: Row in the offline buffer, and online row of the same observation, for each that is to be copied.
    """

    row: int
    copies: _Copies


class StepLinker:
    """Completes each step when its next observation arrives: in the online buffer, and a human's in the offline one too."""

    def __init__(self, online: ReplayBuffer, offline: ReplayBuffer, return_bound: ReturnBound) -> None:
        self._online = online
        self._offline = offline
        self._return_bound = return_bound
        self.open: dict[str, OpenStep] = {}
        self.dropped_steps = 0

    def take(self, actor_id: str, step: Step) -> Placement:
        """Place a step's observation; it completes the actor's step before, if that was the one before of the same episode."""
        row = self._online.reserve()
        offline_row, copies = NO_ROW, _NONE
        before = self.open.pop(actor_id, None)
        if before is not None:
            if (before.step.episode, before.step.step + 1) == (step.episode, step.step):
                offline_row, copies = self._link(before, row)
            else:
                self.dropped_steps += 1  # the actor died in mid-episode: its last step has no next observation
        self.open[actor_id] = OpenStep(step, row, self._online.serial(row), offline_row, self._offline.serial(offline_row))
        return Placement(row, copies)

    def conclude(self, actor_id: str) -> Placement:
        """Place the final observation of the episode whose last step was just taken."""
        row = self._online.reserve()
        _, copies = self._link(self.open.pop(actor_id), row)
        return Placement(row, copies)

    def _link(self, before: OpenStep, next_row: int) -> tuple[int, _Copies]:
        """Complete a step.

        Returns:
            Row of the next observation in the offline buffer, so that a bout stores it once; and the copies to make.
        """
        step = before.step
        self._return_bound.add(step.reward, terminated=step.terminated)
        if self._online.serial(before.row) != before.serial:  # other actors filled the ring while this one was away
            self.dropped_steps += 1
            return NO_ROW, _NONE
        self._add(self._online, before.row, next_row, step)
        if not step.is_intervention:
            return NO_ROW, _NONE
        offline_next, offline_row = self._offline.reserve(), before.offline_row
        copies = [(offline_next, next_row)]
        if offline_row == NO_ROW or self._offline.serial(offline_row) != before.offline_serial:  # a bout begins, or its row was overwritten
            offline_row = self._offline.reserve()
            copies.append((offline_row, before.row))
        self._add(self._offline, offline_row, offline_next, step)
        return offline_next, tuple(copies)

    @staticmethod
    def _add(buffer: ReplayBuffer, row: int, next_row: int, step: Step) -> None:
        buffer.add_transition(
            row, next_row, action=step.action, reward=step.reward, terminated=step.terminated, is_intervention=step.is_intervention
        )
