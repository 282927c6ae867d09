"""What the learner takes in, and when: from the journal after a restart, then from the actors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator

from hilserl.learner.governor import UtdGovernor
from hilserl.learner.schedule import JournalReplay, Moment, Schedule
from hilserl.link.ingest import ReceivedRecord
from hilserl.link.interfaces import LearnerEnd

logger = logging.getLogger(__name__)

Journal = Callable[[int], Iterable[ReceivedRecord]]
_IDLE_WAIT_S = 0.02


class Intake:
    """Hands out every record once, and notes in the schedule after how many updates.

    Attributes:
        taken_in: The last record's place in the learner's journal.
        waited_s: Time waited for records because there was nothing else to do, since the start [s].
    """

    def __init__(self, server: LearnerEnd, schedule: Schedule, governor: UtdGovernor) -> None:
        self.taken_in = 0
        self.waited_s = 0.0
        self._server = server
        self._schedule = schedule
        self._governor = governor
        self._replay: JournalReplay | None = None
        self._is_inexact = False

    @property
    def is_replaying(self) -> bool:
        """Whether records of the journal are still to be taken in; those of the actors wait for them."""
        return self._replay is not None

    @property
    def steps_to_replay(self) -> int:
        """Environment steps that the journal still holds."""
        return self._replay.steps if self._replay else 0

    @property
    def replayed_versions(self) -> Container[int]:
        """Weights that an evaluation still to be replayed was made with."""
        return self._replay.evaluated_versions if self._replay else ()

    def replay(self, journal: Journal, *, is_exact: bool, lost: str | None = None) -> None:
        """Begin with what an earlier process of this run acknowledged behind `taken_in`, each record when it was taken in then.

        Args:
            journal: The journal's records behind a place in it; called twice.
            is_exact: Whether this device repeats its sums bit for bit.
            lost: What of the experience before is lost, in words.
        """
        schedule, after = self._schedule, self.taken_in
        replay = JournalReplay(lambda: journal(after), after, schedule.moments)
        reason = schedule.lost_tail
        if replay.behind_journal:
            schedule.cut_behind(replay.last_log_seq)
        if lost is not None:
            self._say_inexact(f"Of what was learned from, not everything is there: {lost}.")
        elif replay.missing:
            self._say_inexact(f"{replay.missing} records of the journal behind the checkpoint are lost: damaged, or dropped already.")
        elif not schedule.moments and (replay or after):
            reason = "it is missing"
        elif replay.behind_journal:
            reason = "it is longer than the journal"
        elif replay and not is_exact:
            reason = "a GPU does not repeat its sums bit for bit"
        if reason and not self._is_inexact:
            self._say_inexact(f"Nothing is lost, but {schedule.file}: {reason}.")
        self._replay = replay if replay else None

    def take(self, *, wait: bool) -> Iterator[ReceivedRecord]:
        """Yield what is to be taken in now.

        Args:
            wait: Wait a moment for something, because there is nothing else to do.
        """
        if self._replay is None:
            began = time.monotonic()
            arrived = self._server.poll(_IDLE_WAIT_S if wait else 0.0)
            self.waited_s += (time.monotonic() - began) if wait else 0.0
            for received in arrived:
                yield received
                self.taken_in = received.log_seq  # now that it is: it may have been refused
            if arrived:
                self.note_moment()
            return
        is_new = False
        for received, is_scheduled in self._replay.due(self._governor.updates, owes=self._governor.owed > 0):
            yield received
            self.taken_in = received.log_seq
            is_new |= not is_scheduled
        if self._replay.surprise and not self._is_inexact:  # said once; what follows is inexact too
            self._say_inexact(f"Nothing is lost, but {self._replay.surprise}.")
        if not self._replay:
            self._replay = None
        if is_new:
            self.note_moment()

    def note_moment(self) -> None:
        """Note how many updates were done when the records so far were in; of replayed ones that is known."""
        if self._replay is None:
            self._schedule.append(Moment(self.taken_in, self._governor.updates))

    def _say_inexact(self, reason: str) -> None:
        self._is_inexact = True
        logger.warning("The run is not continued bit for bit. %s", reason)
        self._schedule.begin_generation()
