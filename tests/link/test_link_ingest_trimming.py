"""The learner's journal, cut behind the checkpoints: still every record once, whoever dies, whatever the disk does."""

import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_testing import free_port, make_client, make_server, make_step, process, receive, wait_until

from hilserl.errors import CacheError, TransportError
from hilserl.link import ingest as module
from hilserl.link import link_pb2
from hilserl.link.codec import encode_record
from hilserl.link.ingest import Ingest
from hilserl.link.journal_format import HEADER_BYTES

ACTORS = ("a", "b", "c")
SEGMENT_BYTES = 2000


def open_ingest(folder: Path, label: str = "run", **limits: int) -> Ingest:
    return Ingest(folder, label=label, **{"max_records": 10_000, "max_bytes": 1 << 30, "segment_bytes": SEGMENT_BYTES} | limits)


def stream(actor: str) -> bytes:
    return actor.encode() * 16


def batch(first: int, count: int) -> list[tuple[link_pb2.Envelope, object]]:
    """Records `first` to `first + count - 1` of an actor's stream."""
    steps = [(seq, make_step(seq, image_px=1)) for seq in range(first, first + count)]
    return [(link_pb2.Envelope(seq=seq, previous_seq=seq - 1, payload=encode_record(step)), step) for seq, step in steps]


def offer(ingest: Ingest, actor: str, first: int, count: int) -> bool:
    return ingest.offer(actor, f"robot-{actor}", stream(actor), batch(first, count), timeout_s=0)


class Killed(BaseException):
    """Stands for SIGKILL at this place."""


def cut_and_die(ingest: Ingest, through: int, place: str, keep_disk: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Cut the journal, and be killed at a place of it; `keep_disk` copies what is on the disk then."""
    drop = ingest._journal.drop_through

    def die(*args: object) -> None:
        keep_disk()
        raise Killed

    def die_amid(seq: int) -> None:
        drop(ingest._journal._segments[1].base)  # one file is gone, others are not
        die()

    if place == "before":
        patch.setattr(module, "_write_streams", die)
    elif place in ("between", "amid"):
        patch.setattr(ingest._journal, "drop_through", die if place == "between" else die_amid)
    try:
        ingest.drop_through(through)
        keep_disk()
    except Killed:
        pass


@pytest.mark.failure("R16")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_every_record_once_across_cuts_and_kills_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A life of offers, repeated offers, cuts and kills; the disk as it was at the kill is what the next process finds."""
    choose = random.Random(seed)
    folder = tmp_path / f"{seed}-{os.urandom(4).hex()}"
    ingest = open_ingest(folder)
    acknowledged = dict.fromkeys(ACTORS, 0)
    taken: list[tuple[str, int]] = []
    covered = 0  # what the oldest checkpoint covers, in the journal's numbers
    numbers: list[tuple[str, int]] = []
    for life in range(4):
        for _ in range(choose.randint(3, 12)):
            actor = choose.choice(ACTORS)
            first = max(1, acknowledged[actor] + 1 - choose.choice([0, 0, 0, 3, 40]))  # it may repeat what was acknowledged
            count = acknowledged[actor] + choose.randint(1, 12) - first + 1
            assert offer(ingest, actor, first, count)
            new = range(acknowledged[actor] + 1, first + count)
            numbers += [(actor, seq) for seq in new]
            acknowledged[actor] = first + count - 1
            taken += [(received.actor_id, received.seq) for received in ingest.take(0)]
            if choose.random() < 0.5:
                covered = choose.randint(covered, len(numbers))
                ingest.drop_through(covered)
        covered = choose.randint(covered, len(numbers))
        disk = folder.with_name(f"{folder.name}-{life}")
        with monkeypatch.context() as patch:
            keep_disk = partial(shutil.copytree, folder, disk)
            cut_and_die(ingest, covered, choose.choice(["before", "between", "amid", "after"]), keep_disk, patch)
        ingest.close()
        shutil.rmtree(folder)
        folder = disk
        ingest = open_ingest(folder)
        for actor in ACTORS:
            assert ingest.durable_seq(actor, stream(actor)) == acknowledged[actor]
        replayed = [(received.log_seq, (received.actor_id, received.seq)) for received in ingest.replay(covered)]
        assert replayed == [(place, numbers[place - 1]) for place in range(covered + 1, len(numbers) + 1)]
    assert taken == numbers
    ingest.close()
    shutil.rmtree(folder)


def test_a_long_run_keeps_the_disk_flat(tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path)
    sizes = []
    for number in range(120):
        assert offer(ingest, "a", 10 * number + 1, 10)
        ingest.take(0)
        ingest.drop_through(10 * number - 50)
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    assert max(sizes[20:]) < 5 * SEGMENT_BYTES + 60 * 300
    assert max(sizes[100:]) <= max(sizes[20:60]) + SEGMENT_BYTES
    ingest.close()


@pytest.mark.parametrize("damaged", [[0], [1], [0, 1]])
def test_the_table_of_streams_is_kept_twice(tmp_path: Path, damaged: list[int], caplog: pytest.LogCaptureFixture) -> None:
    ingest = open_ingest(tmp_path)
    for actor in ACTORS:
        assert offer(ingest, actor, 1, 30)
    ingest.drop_through(90)
    ingest.close()
    for number in damaged:
        file = tmp_path / module._STREAMS[number]
        data = bytearray(file.read_bytes())
        data[data.index(b"30")] ^= 1
        file.write_bytes(data)
    ingest = open_ingest(tmp_path)
    held = [ingest.durable_seq(actor, stream(actor)) for actor in ACTORS]
    assert held[2] == 30 and (held == [30, 30, 30]) == (len(damaged) < 2)
    assert ("are damaged" in caplog.text) == (len(damaged) == 2)
    ingest.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), max_size=5), cut=st.integers(0, 400))
