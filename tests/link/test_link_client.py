"""Client and server together, in one process, over a real connection."""

import dataclasses
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_proxy import FaultProxy
from link_testing import (
    HANDSHAKE,
    assert_same,
    free_port,
    make_client,
    make_report,
    make_server,
    make_step,
    receive,
    wait_until,
)

from hilserl.errors import TransportError
from hilserl.link import Journal, LearnerStatus, LinkClient, LinkServer, Step, Weights, outbox
from hilserl.link import client as module
from hilserl.link.codec import decode_record
from hilserl.link.messages import LearnerAlarm
from hilserl.schema import Feature, FeatureSchema


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LinkServer]:
    with make_server(tmp_path) as server:
        server.address = server.start()
        yield server


@pytest.fixture
def client(server: LinkServer, tmp_path: Path) -> Iterator[LinkClient]:
    with make_client(tmp_path, server.address) as client:
        client.connect(5)
        yield client


def test_steps_and_reports_arrive_complete_and_in_order(server: LinkServer, client: LinkClient) -> None:
    sent = []
    for number in range(50):
        sent.append(make_step(number, ended=number % 10 == 9))
        client.send_step(sent[-1])
        if number % 10 == 9:
            sent.append(make_report(number // 10))
            client.send_episode(sent[-1])
    client.flush(5)
    received = receive(server, len(sent))
    assert len(received) == len(sent)
    for mine, theirs in zip(received, sent, strict=True):
        assert_same(mine, theirs)


def test_status_reaches_the_actor_without_it_sending_anything(server: LinkServer, client: LinkClient) -> None:
    status = LearnerStatus("failed", 1, 2, 3, 4, 0, "loss is nan", (LearnerAlarm("regressed", "It is worse. Stop."),))
    server.set_status(status)
    wait_until(lambda: client.status == status, 3)


def test_a_stopping_learner_says_its_last_word_and_waits_no_longer_than_that(tmp_path: Path) -> None:
    server = make_server(tmp_path)
    with make_client(tmp_path, server.start()) as client:
        client.connect(5)
        server.set_status(LearnerStatus("finished", message="done"))
        start = time.monotonic()
        server.stop(grace_s=30.0)
        assert time.monotonic() - start < 5.0
        assert client.status.phase == "finished"


def weights(version: int) -> Weights:
    return Weights.create(version, {"w": np.full((3, 2), version, np.float32)})


def test_weights_travel_once_per_version_newest_only(server: LinkServer, client: LinkClient) -> None:
    assert client.latest_weights() is None
    server.publish_weights(weights(1))
    first = client.wait_for_weights(5)
    assert first.version == 1 and first.content_hash == weights(1).content_hash
    np.testing.assert_array_equal(first.tensors["w"], np.full((3, 2), 1, np.float32))
    wait_until(lambda: client.status.weights_version == 1)
    time.sleep(0.6)  # a heartbeat or more
    assert client.latest_weights() is None
    for version in (2, 3):
        server.publish_weights(weights(version))
    wait_until(lambda: client._fetched_version == 3)
    assert client.latest_weights().version == 3
    with pytest.raises(TransportError, match=r"published no new weights within 0.1 s. It is connected, phase `warming_up`"):
        client.wait_for_weights(0.1)


def test_published_weights_are_a_copy_and_versions_grow(server: LinkServer, client: LinkClient) -> None:
    tensor = np.ones(4, np.float32)
    server.publish_weights(Weights.create(5, {"w": tensor}))
    tensor[:] = 9
    np.testing.assert_array_equal(client.wait_for_weights(5).tensors["w"], np.ones(4))
    with pytest.raises(ValueError, match="version 5 follows 5"):
        server.publish_weights(weights(5))
    with pytest.raises(ValueError, match="do not have the content hash"):
        server.publish_weights(dataclasses.replace(weights(6), content_hash="0" * 32))


def test_large_weights_come_in_chunks(server: LinkServer, client: LinkClient) -> None:
    tensors = {"big": np.random.default_rng(0).standard_normal(3_000_000).astype(np.float32)}  # 12 MB, messages are 4 MB
    server.publish_weights(Weights.create(1, tensors))
    np.testing.assert_array_equal(client.wait_for_weights(10).tensors["big"], tensors["big"])


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"token": "another-token-entirely"}, "refused actor `actor-1`: wrong or missing link token"),
        ({"handshake": dataclasses.replace(HANDSHAKE, schema_hash="other")}, "schema_hash .*: the actor has 'other', the learner 'schema'"),
        ({"handshake": dataclasses.replace(HANDSHAKE, run_id="other")}, "run_id .*: the actor has 'other', the learner 'run-1'"),
    ],
)
def test_a_refusal_is_final_and_says_why(server: LinkServer, tmp_path: Path, options: dict, text: str) -> None:
    with make_client(tmp_path, server.address, **options) as client:
        with pytest.raises(TransportError, match=text):
            client.connect(5)
        for call in (lambda: client.send_step(make_step(0)), client.latest_weights, lambda: client.status, lambda: client.flush(1)):
            with pytest.raises(TransportError, match=text):
                call()


