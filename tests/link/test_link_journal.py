import errno
import itertools
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilserl.errors import CacheError, TransportError
from hilserl.link.journal import Journal
from hilserl.link.journal_format import HEADER_BYTES

PAYLOADS = [b"first", b"", b"third record", b"4" * 40]


def write(folder: Path, payloads: list[bytes] = PAYLOADS) -> Path:
    """Write a journal and return its only segment."""
    with Journal(folder, label="run") as journal:
        journal.append_many(payloads)
    (segment,) = folder.glob("*.journal")
    return segment


def read(folder: Path, after: int = 0) -> list[tuple[int, bytes]]:
    with Journal(folder, label="run") as journal:
        return list(journal.records(after))


def test_records_come_back_in_order_after_reopening(tmp_path: Path) -> None:
    with Journal(tmp_path, label="run") as journal:
        assert [journal.append(payload) for payload in PAYLOADS] == [1, 2, 3, 4]
        assert list(journal.records()) == list(enumerate(PAYLOADS, 1))
    with Journal(tmp_path, label="run") as journal:
        assert journal.last_seq == 4
        assert journal.append(b"fifth") == 5
        assert list(journal.records(after=3)) == [(4, PAYLOADS[3]), (5, b"fifth")]
        assert list(journal.records(after=1, through=2)) == [(2, b"")]


def test_identity_stays_and_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """A power cut may take the last second's records off the disk after the learner got them."""
    with Journal(tmp_path, label="run", reopen_gap=100) as journal:
        identity = journal.stream_id
        journal.append_many([b"a", b"b", b"c"])
    (segment,) = tmp_path.glob("*.journal")
    os.truncate(segment, HEADER_BYTES + 1)
    with Journal(tmp_path, label="run", reopen_gap=100) as journal:
        assert journal.stream_id == identity
        assert journal.append(b"d") == 102


def test_every_torn_tail_loses_only_the_torn_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = write(tmp_path).read_bytes()
    (segment,) = tmp_path.glob("*.journal")
    last_record = len(whole) - HEADER_BYTES - len(PAYLOADS[3])
    for size in range(last_record + 1, len(whole)):
        segment.write_bytes(whole[:size])
        caplog.clear()
        with caplog.at_level(logging.WARNING), Journal(tmp_path, label="run") as journal:
            assert f"the last {size - last_record} bytes are a torn record" in caplog.text
            assert journal.last_seq == 3
            assert journal.append(b"after the tear") == 4
            assert list(journal.records()) == [*enumerate(PAYLOADS[:3], 1), (4, b"after the tear")]


def test_every_flipped_byte_loses_only_its_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment = write(tmp_path)
    whole = segment.read_bytes()
    third = 2 * HEADER_BYTES + len(PAYLOADS[0])
    for position in range(third, third + HEADER_BYTES + len(PAYLOADS[2])):
        segment.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        caplog.clear()
        with Journal(tmp_path, label="run") as journal:
            assert list(journal.records()) == [(1, PAYLOADS[0]), (2, PAYLOADS[1]), (4, PAYLOADS[3])]
            assert journal.damaged_records == 1
            assert "behind record 2, is damaged" in caplog.text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=60)), max_size=3), cut=st.integers(0, 200))
def test_no_damage_yields_a_record_that_was_never_written(tmp_path: Path, damage: list[tuple[int, bytes]], cut: int) -> None:
    for path in tmp_path.glob("*.journal"):
        path.unlink()
    segment = write(tmp_path)
    data = bytearray(segment.read_bytes())
    for position, junk in damage:
        position %= len(data)
        data[position : position + len(junk)] = junk
    segment.write_bytes(data[: len(data) - cut] if cut < 100 else data)
    with Journal(tmp_path, label="run") as journal:
        assert set(journal.records()) <= set(enumerate(PAYLOADS, 1))
        new = journal.append(b"new")
        assert list(journal.records())[-1] == (new, b"new")


def test_a_record_inside_a_payload_is_not_taken_for_one(tmp_path: Path) -> None:
    """Damage in front of a payload that holds another journal's bytes."""
    inner = write(tmp_path / "inner", [b"inner"]).read_bytes()
    segment = write(tmp_path / "outer", [inner, b"last"])
    data = bytearray(segment.read_bytes())
    data[0] ^= 1
    segment.write_bytes(data)
    assert read(tmp_path / "outer") == [(2, b"last")]


def test_segments_rotate_and_the_acknowledged_ones_are_dropped(tmp_path: Path) -> None:
    with Journal(tmp_path, label="run", segment_bytes=100) as journal:
        for number in range(1, 21):
            journal.append(b"%02d" % number * 20)
        assert len(list(tmp_path.glob("*.journal"))) == 10
        assert [seq for seq, _ in journal.records(after=7)] == list(range(8, 21))
        reader = journal.reader(after=2)
        assert [seq for seq, _ in reader.read(max_records=3)] == [3, 4, 5]
        journal.drop_through(11)
        assert len(list(tmp_path.glob("*.journal"))) == 5
        assert journal.first_base == 10
        assert [seq for seq, _ in reader.read()] == list(range(11, 21))
        reader.close()
        assert [seq for seq, _ in journal.records()] == list(range(11, 21))
    assert [seq for seq, _ in read(tmp_path, after=15)] == [16, 17, 18, 19, 20]


