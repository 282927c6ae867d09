"""What the server does with peers: refuses, holds leases, tells exactly what it has."""

import dataclasses
import errno
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from link_peer import Peer
from link_testing import HANDSHAKE, TOKEN, assert_same, free_port, make_client, make_server, make_step, receive, wait_until

from hilserl.config.models import LinkConfig
from hilserl.errors import CacheError, TransportError
from hilserl.link import LearnerStatus, LinkServer, link_pb2
from hilserl.link.auth import credentials
from hilserl.link.codec import encode_handshake, encode_record


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LinkServer]:
    with make_server(tmp_path) as server:
        server.address = server.start()
        yield server


@pytest.fixture
def peer(server: LinkServer) -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def connect(token: str = TOKEN) -> Peer:
        peers.append(Peer(server.address, token))
        return peers[-1]

    yield connect
    for one in peers:
        one.close()


# ------------------------------------------------------------------------------- who gets in


@pytest.mark.failure("R18")
@pytest.mark.parametrize("token", ["another-token-entirely", TOKEN[:-1], TOKEN + "x", ""])
def test_without_the_token_no_call_is_answered(peer: Callable[..., Peer], token: str) -> None:
    stranger = peer(token).hello()
    assert stranger.refusal()[0] is grpc.StatusCode.UNAUTHENTICATED
    for call, request in (
        (stranger.stub.GetStatus, link_pb2.StatusRequest()),
        (lambda *a, **k: list(stranger.stub.GetWeights(*a, **k)), link_pb2.WeightsRequest()),
    ):
        for metadata in (credentials(token), None, credentials(TOKEN) + credentials(TOKEN)):
            with pytest.raises(grpc.RpcError) as error:
                call(request, metadata=metadata)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.failure("L18")
@pytest.mark.parametrize("field", ["protocol_version", "run_id", "schema_hash", "architecture_hash"])
def test_a_peer_with_another_handshake_is_told_which_part_differs(peer: Callable[..., Peer], field: str) -> None:
    other = dataclasses.replace(HANDSHAKE, **{field: 9 if field == "protocol_version" else "other"})
    code, details = peer().hello(handshake=other).refusal()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith(field)
    assert details.count("the actor has") == 1  # only what differs


@pytest.mark.failure("R18")
@pytest.mark.parametrize("setting", ["host", "advertise"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "robot.example.org", "8.8.8.8"])
def test_without_tls_only_loopback_is_bound_and_told(tmp_path: Path, setting: str, host: str) -> None:
    with (
        LinkServer(LinkConfig(**{setting: host}), token=TOKEN, handshake=HANDSHAKE, journal_folder=tmp_path) as server,
        pytest.raises(TransportError, match=rf"`link.{setting}` is .* without TLS the link stays on loopback.*certificates create"),
    ):
        server.start()


@pytest.mark.failure("R18")
def test_a_pickle_is_refused_and_not_run(server: LinkServer, peer: Callable[..., Peer], tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "owned"),)

    attacker, honest = peer().hello(), peer().hello(actor_id="honest", robot_id="arm-2", stream=2)
    attacker.say(batch=link_pb2.Batch(records=[link_pb2.Envelope(seq=1, payload=pickle.dumps(Exploit()))]))
    assert attacker.refusal()[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert not (tmp_path / "owned").exists()
    honest.send(1)
    assert len(receive(server, 1)) == 1  # nobody else is disturbed, nothing of the attacker came through
    assert list(server.replay_journal()) == []


@pytest.mark.failure("R18")
def test_nothing_in_the_link_can_unpickle() -> None:
    """Neither directly nor through torch: importing the link loads neither."""
    code = "import sys, hilserl.link; assert not {'torch', 'dill', 'cloudpickle'} & set(sys.modules), 'loads an unpickler'"
    subprocess.run([sys.executable, "-c", code], check=True)
    for source in Path(sys.modules["hilserl.link"].__file__).parent.glob("*.py"):
        assert "pickle" not in source.read_text(), source


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ({"heartbeat": link_pb2.Heartbeat()}, "must be a Hello"),
        ({"batch": link_pb2.Batch()}, "must be a Hello"),
        ({"hello": link_pb2.Hello(stream_id=b"short")}, "must be a Hello"),
        ({"hello": link_pb2.Hello(stream_id=bytes(16), handshake=encode_handshake(HANDSHAKE), actor_id="../../etc")}, "actor_id is"),
    ],
)
def test_a_peer_that_does_not_introduce_itself_is_refused(peer: Callable[..., Peer], first: dict, text: str) -> None:
    stranger = peer()
    stranger.say(**first)
    code, details = stranger.refusal()
    assert code is grpc.StatusCode.INVALID_ARGUMENT and text in details