@pytest.mark.failure("R17")
def test_a_second_actor_on_the_robot_is_refused_and_the_first_goes_on(server: LinkServer, client: LinkClient, tmp_path: Path) -> None:
    with (
        make_client(tmp_path / "b", server.address, actor_id="actor-2") as second,
        pytest.raises(TransportError, match="actor `actor-1` holds robot `arm-1`"),
    ):
        second.connect(5)
    client.send_step(make_step(0))
    client.flush(5)
    client.close()
    with make_client(tmp_path / "b", server.address, actor_id="actor-2") as second:
        second.connect(5)


def test_a_second_process_with_the_same_journal_is_refused(client: LinkClient, server: LinkServer, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="in use by another process"):
        make_client(tmp_path, server.address)


def test_an_oversize_step_is_refused_before_it_is_journaled(server: LinkServer, tmp_path: Path) -> None:
    with make_client(tmp_path, server.address, max_message_mb=64) as client:
        client.connect(5)  # learns the learner's limit of 4 MiB
        with pytest.raises(TransportError, match=r"4\.3 MiB is larger than the 4 MiB.*`link.max_message_mb` on both sides"):
            client.send_step(make_step(0, image_px=1230))
        client.send_step(make_step(1))
        client.flush(5)
        assert len(receive(server, 1)) == 1