def test_clearing_keeps_the_numbering(tmp_path: Path) -> None:
    with Journal(tmp_path, label="run") as journal:
        journal.append_many(PAYLOADS)
        journal.clear()
        journal.clear()
        assert list(journal.records()) == []
    with Journal(tmp_path, label="run") as journal:
        assert (journal.last_seq, journal.append(b"next")) == (4, 5)
        assert [path.stat().st_size for path in tmp_path.glob("*.journal")] == [HEADER_BYTES + 4]


def test_a_reader_follows_what_is_appended_within_its_limits(tmp_path: Path) -> None:
    with Journal(tmp_path, label="run") as journal:
        reader = journal.reader()
        assert reader.read() == []
        journal.append_many([b"x" * 10] * 5)
        assert [seq for seq, _ in reader.read(max_bytes=25)] == [1, 2]
        assert [seq for seq, _ in reader.read(max_bytes=5)] == [3]  # at least one
        journal.append(b"y")
        reader.skip_through(4)
        assert [seq for seq, _ in reader.read()] == [5, 6]
        reader.close()


def test_records_larger_than_the_read_buffer(tmp_path: Path) -> None:
    payloads = [os.urandom(size) for size in (3 << 20, 10, (1 << 20) - HEADER_BYTES + 1, 700_000, 700_000)]
    write(tmp_path, payloads)
    assert read(tmp_path) == list(enumerate(payloads, 1))
    assert read(tmp_path, after=3) == list(enumerate(payloads, 1))[3:]


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path, label="run"), pytest.raises(TransportError, match="in use by another process"):
        Journal(tmp_path, label="run")
    Journal(tmp_path, label="run").close()


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(TransportError, match="is not a journal of 'other-run'"):
        Journal(tmp_path, label="other-run")
    assert len(read(tmp_path)) == 4  # and its lock was released


def failing_writev(error: OSError, after_bytes: int) -> Callable[[int, list[bytes]], int]:
    def writev(descriptor: int, parts: list[bytes]) -> int:
        os.write(descriptor, b"".join(parts)[:after_bytes])
        raise error

    return writev


def test_a_full_disk_is_told_and_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path, label="run") as journal:
        journal.append(b"before")
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", failing_writev(OSError(errno.ENOSPC, "No space left on device"), 10))
            with pytest.raises(CacheError, match="disk is full"):
                journal.append(b"does not fit")
        assert journal.append(b"after") == 2
        assert list(journal.records()) == [(1, b"before"), (2, b"after")]
    assert read(tmp_path) == [(1, b"before"), (2, b"after")]


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path, label="run") as journal:
        monkeypatch.setattr(os, "writev", lambda descriptor, parts: os.write(descriptor, b"".join(parts)[:7]))
        journal.append_many(PAYLOADS)
        assert list(journal.records()) == list(enumerate(PAYLOADS, 1))


def test_a_failed_sync_reaches_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread beside does not die alone."""
    journal = Journal(tmp_path, label="run")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        journal.append(b"one")
        with pytest.raises(OSError, match="Input/output error"):
            for _ in range(200):
                journal.append(b"more")
                time.sleep(0.01)
    journal.close()


def test_what_is_appended_is_synced_within_a_second_and_not_in_the_writers_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, label="run")
    (segment,) = tmp_path.glob("*.journal")
    synced_sizes: list[tuple[float, int]] = []
    real_fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        time.sleep(0.05)
        synced_sizes.append((time.monotonic(), os.fstat(descriptor).st_size))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    start = time.monotonic()
    slowest = 0.0
    for _ in range(60):
        before = time.monotonic()
        journal.append(b"x" * 100)
        slowest = max(slowest, time.monotonic() - before)
        time.sleep(0.01)
    appended_at, size = time.monotonic(), segment.stat().st_size
    time.sleep(1.0)
    times = [start, *(moment for moment, _ in synced_sizes)]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1.0
    assert any(synced == size and moment < appended_at + 1.0 for moment, synced in synced_sizes)
    assert slowest < 0.05
    journal.close()


def test_a_killed_writer_loses_nothing_that_append_returned_for(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hilserl.link.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), label='run')\n"
        "while True: print(journal.append(b'r' * 5000), flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        for line in writer.stdout:
            if int(line) >= 300:
                break
        writer.kill()
        returned = [int(line) for line in writer.stdout if line.endswith("\n")] or [300]
    kept = [seq for seq, _ in read(tmp_path)]
    assert kept[: returned[-1]] == list(range(1, returned[-1] + 1))
