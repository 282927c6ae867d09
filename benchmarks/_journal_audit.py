"""Compares what the actors journaled with what the learner did, record by record, by content; reads beside the writers."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hilserl.link import link_pb2
from hilserl.link.journal_format import scan

Stream = str  # 32 hex digits
_HASH_BYTES = 16


@dataclass
class JournalFile:
    """One segment, read as far as it was complete."""

    path: Path
    stream: Stream
    offset: int = 0
    damaged: list[int] = field(default_factory=list)  # offsets of damaged records

    @classmethod
    def of(cls, path: Path) -> JournalFile:
        """Take the stream from the name, `<label>.<stream>.<base>.journal`."""
        return cls(path, path.name.split(".")[-3])

    def read_on(self) -> Iterator[tuple[int, bytes]]:
        """Yield the records (number, payload) that were written since; a half-written last one comes next time."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            end, salt = os.fstat(descriptor).st_size, zlib.crc32(bytes.fromhex(self.stream))
            for seq, payload, behind in scan(descriptor, self.offset, end, salt, self.damaged.append):
                self.offset = behind
                yield seq, payload
        finally:
            os.close(descriptor)

    @property
    def torn_bytes(self) -> int:
        """Bytes behind the last complete record."""
        return self.path.stat().st_size - self.offset


@dataclass
class Evaluation:
    """Episodes of one evaluation, as the learner's journal has them."""

    successes: int = 0
    episodes: int = 0


class JournalAudit:
    """What both sides hold.

    Needs `link.keep_journals: true`, or the actor's acknowledged records are gone before they are compared.

    Args:
        actors: Folder below which the actors' journals are.
        learner: Folder of the learner's journal.

    Attributes:
        sent: By stream, by number: hash of a record in an actor's journal.
        received: The same in the learner's journal.
        twice: Records that the learner's journal holds a second time, or behind a later one.
        steps: Environment steps in the learner's journal.
        evaluations: By the environment steps at which they were made.
        removed: Journal files that went away though they were to be kept.
    """

    def __init__(self, actors: Path, learner: Path) -> None:
        self._actors, self._learner = actors, learner
        self._files: dict[Path, JournalFile] = {}
        self.sent: dict[Stream, dict[int, bytes]] = defaultdict(dict)
        self.received: dict[Stream, dict[int, bytes]] = defaultdict(dict)
        self.twice = 0
        self.steps = 0
        self.evaluations: dict[int, Evaluation] = defaultdict(Evaluation)

    def update(self) -> None:
        """Read on; the actors' first, so that what is in flight counts as missing and never as foreign."""
        for file in self._all(self._actors):
            for seq, payload in file.read_on():
                self.sent[file.stream][seq] = _hash(payload)
        for file in self._all(self._learner):
            for _, payload in file.read_on():
                entry = link_pb2.JournalEntry.FromString(payload)
                stream = self.received[entry.stream_id.hex()]
                self.twice += bool(stream) and entry.seq <= next(reversed(stream))
                stream[entry.seq] = _hash(entry.payload)
                self._note(link_pb2.Record.FromString(entry.payload))

    def missing(self) -> set[tuple[Stream, int]]:
        """Records that an actor journaled and the learner has not."""
        return {(stream, seq) for stream, records in self.sent.items() for seq in records.keys() - self.received[stream].keys()}

    def different(self) -> set[tuple[Stream, int]]:
        """Records of the learner that no actor journaled, or with other content."""
        return {
            (stream, seq)
            for stream, records in self.received.items()
            for seq, content in records.items()
            if self.sent[stream].get(seq) != content
        }

    @property
    def removed(self) -> list[Path]:
        return [path for path in self._files if not path.exists()]

    @property
    def damaged(self) -> int:
        """Records that fail their checksum."""
        return sum(len(file.damaged) for file in self._files.values())

    @property
    def torn_bytes(self) -> int:
        """Bytes of half-written records; while somebody writes, there may be some."""
        return sum(file.torn_bytes for path, file in self._files.items() if path.exists())

    def _note(self, record: link_pb2.Record) -> None:
        if record.WhichOneof("kind") == "step":
            self.steps += 1
        elif record.episode.evaluation:
            evaluation = self.evaluations[record.episode.environment_steps]
            evaluation.episodes += 1
            evaluation.successes += record.episode.is_success

    def _all(self, folder: Path) -> list[JournalFile]:
        found = []
        for path in sorted(folder.rglob("*.journal")):
            file = self._files.setdefault(path, JournalFile.of(path))
            found.append(file)
        return found


def journal_bytes(folder: Path) -> int:
    """Size of all segments below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*.journal"))


def _hash(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_HASH_BYTES).digest()
