"""Every record exactly once: into the learner's journal, then onto a bounded queue.

The journal is the truth: what it holds is acknowledged, and a restarted learner reads it back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.codec import decode_record, parse
from hilserl.link.journal import Journal
from hilserl.link.messages import Record


@dataclass(frozen=True)
class ReceivedRecord:
    """One record in the learner's hands.

    Attributes:
        log_seq: Its place in the learner's journal; a checkpoint keeps the last one it covers.
        actor_id: Who sent it.
        robot_id: On which robot it happened.
        seq: Its number in the actor's own stream.
        record: What it says; its arrays are read-only.
    """

    log_seq: int
    actor_id: str
    robot_id: str
    seq: int
    record: Record


class Ingest:
    """Journal, de-duplication and queue of the learner's side.

    Args:
        folder: Where the journal is.
        label: The run that the journal belongs to.
        max_records: The queue takes no more when it holds this many.
        max_bytes: Nor when it holds this many bytes of records.
    """

    def __init__(self, folder: Path, *, label: str, max_records: int, max_bytes: int) -> None:
        self._journal = Journal(folder, label=label)
        self._max_records, self._max_bytes = max_records, max_bytes
        self._lock = threading.Lock()
        self._arrived, self._has_room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._queue: deque[ReceivedRecord] = deque()
        self._queued_bytes = 0
        self._failure: Exception | None = None
        self._durable: dict[tuple[str, bytes], int] = {}
        for _, payload in self._journal.records():
            entry = parse(link_pb2.JournalEntry, payload)
            self._durable[entry.actor_id, entry.stream_id] = entry.seq
        self._recovered_seq = self._journal.last_seq

    def durable_seq(self, actor_id: str, stream_id: bytes) -> int:
        """Return the number up to which this stream is in the journal."""
        with self._lock:
            return self._durable.get((actor_id, stream_id), 0)

    def offer(
        self, actor_id: str, robot_id: str, stream_id: bytes, batch: Sequence[tuple[link_pb2.Envelope, Record]], *, timeout_s: float
    ) -> bool:
        """Journal and queue the records not seen before; False while there is no room.

        Raises:
            TransportError: A record does not follow the last one: something was lost or reordered.
            CacheError: The disk is full; the learner's next `take` raises it too.
        """
        with self._lock:
            if not self._has_room.wait_for(self._room, timeout_s):
                return False
            durable = self._durable.get((actor_id, stream_id), 0)
            fresh: list[tuple[link_pb2.Envelope, Record]] = []
            for envelope, record in batch:
                if envelope.seq <= durable:
                    continue
                if envelope.previous_seq != durable:
                    raise TransportError(
                        f"record {envelope.seq} of actor `{actor_id}` follows {envelope.previous_seq}, the last one here is {durable}"
                    )
                fresh.append((envelope, record))
                durable = envelope.seq
            entries = [
                link_pb2.JournalEntry(
                    actor_id=actor_id, robot_id=robot_id, stream_id=stream_id, seq=envelope.seq, payload=envelope.payload
                ).SerializeToString()
                for envelope, _ in fresh
            ]
            try:
                log_seqs = self._journal.append_many(entries)
            except Exception as error:
                self._failure = error
                self._arrived.notify_all()
                raise
            self._durable[actor_id, stream_id] = durable
            for log_seq, (envelope, record) in zip(log_seqs, fresh, strict=True):
                self._queue.append(ReceivedRecord(log_seq, actor_id, robot_id, envelope.seq, record))
                self._queued_bytes += len(envelope.payload)
            self._arrived.notify_all()
            return True

    def _room(self) -> bool:
        return len(self._queue) < self._max_records and self._queued_bytes < self._max_bytes

    def take(self, timeout_s: float) -> list[ReceivedRecord]:
        """Return all that is queued, waiting up to `timeout_s` for the first.

        Raises:
            Exception: What stopped the journal, such as a full disk.
        """
        with self._lock:
            self._arrived.wait_for(lambda: self._queue or self._failure is not None, timeout_s)
            if self._failure is not None:
                raise self._failure
            records = list(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            self._has_room.notify_all()
            return records

    def replay(self, after: int) -> Iterator[ReceivedRecord]:
        """Yield what the journal held when it was opened, behind place `after`."""
        for log_seq, payload in self._journal.records(after, self._recovered_seq):
            entry = parse(link_pb2.JournalEntry, payload)
            yield ReceivedRecord(log_seq, entry.actor_id, entry.robot_id, entry.seq, decode_record(entry.payload))

    def close(self) -> None:
        """Sync and close the journal."""
        self._journal.close()
