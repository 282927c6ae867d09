"""What the actor keeps, sends and forgets, without a network."""

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from hilserl.errors import TransportError
from hilserl.link import outbox as module
from hilserl.link.journal import Journal
from hilserl.link.outbox import Delivery, Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(Journal(tmp_path, label="run", segment_bytes=1000))
    yield box
    box.journal.close()


def send_all(outbox: Outbox, delivery: Delivery) -> list[tuple[int, int, bytes]]:
    """Send and acknowledge until nothing is left; returns (previous, seq, payload)."""
    sent = []
    while outbox.wait(delivery, 0, interrupted=lambda: False):
        for envelope in outbox.next_batch(delivery):
            sent.append((envelope.previous_seq, envelope.seq, envelope.payload))
        outbox.acknowledge(delivery, delivery.cursor)
    return sent


def test_records_follow_each_other_from_where_the_learner_stands(outbox: Outbox) -> None:
    for number in range(1, 6):
        outbox.add(b"%d" % number)
    assert send_all(outbox, outbox.begin(2)) == [(2, 3, b"3"), (3, 4, b"4"), (4, 5, b"5")]
    assert outbox.is_flushed


def test_a_new_stream_sends_again_what_was_not_acknowledged(outbox: Outbox) -> None:
    for _ in range(5):
        outbox.add(b"r")
    first = outbox.begin(0)
    outbox.next_batch(first)
    outbox.acknowledge(first, 2)
    assert not outbox.is_flushed
    assert [seq for _, seq, _ in send_all(outbox, outbox.begin(3))] == [4, 5]  # the ack of 3 was lost on the way


@pytest.mark.failure("R16")
def test_a_learner_that_is_away_costs_disk_and_not_memory(tmp_path: Path) -> None:
    outbox = Outbox(Journal(tmp_path, label="run"))
    payload_bytes, count = 21_000, 3000  # 63 MB
    tracemalloc.start()
    for number in range(count):
        outbox.add(number.to_bytes(4, "big") + bytes(payload_bytes))
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    delivery = outbox.begin(0)
    received = []
    while outbox.wait(delivery, 0, interrupted=lambda: False):
        received += [int.from_bytes(envelope.payload[:4], "big") for envelope in outbox.next_batch(delivery)]
        outbox.acknowledge(delivery, delivery.cursor)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert received == list(range(count))
    outbox.close()


@pytest.mark.failure("R16")
def test_what_is_on_its_way_is_bounded(outbox: Outbox) -> None:
    for _ in range(module.WINDOW_RECORDS + 500):
        outbox.add(b"r")
    delivery = outbox.begin(0)
    while outbox.wait(delivery, 0, interrupted=lambda: False):
        outbox.next_batch(delivery)
    assert module.WINDOW_RECORDS <= delivery.cursor < module.WINDOW_RECORDS + module.BATCH_RECORDS
    outbox.acknowledge(delivery, 10)
    assert not outbox.wait(delivery, 0, interrupted=lambda: False) or delivery.in_flight[0][0] == 11


def test_batches_are_bounded_in_bytes_from_memory_and_from_disk(outbox: Outbox) -> None:
    for _ in range(6):
        outbox.add(bytes(400_000))
    assert [len(outbox.next_batch(delivery)) for delivery in [outbox.begin(0)] for _ in range(3)] == [2, 2, 2]  # memory
    assert [len(outbox.next_batch(delivery)) for delivery in [outbox.begin(0)] for _ in range(3)] == [2, 2, 2]  # disk


def test_a_record_damaged_on_this_disk_does_not_stop_the_others(outbox: Outbox, tmp_path: Path) -> None:
    for number in range(3):
        outbox.add(b"record %d" % number)
    outbox.next_batch(outbox.begin(0))  # out of memory: a new stream reads the disk
    (segment,) = tmp_path.glob("*.journal")
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"record 1", b"record X"))
    assert send_all(outbox, outbox.begin(0)) == [(0, 1, b"record 0"), (1, 3, b"record 2")]
    segment.write_bytes(data.replace(b"record 2", b"record X"))
    assert [seq for _, seq, _ in send_all(outbox, outbox.begin(0))] == [1, 2]  # ends, rather than turning in a loop


def test_the_journal_goes_when_all_is_acknowledged_and_stays_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(Journal(tmp_path, label="run"))
    outbox.add(b"one")
    outbox.close()
    assert "not acknowledged; they stay in" in caplog.text
    outbox = Outbox(Journal(tmp_path, label="run"))
    send_all(outbox, outbox.begin(0))
    outbox.close()
    caplog.clear()
    outbox = Outbox(Journal(tmp_path, label="run"))
    assert outbox.is_flushed
    outbox.close()
    assert caplog.text == ""
    with Journal(tmp_path, label="run") as journal:
        assert list(journal.records()) == [] and journal.last_seq == 1


def test_an_older_copy_of_the_journal_is_noticed(outbox: Outbox) -> None:
    """Its numbers would be taken for duplicates and dropped in silence."""
    outbox.add(b"r")
    with pytest.raises(TransportError, match="the learner has records up to 5 of this journal, which ends at 1"):
        outbox.begin(5)


def test_acknowledged_segments_go_while_running(outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DROP_AFTER_S", 0.0)
    delivery = outbox.begin(0)
    for _ in range(100):
        outbox.add(bytes(500))
        outbox.next_batch(delivery)
        outbox.acknowledge(delivery, delivery.cursor)
    assert len(list(tmp_path.glob("*.journal"))) < 5


def test_a_learner_that_lost_acknowledged_records_is_reported(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        outbox.add(bytes(500))
    outbox.journal.drop_through(9)
    with caplog.at_level(logging.ERROR):
        outbox.begin(0)
    assert "The learner lost them" in caplog.text
