"""Every record exactly once: into the learner's journal, then onto a bounded queue.

The journal is the truth: what it holds is acknowledged, and a restarted learner reads it back. What the
checkpoints cover is dropped from it; how far each actor's stream had come by then stays beside it, twice.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilserl.errors import TransportError
from hilserl.files import canonical_json, is_disk_full, write_json
from hilserl.link import link_pb2
from hilserl.link.codec import decode_record, parse
from hilserl.link.journal import Journal
from hilserl.link.limits import MAX_COUNT, MAX_JOURNALS
from hilserl.link.messages import Record

logger = logging.getLogger(__name__)

_STREAMS = ("streams.json", "streams.copy.json")
_DISK_RETRY_S = 0.5
DISK_GIVE_UP_S = 600.0

Streams = dict[tuple[str, bytes], int]


@dataclass(frozen=True)
class LinkLoad:
    """How much waits between the actors and the learner's loop.

    Attributes:
        queued_records: Received and not taken in.
        queued_bytes: Of them.
        backpressure_s: Time that streams were held up because the queue was full, all together since the start [s].
        lag_s: Longest that a record waited between its arrival and being taken in, since this was last asked [s].
        is_disk_full: Nothing can be acknowledged at present, because the learner's disk is full.
    """

    queued_records: int = 0
    queued_bytes: int = 0
    backpressure_s: float = 0.0
    lag_s: float = 0.0
    is_disk_full: bool = False


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
        segment_bytes: Size of the journal's files; what is dropped is dropped by whole files.
    """

    def __init__(self, folder: Path, *, label: str, max_records: int, max_bytes: int, segment_bytes: int = 64 << 20) -> None:
        self._journal = Journal(folder, label=label, segment_bytes=segment_bytes)
        self._max_records, self._max_bytes = max_records, max_bytes
        self._lock = threading.Lock()
        self._arrived, self._has_room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._queue: deque[ReceivedRecord] = deque()
        self._queued_bytes = 0
        self._failure: Exception | None = None
        self._oldest_arrival, self._lag_s, self._backpressure_s = 0.0, 0.0, 0.0
        self._full_since: float | None = None
        self._durable = _read_streams(folder)
        for _, payload in self._journal.records():
            entry = parse(link_pb2.JournalEntry, payload)
            stream = entry.actor_id, entry.stream_id
            self._durable[stream] = max(entry.seq, self._durable.get(stream, 0))
        self._recovered_seq = self._journal.last_seq

    def durable_seq(self, actor_id: str, stream_id: bytes) -> int:
        """Return the number up to which this stream is in the journal."""
        with self._lock:
            return self._durable.get((actor_id, stream_id), 0)

    def offer(
        self, actor_id: str, robot_id: str, stream_id: bytes, batch: Sequence[tuple[link_pb2.Envelope, Record]], *, timeout_s: float
    ) -> bool:
        """Journal and queue the records not seen before; False while there is no room, in memory or on the disk.

        Raises:
            TransportError: A record does not follow the last one: something was lost or reordered.
            CacheError: The disk has been full for `DISK_GIVE_UP_S`; the learner's next `take` raises it too.
        """
        with self._lock:
            if not self._wait_for_room(timeout_s):
                return False
            durable = self._durable.get((actor_id, stream_id), 0)
            if not durable and batch and len(self._durable) >= MAX_JOURNALS:  # forgetting one could apply its records twice
                raise TransportError(f"records of {MAX_JOURNALS} actors' journals came in this run, the most that one run takes")
            fresh: list[tuple[link_pb2.Envelope, Record]] = []
            for envelope, record in batch:
                if envelope.seq <= durable:
                    continue
                if envelope.previous_seq != durable or envelope.seq > MAX_COUNT:
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
                if self._may_wait_for_disk(error):
                    self._has_room.wait(min(timeout_s, _DISK_RETRY_S))
                    return False
                self._failure = error
                self._arrived.notify_all()
                raise
            if self._full_since is not None:
                self._full_since = None
                logger.warning("%s can be written again; the actors' records are taken in", self._journal.folder)
            if fresh:
                self._durable[actor_id, stream_id] = durable
            if not self._queue:
                self._oldest_arrival = time.monotonic()
            for log_seq, (envelope, record) in zip(log_seqs, fresh, strict=True):
                self._queue.append(ReceivedRecord(log_seq, actor_id, robot_id, envelope.seq, record))
                self._queued_bytes += len(envelope.payload)
            self._arrived.notify_all()
            return True

    def _wait_for_room(self, timeout_s: float) -> bool:
        if self._room():
            return True
        began = time.monotonic()
        try:
            return self._has_room.wait_for(self._room, timeout_s)
        finally:
            self._backpressure_s += time.monotonic() - began

    def _may_wait_for_disk(self, error: Exception) -> bool:
        """Whether this is a full disk, on which room may be made: nothing is acknowledged meanwhile, so nothing is lost."""
        if not is_disk_full(error):
            return False
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
            logger.error(
                "%s: the disk is full. Nothing is acknowledged until there is room; what the actors send waits in their journals, "
                "and the training goes on by itself when there is. It stops in %.0f s if there is none.",
                self._journal.folder, DISK_GIVE_UP_S,
            )  # fmt: skip
        return now - self._full_since < DISK_GIVE_UP_S

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
            if records:
                self._lag_s = max(self._lag_s, time.monotonic() - self._oldest_arrival)
            self._queue.clear()
            self._queued_bytes = 0
            self._has_room.notify_all()
            return records

    def replay(self, after: int) -> Iterator[ReceivedRecord]:
        """Yield what the journal held when it was opened, behind place `after`, up to which the caller has everything."""
        self._journal.number_above(after)
        return self._replay(after)

    def _replay(self, after: int) -> Iterator[ReceivedRecord]:
        for log_seq, payload in self._journal.records(after, self._recovered_seq):
            entry = parse(link_pb2.JournalEntry, payload)
            yield ReceivedRecord(log_seq, entry.actor_id, entry.robot_id, entry.seq, decode_record(entry.payload))

    def load(self) -> LinkLoad:
        """Return how much waits, and begin to look for the longest lag anew."""
        with self._lock:
            lag_s, self._lag_s = self._lag_s, 0.0
            if self._queue:
                lag_s = max(lag_s, time.monotonic() - self._oldest_arrival)
            return LinkLoad(len(self._queue), self._queued_bytes, self._backpressure_s, lag_s, self._full_since is not None)

    def sync(self) -> None:
        """Make everything acknowledged survive a power cut; may be called from any thread."""
        self._journal.sync()

    def drop_through(self, log_seq: int) -> None:
        """Delete the journal's files that hold nothing behind place `log_seq`; may be called from any thread.

        Raises:
            CacheError: The disk is full; nothing was deleted.
        """
        if not self._journal.can_drop_through(log_seq):
            return
        with self._lock:
            streams = dict(self._durable)
        self._journal.sync()  # what the table says is there must be there when only the table is left
        _write_streams(self._journal.folder, streams)
        self._journal.drop_through(log_seq)

    def close(self) -> None:
        """Sync and close the journal."""
        self._journal.close()


def _write_streams(folder: Path, streams: Streams) -> None:
    rows = sorted([actor_id, stream_id.hex(), seq] for (actor_id, stream_id), seq in streams.items())
    for name in _STREAMS:
        write_json(folder / name, {"streams": rows, "crc32": zlib.crc32(canonical_json(rows).encode())})


def _read_streams(folder: Path) -> Streams:
    """Read how far each stream had come when the journal was last cut; of two copies the one that is whole."""
    damaged = []
    for name in _STREAMS:
        try:
            content = json.loads((folder / name).read_text())
            if content["crc32"] == zlib.crc32(canonical_json(content["streams"]).encode()):
                return {(actor_id, bytes.fromhex(stream_id)): seq for actor_id, stream_id, seq in content["streams"]}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            pass
        damaged.append(folder / name)
    if damaged:
        logger.error(
            "%s are damaged: of actors whose records are no longer in the journal it is not known how many came. Check this disk.",
            " and ".join(map(str, damaged)),
        )
    return {}
