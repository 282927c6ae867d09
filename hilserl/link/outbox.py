"""What the actor has yet to send, and what it has sent and not seen acknowledged.

Everything is in the journal first. The newest unsent records are also kept in memory, up to a
bound; a sender that is further behind reads them back from the journal.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.journal import Journal, JournalReader

logger = logging.getLogger(__name__)

BATCH_RECORDS, BATCH_BYTES = 64, 1 << 20
WINDOW_RECORDS, WINDOW_BYTES = 512, 16 << 20  # sent and not yet acknowledged
UNSENT_RECORDS, UNSENT_BYTES = 256, 8 << 20
_DROP_AFTER_S = 3.0  # by then the learner's disk, too, has what it acknowledged


class Delivery:
    """Progress of one stream: where it stands, and what is on its way."""

    def __init__(self, reader: JournalReader, durable_seq: int) -> None:
        self.reader = reader
        self.cursor = durable_seq  # number of the last record sent
        self.in_flight: deque[tuple[int, int]] = deque()  # (seq, bytes)
        self.in_flight_bytes = 0


class Outbox:
    """Records on their way from this actor to the learner; owns the journal.

    Args:
        journal: Where they are written first.
        keep: Keep there what the learner has acknowledged, too.
    """

    def __init__(self, journal: Journal, *, keep: bool = False) -> None:
        self.journal = journal
        self._keep = keep
        self._condition = threading.Condition()
        self._unsent: deque[tuple[int, int, bytes]] = deque()  # (seq, seq before it, payload)
        self._unsent_bytes = 0
        self._added = 0
        self._acked_seq = journal.first_base
        self._drop_mark = (time.monotonic(), 0)

    @property
    def acked_seq(self) -> int:
        """Number up to which the learner's journal has everything."""
        return self._acked_seq

    @property
    def is_flushed(self) -> bool:
        """Whether the learner has acknowledged everything added."""
        return self._acked_seq >= self.journal.last_seq

    @property
    def waiting(self) -> tuple[int, int]:
        """Records that were added and are not acknowledged, and the size of the journal [bytes]."""
        return max(0, min(self._added, self.journal.last_seq - self._acked_seq)), self.journal.size_bytes

    def add(self, payload: bytes) -> None:
        """Journal one record and queue it.

        Raises:
            CacheError: The disk is full; the record was not added.
        """
        with self._condition:
            previous = self.journal.last_seq
            seq = self.journal.append(payload)
            self._added += 1
            self._unsent.append((seq, previous, payload))
            self._unsent_bytes += len(payload)
            while len(self._unsent) > UNSENT_RECORDS or self._unsent_bytes > UNSENT_BYTES:
                self._forget_first()
            self._condition.notify()

    def begin(self, durable_seq: int) -> Delivery:
        """Start a stream to a learner that has everything up to `durable_seq`.

        Raises:
            TransportError: The learner has more of this journal than there is.
        """
        with self._condition:
            if durable_seq >= self.journal.next_seq:
                raise TransportError(
                    f"{self.journal.folder}: the learner has records up to {durable_seq} of this journal, which ends at "
                    f"{self.journal.last_seq}: it was put back from an older copy, and new records would pass for old ones. "
                    "Move the folder away; the actor starts a new one."
                )
            if durable_seq < self.journal.first_base:
                logger.error(
                    "The learner has records up to %d; those up to %d were acknowledged earlier and deleted here. The learner lost them.",
                    durable_seq, self.journal.first_base,
                )  # fmt: skip
            self._acked_seq = durable_seq
            self._drop_mark = (time.monotonic(), durable_seq)
            return Delivery(self.journal.reader(durable_seq), durable_seq)

    def wait(self, delivery: Delivery, timeout_s: float, *, interrupted: Callable[[], bool]) -> bool:
        """Wait until there is something to send and room for it on the way."""
        with self._condition:
            self._condition.wait_for(lambda: interrupted() or self._is_sendable(delivery), timeout_s)
            return not interrupted() and self._is_sendable(delivery)

    def wake(self) -> None:
        """Make waiters look at what interrupts them."""
        with self._condition:
            self._condition.notify_all()

    def next_batch(self, delivery: Delivery) -> list[link_pb2.Envelope]:
        """Return the records that follow in this stream, in order; they count as sent."""
        with self._condition:
            newest = self.journal.last_seq
            records = self._take_unsent(delivery)
        if records is None:
            delivery.reader.skip_through(delivery.cursor)
            records = delivery.reader.read(max_records=BATCH_RECORDS, max_bytes=BATCH_BYTES)
        envelopes = []
        with self._condition:
            for seq, payload in records:
                envelopes.append(link_pb2.Envelope(seq=seq, previous_seq=delivery.cursor, payload=payload))
                delivery.in_flight.append((seq, len(payload)))
                delivery.in_flight_bytes += len(payload)
                delivery.cursor = seq
            if not records:  # all that was left is damaged on this disk, as the journal has said
                delivery.cursor = newest
        return envelopes

    def acknowledge(self, delivery: Delivery, durable_seq: int) -> None:
        """Note that the learner's journal has everything up to `durable_seq`.

        Raises:
            TransportError: That was never sent.
        """
        with self._condition:
            if durable_seq > delivery.cursor:
                raise TransportError(
                    f"The learner acknowledges record {durable_seq}, and {delivery.cursor} is the last one sent: it is not a learner of "
                    "this protocol. Nothing was deleted here."
                )
            while delivery.in_flight and delivery.in_flight[0][0] <= durable_seq:
                delivery.in_flight_bytes -= delivery.in_flight.popleft()[1]
            self._acked_seq = durable_seq
            marked_at, marked_seq = self._drop_mark
            if not self._keep and time.monotonic() - marked_at > _DROP_AFTER_S:
                self.journal.drop_through(marked_seq)
                self._drop_mark = (time.monotonic(), durable_seq)
            self._condition.notify()

    def close(self) -> None:
        """Close the journal; its content goes if the learner has all of it and it is not to be kept."""
        with self._condition:
            if self.is_flushed:
                if not self._keep:
                    self.journal.clear()
            else:
                logger.warning(
                    "Records behind number %d are not acknowledged; they stay in %s and are sent when this actor connects again.",
                    self._acked_seq, self.journal.folder,
                )  # fmt: skip
            self.journal.close()

    def _is_sendable(self, delivery: Delivery) -> bool:
        return (
            delivery.cursor < self.journal.last_seq and len(delivery.in_flight) < WINDOW_RECORDS and delivery.in_flight_bytes < WINDOW_BYTES
        )

    def _take_unsent(self, delivery: Delivery) -> list[tuple[int, bytes]] | None:
        """Return what follows in memory, or None where that is on disk only."""
        while self._unsent and self._unsent[0][0] <= delivery.cursor:
            self._forget_first()
        if not self._unsent or self._unsent[0][1] > delivery.cursor:
            return None
        records: list[tuple[int, bytes]] = []
        size = 0
        while self._unsent and len(records) < BATCH_RECORDS and (not records or size + len(self._unsent[0][2]) <= BATCH_BYTES):
            records.append((self._unsent[0][0], self._unsent[0][2]))
            size += self._forget_first()
        return records

    def _forget_first(self) -> int:
        size = len(self._unsent.popleft()[2])
        self._unsent_bytes -= size
        return size