@pytest.mark.failure("R18")
def test_an_oversize_message_is_refused_and_the_others_go_on(server: LinkServer, peer: Callable[..., Peer]) -> None:
    large, small = peer().hello(), peer().hello(actor_id="small", robot_id="arm-2", stream=2)
    large.say(batch=link_pb2.Batch(records=[link_pb2.Envelope(seq=1, payload=bytes(5 << 20))]))
    assert large.refusal()[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    small.send(1)
    assert len(receive(server, 1)) == 1


# -------------------------------------------------------------------------------- exactly once


def test_what_came_already_is_acknowledged_again_and_not_delivered_again(server: LinkServer, peer: Callable[..., Peer]) -> None:
    first = peer().hello()
    assert first.answer().welcome.durable_seq == 0
    first.send(1, 2, 3)
    assert first.answer().ack.durable_seq == 3
    again = peer().hello()
    assert again.answer().welcome.durable_seq == 3
    again.send(2, 3, 4)
    assert again.answer().ack.durable_seq == 4
    records = receive(server, 4)
    assert len(records) == 4
    for number, record in enumerate(records, 1):
        assert_same(record, make_step(number))


def test_two_actors_may_use_the_same_numbers(server: LinkServer, peer: Callable[..., Peer]) -> None:
    for number, name in enumerate(("a", "b"), 1):
        peer().hello(actor_id=name, robot_id=f"arm-{name}", stream=number).send(1, 2)
    received = []
    wait_until(lambda: received.extend(server.poll(0.1)) or len(received) >= 4)
    assert sorted((record.actor_id, record.robot_id, record.seq) for record in received) == [
        ("a", "arm-a", 1), ("a", "arm-a", 2), ("b", "arm-b", 1), ("b", "arm-b", 2),
    ]  # fmt: skip
    assert sorted(record.log_seq for record in received) == [1, 2, 3, 4]


def test_a_gap_or_a_reordering_is_refused_before_it_is_acknowledged(server: LinkServer, peer: Callable[..., Peer]) -> None:
    stranger = peer().hello()
    stranger.send(1)
    stranger.send(4, 5)
    code, details = stranger.refusal()
    assert code is grpc.StatusCode.OUT_OF_RANGE and "record 4 of actor `peer` follows 3, the last one here is 1" in details
    assert len(receive(server, 1)) == 1
    assert peer().hello().answer().welcome.durable_seq == 1


def test_an_acknowledged_record_is_in_the_journal_already(server: LinkServer, peer: Callable[..., Peer], tmp_path: Path) -> None:
    """Nobody polls, nobody closes: another process could read it at this moment."""
    stranger = peer().hello()
    stranger.answer()
    stranger.send(1, 2)
    assert stranger.answer().ack.durable_seq == 2
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "learner").glob("*.journal"))
    assert encode_record(make_step(1)) in on_disk and encode_record(make_step(2)) in on_disk


def test_a_restarted_server_replays_what_it_acknowledged_and_polls_the_rest(tmp_path: Path) -> None:
    with make_server(tmp_path) as server:
        one = Peer(server.start()).hello()
        one.send(1, 2, 3)
        receive(server, 1)  # taken or not makes no difference
        one.close()
    with make_server(tmp_path) as server:
        two = Peer(server.start()).hello()
        assert two.answer().welcome.durable_seq == 3
        two.send(4, 5)
        assert two.answer().ack.durable_seq == 5
        replayed = list(server.replay_journal())
        assert [record.seq for record in replayed] == [1, 2, 3]
        assert_same(replayed[2].record, make_step(3))
        assert [record.seq for record in server.replay_journal(after=replayed[1].log_seq)] == [3]
        polled = server.poll(1)
        assert [record.seq for record in polled] == [4, 5]
        assert [record.log_seq for record in (*replayed, *polled)] == [1, 2, 3, 4, 5]
        two.close()


# -------------------------------------------------------------------------------- back-pressure


@pytest.mark.failure("R16")
def test_a_full_queue_makes_the_sender_wait_and_still_answers_it(tmp_path: Path) -> None:
    with make_server(tmp_path, max_queued_records=4) as server:
        stranger = Peer(server.start()).hello()
        stranger.answer()
        for number in range(1, 21):
            stranger.send(number)
        acknowledged = [stranger.answer().ack.durable_seq for _ in range(6)]
        assert acknowledged == [1, 2, 3, 4, 4, 4]  # the last two: alive, but no room
        assert len(receive(server, 20)) == 20
        stranger.close()


