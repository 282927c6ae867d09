"""The audit behind benchmarks/chaos.py must see every kind of loss, or its zeros mean nothing."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hilserl.link import EpisodeReport, Journal, Record, Step, link_pb2
from hilserl.link.codec import encode_record

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
spec = importlib.util.spec_from_file_location("_journal_audit", BENCHMARKS / "_journal_audit.py")
audit_module = importlib.util.module_from_spec(spec)
sys.modules["_journal_audit"] = audit_module  # dataclasses look their module up
spec.loader.exec_module(audit_module)


def step(number: int) -> Step:
    return Step(0, number, {"observation.state": np.full(3, number, np.float32)}, np.zeros(2, np.float32), 0.0, False, False, False)


class Sides:
    """An actor's and a learner's journal, filled by hand."""

    def __init__(self, folder: Path) -> None:
        self.actor = Journal(folder / "actors" / "run" / "arm", label="run")
        self.learner = Journal(folder / "learner", label="run")
        self.audit = audit_module.JournalAudit(folder / "actors", folder / "learner")

    def send(self, record: Record) -> tuple[int, bytes]:
        payload = encode_record(record)
        return self.actor.append(payload), payload

    def receive(self, seq: int, payload: bytes) -> None:
        entry = link_pb2.JournalEntry(actor_id="arm", robot_id="arm", stream_id=self.actor.stream_id, seq=seq, payload=payload)
        self.learner.append(entry.SerializeToString())


@pytest.fixture
def sides(tmp_path) -> Iterator[Sides]:
    sides = Sides(tmp_path)
    yield sides
    sides.actor.close()
    sides.learner.close()


def test_equal_journals_are_equal_and_evaluations_are_found(sides) -> None:
    for number in range(5):
        sides.receive(*sides.send(step(number)))
    for success in (True, False):
        sides.receive(*sides.send(EpisodeReport(0, 1.0, 5, success, 0, 1.0, True, 1, 500)))
    sides.audit.update()
    audit = sides.audit
    assert (audit.missing(), audit.different(), audit.twice, audit.damaged, audit.torn_bytes, audit.steps) == (set(), set(), 0, 0, 0, 5)
    assert [(at, seen.successes, seen.episodes) for at, seen in audit.evaluations.items()] == [(500, 1, 2)]


@pytest.mark.failure("R16")
def test_a_record_on_its_way_is_missing_until_it_arrives(sides) -> None:
    sides.receive(*sides.send(step(0)))
    late = sides.send(step(1))
    sides.audit.update()
    assert sides.audit.missing() == {(sides.actor.stream_id.hex(), late[0])}
    sides.receive(*late)
    sides.audit.update()
    assert not sides.audit.missing()


def test_altered_foreign_doubled_and_reordered_records_are_seen(sides) -> None:
    seqs = [sides.send(step(number)) for number in range(3)]
    sides.receive(*seqs[0])
    sides.receive(seqs[1][0], encode_record(step(99)))  # altered
    sides.receive(*seqs[2])
    sides.receive(*seqs[2])  # doubled
    sides.receive(*seqs[0])  # behind a later one
    sides.receive(77, encode_record(step(0)))  # foreign
    sides.audit.update()
    stream = sides.actor.stream_id.hex()
    assert sides.audit.different() == {(stream, seqs[1][0]), (stream, 77)}
    assert sides.audit.twice == 2


def test_damage_and_a_torn_end_are_seen(sides, tmp_path) -> None:
    for number in range(3):
        sides.receive(*sides.send(step(number)))
    (file,) = (tmp_path / "learner").glob("*.journal")
    data = bytearray(file.read_bytes())
    data[30] ^= 1  # in the first record's payload
    file.write_bytes(bytes(data) + b"half a record")
    sides.audit.update()
    assert sides.audit.damaged == 1 and sides.audit.torn_bytes == len(b"half a record")
    assert len(sides.audit.missing()) == 1


def test_a_journal_that_goes_away_is_named(sides) -> None:
    sides.receive(*sides.send(step(0)))
    sides.audit.update()
    sides.actor.clear()
    sides.audit.update()
    assert [path.parent.name for path in sides.audit.removed] == ["arm"]