def test_a_thread_that_dies_is_raised_by_the_next_call(server: LinkServer, client: LinkClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a defect of ours")

    monkeypatch.setattr(module, "decode_status", broken)
    wait_until(lambda: client._failure is not None, 5)
    for call in (lambda: client.send_step(make_step(0)), client.latest_weights, lambda: client.status, lambda: client.flush(1)):
        with pytest.raises(RuntimeError, match="a defect of ours"):
            call()


def test_a_closed_client_says_so(client: LinkClient) -> None:
    client.close()
    client.close()
    with pytest.raises(TransportError, match="The link is closed"):
        client.send_step(make_step(0))


# ---------------------------------------------------------------------------- lost connections


def test_no_learner_is_said_within_the_timeout_and_steps_are_kept(tmp_path: Path) -> None:
    port = free_port()
    client = make_client(tmp_path, f"127.0.0.1:{port}")
    with pytest.raises(TransportError, match=f"127.0.0.1:{port} did not answer within 0.3 s"):
        client.connect(0.3)
    for number in range(20):
        client.send_step(make_step(number))
    with pytest.raises(TransportError, match=r"acknowledged records up to 0 of 20 within 0.1 s. The rest stays in"):
        client.flush(0.1)
    with make_server(tmp_path, port) as server:
        server.start()
        client.flush(10)
        assert len(receive(server, 20)) == 20
    client.close()


@pytest.mark.failure("R17")
def test_a_peer_that_accepts_and_never_answers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-open learner: the kernel takes the connection, nobody speaks."""
    monkeypatch.setattr(module, "_PEER_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = make_client(tmp_path, f"127.0.0.1:{port}")
        with pytest.raises(TransportError, match="did not answer within 1 s"):
            client.connect(1.0)
        client.send_step(make_step(0))
    with make_server(tmp_path, port) as server:
        server.start()
        client.flush(15)
        assert len(receive(server, 1)) == 1
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 5


@pytest.mark.failure("R16")
def test_a_learner_that_does_not_poll_slows_nobody_and_loses_nothing(tmp_path: Path) -> None:
    with make_server(tmp_path, max_queued_records=8) as server, make_client(tmp_path, server.start()) as client:
        client.connect(5)
        start = time.monotonic()
        for number in range(300):
            client.send_step(make_step(number))
        assert time.monotonic() - start < 3.0
        time.sleep(0.3)
        assert client.is_connected
        assert len(server.poll(0)) <= 8 + 64  # the bound, and the batch that crossed it
        assert len(receive(server, 300 - 72)) > 0
        client.flush(10)


def test_all_acknowledged_leaves_an_empty_journal(server: LinkServer, tmp_path: Path) -> None:
    with make_client(tmp_path, server.address) as client:
        client.connect(5)
        for number in range(5):
            client.send_step(make_step(number))
        client.flush(5)
    assert [path.stat().st_size for path in (tmp_path / "actor" / "run-1" / "actor-1").glob("*.journal")] == [0]
    with make_client(tmp_path, server.address) as client:  # and the numbering goes on
        client.connect(5)
        client.send_step(make_step(5))
        client.flush(5)
    assert len(receive(server, 6)) == 6


@pytest.mark.parametrize("compression", ["none", "deflate", "gzip"])
def test_compression_is_lossless_and_saves_what_can_be_saved(server: LinkServer, tmp_path: Path, compression: str) -> None:
    def step(number: int) -> Step:
        whole = make_step(number, image_px=64)
        return dataclasses.replace(
            whole, observation={**whole.observation, "observation.images.wrist": np.full((64, 64, 3), number, np.uint8)}
        )

    proxy = FaultProxy(server.address)
    with make_client(tmp_path, proxy.address, compression=compression) as client:
        client.connect(5)
        for number in range(50):
            client.send_step(step(number))
        client.flush(10)
        for number, record in enumerate(receive(server, 50)):
            assert_same(record, step(number))
    size = 50 * 64 * 64 * 3
    assert proxy.bytes_up > size if compression == "none" else proxy.bytes_up < size / 10
    proxy.close()


def test_a_step_of_another_schema_is_not_journaled(tmp_path: Path) -> None:
    schema = FeatureSchema({"observation.state": Feature((18,), "float32", "rad")}, Feature((3,), "float32", "[-1, 1]"))
    client = make_client(tmp_path, "127.0.0.1:1", schema=schema)
    with pytest.raises(TransportError, match=r"Episode 0 step 3: it has .*'observation.images.wrist'.*the policy sees"):
        client.send_step(make_step(3))
    assert client._outbox.journal.last_seq == 0
    client.close()


@pytest.mark.parametrize("keep", [True, False])
def test_an_acknowledged_journal_stays_where_it_is_to_be_kept(server: LinkServer, tmp_path: Path, keep: bool, monkeypatch) -> None:
    monkeypatch.setattr(outbox, "_DROP_AFTER_S", 0.1)
    for life in range(2):
        with make_client(tmp_path, server.address, keep_journal=keep) as client:
            client.connect(5)
            client._outbox.journal._segment_bytes = 5_000  # several segments, which are dropped while it runs
            for number in range(30):
                client.send_step(make_step(30 * life + number))
                if number % 10 == 9:
                    client.flush(5)
                    time.sleep(0.2)
    assert len(receive(server, 60)) == 60  # and what was kept is not sent again
    with Journal(tmp_path / "actor" / "run-1" / "actor-1", label="run-1") as journal:
        kept = [decode_record(payload) for _, payload in journal.records()]
    assert len(kept) == (60 if keep else 0)
    for number, record in enumerate(kept):
        assert_same(record, make_step(number))