def test_a_full_disk_holds_an_actor_back_until_there_is_room(
    server: LinkServer, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, parts: list[bytes]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    stranger = peer().hello()
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        stranger.send(1)
        assert stranger.answer().WhichOneof("kind") == "welcome"
        assert [stranger.answer().ack.durable_seq for _ in range(2)] == [0, 0]
        assert server.poll(0.1) == [] and server.load().is_disk_full
    wait_until(lambda: stranger.answer().ack.durable_seq == 1)
    assert len(receive(server, 1)) == 1


def test_a_disk_that_stays_full_stops_the_learner_with_the_reason(
    server: LinkServer, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, parts: list[bytes]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    monkeypatch.setattr("hilserl.link.ingest.DISK_GIVE_UP_S", 0.1)
    stranger = peer().hello()
    stranger.send(1)
    code, details = stranger.refusal()
    assert code is grpc.StatusCode.UNAVAILABLE and "disk is full" in details
    with pytest.raises(CacheError, match="disk is full"):
        server.poll(1)


# --------------------------------------------------------------------------------------- leases


@pytest.mark.failure("R17")
def test_one_live_actor_per_robot_and_one_robot_per_actor(server: LinkServer, peer: Callable[..., Peer]) -> None:
    first = peer().hello(actor_id="a", robot_id="arm-1", stream=1)
    first.answer()
    for actor_id, robot_id in (("b", "arm-1"), ("a", "arm-2")):
        code, details = peer().hello(actor_id=actor_id, robot_id=robot_id, stream=2).refusal()
        assert code is grpc.StatusCode.ALREADY_EXISTS and "actor `a` holds robot `arm-1` (heard" in details
    peer().hello(actor_id="b", robot_id="arm-2", stream=2).answer()  # another arm is free
    assert sorted(server.live_actors()) == ["a", "b"]
    first.say(heartbeat=link_pb2.Heartbeat())
    first.answer()  # and the holder was not disturbed


@pytest.mark.failure("R17")
def test_a_robot_is_free_again_when_its_actor_is_gone(server: LinkServer, peer: Callable[..., Peer]) -> None:
    first = peer().hello(actor_id="a", robot_id="arm-1", stream=1)
    first.answer()
    first.close()
    wait_until(lambda: server.live_actors() == [])
    assert server.last_heard_s()["a"] < 10  # still known
    peer().hello(actor_id="b", robot_id="arm-1", stream=2).answer()


@pytest.mark.failure("R17")
def test_an_actor_that_comes_back_replaces_its_own_half_open_stream(server: LinkServer, peer: Callable[..., Peer]) -> None:
    first = peer().hello(actor_id="a", robot_id="arm-1", stream=1)
    first.answer()
    peer().hello(actor_id="a", robot_id="arm-1", stream=1).answer()  # at once, without waiting for a timeout
    assert first.refusal()[0] is grpc.StatusCode.CANCELLED
    assert server.live_actors() == ["a"]


@pytest.mark.failure("R17")
def test_a_silent_actor_gives_way_after_the_timeout(tmp_path: Path) -> None:
    with make_server(tmp_path, lease_timeout_s=0.3) as server:
        address = server.start()
        silent, second = Peer(address).hello(actor_id="a", robot_id="arm-1", stream=1), Peer(address)
        silent.answer()
        time.sleep(0.4)
        assert server.last_heard_s()["a"] > 0.3
        second.hello(actor_id="b", robot_id="arm-1", stream=2).answer()
        assert silent.refusal()[0] is grpc.StatusCode.CANCELLED
        silent.close()
        second.close()


# ------------------------------------------------------------------------------- start and stop


def test_a_port_in_use_is_named_with_the_remedy(server: LinkServer, tmp_path: Path) -> None:
    """Also against gRPC's own SO_REUSEPORT, with which both would be given calls."""
    port = int(server.address.rpartition(":")[2])
    with (
        make_server(tmp_path / "second", port) as second,
        pytest.raises(TransportError, match=rf"cannot listen on 127.0.0.1:{port}: another process has the port.*`link.port`"),
    ):
        second.start()


def test_grpc_itself_refuses_a_second_bind(server: LinkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look beforehand, which another process could slip past."""
    monkeypatch.setattr("hilserl.link.server._refuse_taken_port", lambda host, port: None)
    port = int(server.address.rpartition(":")[2])
    with make_server(tmp_path / "second", port) as second, pytest.raises(TransportError, match="another process has the port"):
        second.start()


def test_a_stopped_server_frees_port_and_journal_at_once(tmp_path: Path) -> None:
    port = free_port()
    for _ in range(3):
        with make_server(tmp_path, port) as server, make_client(tmp_path, server.start()) as client:
            client.connect(5)


def test_a_learner_that_dies_of_an_exception_exits_with_an_actor_connected(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from link_testing import *\n"
        "folder = Path(sys.argv[1]); server = make_server(folder); client = make_client(folder, server.start()); client.connect(10)\n"
        "raise SystemExit(3)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent, timeout=15, check=False)
    assert result.returncode == 3


def test_status_and_its_weights_version(server: LinkServer, peer: Callable[..., Peer]) -> None:
    server.set_status(LearnerStatus("training", 5, 100, 6, 7, weights_version=999, message="on it"))
    status = peer().stub.GetStatus(link_pb2.StatusRequest(), metadata=credentials(TOKEN))
    assert (status.phase, status.owed_updates, status.message) == (link_pb2.LearnerStatus.TRAINING, 5, "on it")
    assert status.weights_version == 0  # of what was published, not of what was claimed