def test_a_damaged_journal_gives_back_only_what_was_written_in_order(tmp_path: Path, damage: list[tuple[float, int]], cut: int) -> None:
    folder = tmp_path / os.urandom(8).hex()
    ingest = open_ingest(folder, segment_bytes=1 << 20)
    for first in range(1, 61, 3):
        for actor in ACTORS:
            assert offer(ingest, actor, first, 3)
    written = {received.log_seq: (received.actor_id, received.seq, received.record.reward) for received in ingest.take(0)}
    ingest.close()
    (segment,) = folder.glob("*.journal")
    data = bytearray(segment.read_bytes())
    for place, bits in damage:
        data[int(place * len(data))] ^= bits
    segment.write_bytes(data[: len(data) - cut])
    ingest = open_ingest(folder, segment_bytes=1 << 20)
    found = [(received.log_seq, (received.actor_id, received.seq, received.record.reward)) for received in ingest.replay(0)]
    assert found == [(place, written[place]) for place in sorted(dict(found))]
    assert len(found) >= 180 - len(damage) - cut // HEADER_BYTES - 1
    assert ingest._journal.damaged_records <= 2 * len(damage) + 2
    for actor in ACTORS:  # each goes on behind what is there
        durable = ingest.durable_seq(actor, stream(actor))
        assert offer(ingest, actor, durable + 1, 2)
    ingest.close()
    shutil.rmtree(folder)


def test_a_number_that_a_checkpoint_covers_is_not_given_to_another_record(tmp_path: Path) -> None:
    """A disk that loses the journal's end, such as by a flipped bit, after a checkpoint that covers it."""
    ingest = open_ingest(tmp_path)
    assert offer(ingest, "a", 1, 9)
    ingest.close()
    segment = sorted(tmp_path.glob("*.journal"))[-1]
    os.truncate(segment, segment.stat().st_size - 5)
    ingest = open_ingest(tmp_path)
    assert list(ingest.replay(9)) == []
    assert ingest.durable_seq("a", stream("a")) == 8
    assert offer(ingest, "a", 9, 2)
    assert [received.log_seq for received in ingest.take(0)] == [10, 11]
    ingest.close()
    assert [received.seq for received in open_and_replay(tmp_path, 9)] == [9, 10]


def open_and_replay(folder: Path, after: int) -> list:
    ingest = open_ingest(folder)
    try:
        return list(ingest.replay(after))
    finally:
        ingest.close()


# -------------------------------------------------------------------------------------- full disk


def full(descriptor: int, parts: list[bytes]) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.failure("L15")
def test_a_full_disk_holds_records_back_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ingest = open_ingest(tmp_path)
    assert offer(ingest, "a", 1, 5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        for _ in range(5):
            assert not offer(ingest, "a", 6, 5)
        assert ingest.durable_seq("a", stream("a")) == 5 and ingest.load().is_disk_full
        assert [received.seq for received in ingest.take(0)] == [1, 2, 3, 4, 5] and ingest.take(0) == []
    assert caplog.text.count("the disk is full. Nothing is acknowledged until there is room") == 1
    assert offer(ingest, "a", 6, 5)
    assert "can be written again" in caplog.text and not ingest.load().is_disk_full
    assert [received.seq for received in ingest.take(0)] == [6, 7, 8, 9, 10]
    ingest.close()


def test_a_disk_that_stays_full_ends_the_learner_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = open_ingest(tmp_path)
    monkeypatch.setattr(os, "writev", full)
    monkeypatch.setattr(module, "DISK_GIVE_UP_S", 0.05)
    assert not offer(ingest, "a", 1, 1)
    time.sleep(0.06)
    with pytest.raises(CacheError, match="disk is full"):
        offer(ingest, "a", 1, 1)
    with pytest.raises(CacheError, match="disk is full"):
        ingest.take(0)
    monkeypatch.undo()
    ingest.close()


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk is mounted by root alone: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.failure("L15")
def test_a_learner_on_a_real_full_disk_goes_on_when_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    """Real processes: the actor's steps wait in its journal, and arrive once each."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    steps, port = 3000, free_port()  # of about 600 bytes
    with process("learner", small_disk, port) as learner:
        address = learner.stdout.readline().strip()
        client = make_client(tmp_path, address)
        client.connect(20)
        for number in range(steps):
            client.send_step(make_step(number, ended=number % 10 == 9))
        with pytest.raises(TransportError, match="acknowledged records up to"):
            client.flush(3)
        wait_until(lambda: shutil.disk_usage(small_disk).free < 100_000)
        assert client.is_connected and learner.poll() is None
        ballast.unlink()
        client.flush(20)
        client.close()
    server = make_server(small_disk)
    rewards = [received.record.reward for received in server.replay_journal()]
    assert rewards == [float(number) for number in range(steps)]
    server.stop()


@pytest.mark.failure("L15")
def test_an_actor_on_a_real_full_disk_stops_loses_nothing_acknowledged_and_goes_on(small_disk: Path, tmp_path: Path) -> None:
    """The actor's journal is full while its learner is away: it stops with the reason; what it had is sent when it is back."""
    server = make_server(tmp_path)
    address = server.start()
    client = make_client(small_disk, address)
    client.connect(20)
    server.stop(0)
    sent = 0
    with pytest.raises(CacheError, match=r"the disk is full"):
        while True:
            client.send_step(make_step(sent, image_px=64))
            sent += 1
    assert sent > 10
    client.close()
    (small_disk / "room").unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,size=6m", str(small_disk)], check=True)
    server = make_server(tmp_path, int(address.rpartition(":")[2]))
    server.start()
    client = make_client(small_disk, address)
    client.connect(20)
    client.send_step(make_step(sent, image_px=64))
    assert [record.reward for record in receive(server, sent + 1)] == [float(number) for number in range(sent + 1)]
    client.flush(10)
    client.close()
    server.stop()


def test_how_much_waits_is_told(tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path, max_records=10)
    assert offer(ingest, "a", 1, 12)
    load = ingest.load()
    assert load.queued_records == 12 and load.queued_bytes > 1000 and load.backpressure_s == 0
    assert not ingest.offer("a", "robot-a", stream("a"), batch(13, 1), timeout_s=0.05)
    assert ingest.load().backpressure_s >= 0.05
    time.sleep(0.02)
    ingest.take(0)
    load = ingest.load()
    assert load.queued_records == load.queued_bytes == 0 and load.lag_s >= 0.02
    assert ingest.load().lag_s == 0.0
    ingest.close()


def test_keep_journals_keeps_everything(tmp_path: Path) -> None:
    for keep in (True, False):
        server = make_server(tmp_path / str(keep))
        server._config = server._config.model_copy(update={"keep_journals": keep})
        server._ingest.close()
        server._ingest = open_ingest(tmp_path / str(keep) / "learner", "run-1")
        for first in range(1, 101, 10):
            assert offer(server._ingest, "a", first, 10)
        server.trim_journal(90)
        first = next(iter(server._ingest._journal.records()))[0]
        assert (first == 1) == keep
        server.stop()
