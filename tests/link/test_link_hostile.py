"""Peers that mean harm: each is refused, that is in the log, and an actor beside them does not notice."""

import contextlib
import dataclasses
import logging
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import h2.exceptions
import numpy as np
import pytest
from link_peer import Peer
from link_testing import HANDSHAKE, TOKEN, make_client, make_server, make_step, wait_until
from raw_http2 import RawStream

from hilserl.link import LinkClient, LinkServer, ReceivedRecord, Weights, ingest, leases, link_pb2, watch
from hilserl.link import server as server_module
from hilserl.link.auth import credentials
from hilserl.link.codec import encode_handshake, encode_record
from hilserl.link.limits import MAX_CONNECTIONS
from hilserl.schema import Feature, FeatureSchema

pytestmark = pytest.mark.failure("R18")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits, reached sooner."""
    monkeypatch.setattr(watch, "HELLO_TIMEOUT_S", 0.6)
    monkeypatch.setattr(watch, "SILENCE_S", 2.0)
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(watch, "_GRACE_S", 0.5)
    sooner = {"grpc.server_handshake_timeout_ms": 700, "grpc.max_connection_idle_ms": 700}
    monkeypatch.setattr(server_module, "_LIMITS", tuple((dict(server_module._LIMITS) | sooner).items()))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LinkServer]:
    with make_server(tmp_path) as server:
        server.address = server.start()
        server.port = int(server.address.rpartition(":")[2])
        yield server


class Honest:
    """An actor that goes on while others misbehave."""

    def __init__(self, client: LinkClient, server: LinkServer) -> None:
        self.client, self.server = client, server
        self.sent = 0
        self.session = client._session
        self._received: list[ReceivedRecord] = []

    def received(self) -> list[ReceivedRecord]:
        """Everything that the learner got so far, of every actor."""
        self._received += self.server.poll(0.3)
        return self._received

    def goes_on(self) -> None:
        """Everything that it sends is acknowledged, over the same stream as before."""
        for _ in range(5):
            self.client.send_step(make_step(self.sent, ended=self.sent % 10 == 9))
            self.sent += 1
        self.client.flush(10)
        assert self.client._session is self.session and self.client.is_connected, "it had to connect again"


@pytest.fixture
def honest(server: LinkServer, tmp_path: Path) -> Iterator[Honest]:
    with make_client(tmp_path / "honest", server.address, actor_id="honest", robot_id="arm-1") as client:
        client.connect(10)
        actor = Honest(client, server)
        actor.goes_on()
        yield actor
        actor.goes_on()
        steps = [received for received in actor.received() if received.actor_id == "honest"]
        assert [step.record.reward for step in steps] == [float(number) for number in range(actor.sent)]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[str], bool]:
    caplog.set_level(logging.INFO, "hilserl.link")
    return lambda text: any(text in record.getMessage() for record in caplog.records)


@pytest.fixture
def peer(server: LinkServer) -> Iterator[Callable[..., Peer]]:
    with contextlib.ExitStack() as stack:

        def connect(token: str = TOKEN) -> Peer:
            one = Peer(server.address, token)
            stack.callback(one.close)
            return one

        yield connect


def is_ended(connection: socket.socket, timeout_s: float = 5.0) -> bool:
    """Read until the learner hangs up."""
    connection.settimeout(timeout_s)
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass
    return True


def is_greeted(connection: socket.socket) -> bool:
    """Whether the learner speaks HTTP/2 on a connection, or hangs up at once."""
    connection.settimeout(5.0)
    try:
        return bool(connection.recv(1))
    except ConnectionError:
        return False


# --------------------------------------------------------------------------- below the protocol


def frame(kind: int, stream: int, payload: bytes, *, length: int | None = None) -> bytes:
    """One frame of HTTP/2, with a length that may be a lie."""
    return struct.pack(">I", len(payload) if length is None else length)[1:] + struct.pack(">BBI", kind, 0, stream) + payload


GARBAGE = {
    "random bytes": random.Random(0).randbytes(5000),
    "HTTP/1": b"POST /hilserl.link.v1.Link/Stream HTTP/1.1\r\nHost: learner\r\nContent-Length: 3\r\n\r\nabc",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2 and then garbage": PREFACE + random.Random(1).randbytes(300),
    "a frame that says it has 16 MiB": PREFACE + frame(4, 0, b"") + frame(0, 1, b"x", length=(1 << 24) - 1),
    "a stream of frames that belong to none": PREFACE + frame(4, 0, b"") + frame(0, 7, b"x") * 100,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_on_the_port_is_hung_up_on(server: LinkServer, honest: Honest, log: Callable[[str], bool], garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        stranger.sendall(garbage)
        assert is_ended(stranger)
    wait_until(lambda: log("connections proved nothing") and log("From 127.0.0.1 (1)"))


def test_a_connection_that_says_nothing_is_hung_up_on(server: LinkServer, honest: Honest, log: Callable[[str], bool]) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        honest.goes_on()
        assert is_ended(stranger)
    wait_until(lambda: log("connections proved nothing"))


def test_more_connections_than_allowed_are_hung_up_on(
    server: LinkServer, honest: Honest, log: Callable[[str], bool], tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(200)]
        honest.goes_on()
        greeted = [one for one in crowd if is_greeted(one)]
        assert 0 < len(greeted) <= MAX_CONNECTIONS - 1
        for one in greeted:
            assert is_ended(one)  # they are silent, too
    wait_until(lambda: log("connections proved nothing"))
    with make_client(tmp_path / "later", server.address, actor_id="later", robot_id="arm-2") as client:
        client.connect(10)  # the door is open again


def test_headers_without_end_are_refused(server: LinkServer, honest: Honest, log: Callable[[str], bool]) -> None:
    with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.stream_stream("/hilserl.link.v1.Link/Stream")
        flood = tuple((f"x-{number}", "y" * 900) for number in range(100))
        with pytest.raises(grpc.RpcError) as error:
            next(call(iter(()), metadata=(*credentials(TOKEN), *flood), timeout=10))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        wait_until(lambda: log("broke off before its Hello"))


def test_a_message_byte_by_byte_is_cut_off(server: LinkServer, honest: Honest, log: Callable[[str], bool]) -> None:
    """A slow loris: each byte keeps the connection alive, and the Hello never comes."""
    started = time.monotonic()
    with RawStream(server.address) as slow:
        for byte in struct.pack(">BI", 0, 1000) + bytes(1000):
            slow.send(bytes([byte]))
            if slow.was_ended:
                break
        assert slow.was_ended and time.monotonic() - started < 20
    assert log("there was no complete Hello")


def test_a_message_that_says_it_has_4_gigabytes_is_refused_at_once(server: LinkServer, honest: Honest) -> None:
    with RawStream(server.address) as liar:
        liar.send(struct.pack(">BI", 0, 2**32 - 1))
        wait_until(lambda: liar.pump() or liar.was_ended, 5)


def test_a_peer_that_never_reads_costs_no_memory_and_is_cut_off(server: LinkServer, honest: Honest, log: Callable[[str], bool]) -> None:
    """The learner waits with its first answer, and takes no more in than that connection's window."""
    hello = link_pb2.Hello(handshake=encode_handshake(HANDSHAKE), actor_id="deaf", robot_id="arm-9", stream_id=bytes(16))
    payload = encode_record(make_step(1, image_px=64))
    sent = 0
    with RawStream(server.address, reads=False) as deaf:
        deaf.send_message(link_pb2.ActorMessage(hello=hello))
        with contextlib.suppress(h2.exceptions.ProtocolError, ConnectionError):  # no room, or hung up on
            while sent < 4000 and not deaf.was_ended:
                batch = link_pb2.Batch(records=[link_pb2.Envelope(seq=sent + 1, previous_seq=sent, payload=payload)])
                deaf.send_message(link_pb2.ActorMessage(batch=batch))
                sent += 1
        assert sent * len(payload) < 8 << 20, "the learner took in what it cannot answer"
        wait_until(lambda: log("actor `deaf` has said nothing for"))
        wait_until(lambda: "deaf" not in server.live_actors())


# ------------------------------------------------------------------------------- without a right


@pytest.mark.parametrize("token", ["", "another-token-entirely"])
def test_a_wrong_token_is_logged_and_a_flood_of_them_is_counted(
    peer: Callable[..., Peer], honest: Honest, log: Callable[[str], bool], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, token: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(watch, "_PER_S", 1.0)
    stranger = peer(token)
    for _ in range(60):
        with pytest.raises(grpc.RpcError) as error:
            stranger.stub.GetStatus(link_pb2.StatusRequest(), metadata=credentials(token), timeout=10)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    lines = [record for record in caplog.records if "wrong or missing link token" in record.getMessage()]
    assert 0 < len(lines) < 60
    time.sleep(1.1)
    with pytest.raises(grpc.RpcError):
        stranger.stub.GetStatus(link_pb2.StatusRequest(), metadata=credentials(token), timeout=10)
    assert log("more refusals like these")


@pytest.mark.parametrize("field", ["protocol_version", "run_id", "schema_hash", "architecture_hash"])
def test_a_peer_of_another_run_or_schema_is_logged(
    peer: Callable[..., Peer], honest: Honest, log: Callable[[str], bool], field: str
) -> None:
    other = dataclasses.replace(HANDSHAKE, **{field: 99 if field == "protocol_version" else "x" * 100_000})
    assert peer().hello(handshake=other).refusal()[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert log(f"(FAILED_PRECONDITION): {field}")


def test_another_journal_for_a_live_robot_is_refused(peer: Callable[..., Peer], honest: Honest, log: Callable[[str], bool]) -> None:
    for actor_id, robot_id in (("honest", "arm-1"), ("thief", "arm-1"), ("honest", "arm-2")):
        assert peer().hello(actor_id=actor_id, robot_id=robot_id).refusal()[0] is grpc.StatusCode.ALREADY_EXISTS
    assert log("holds robot `arm-1`")


def test_streams_without_a_hello_are_ended(peer: Callable[..., Peer], honest: Honest, log: Callable[[str], bool]) -> None:
    stranger = peer()
    calls = [stranger.stub.Stream(iter(stranger.wait_for_ever, None), metadata=credentials(TOKEN), timeout=10) for _ in range(30)]
    honest.goes_on()
    for call in (stranger.stream, *calls):
        with pytest.raises(grpc.RpcError) as error:
            next(call)
        # Cut off, or never begun because there were too many on this connection.
        assert error.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert log("there was no complete Hello")


# ------------------------------------------------------------------------- with a right, and harm


def test_a_replay_of_captured_bytes_is_applied_once(server: LinkServer, honest: Honest, tmp_path: Path) -> None:
    """The very bytes of an actor's connection, Hello, token and batches, sent again by somebody else."""
    captured = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def forward() -> None:
            down, _ = listener.accept()
            with down, socket.create_connection(("127.0.0.1", server.port)) as up:
                answers = threading.Thread(target=_pump, args=(up, down, None))
                answers.start()
                _pump(down, up, captured)
                answers.join()

        line = threading.Thread(target=forward)
        line.start()
        with make_client(tmp_path / "victim", f"127.0.0.1:{listener.getsockname()[1]}", actor_id="victim", robot_id="arm-2") as client:
            client.connect(10)
            for number in range(10):
                client.send_step(make_step(number))
            client.flush(10)
        line.join()
    wait_until(lambda: "victim" not in server.live_actors())
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as thief:
            thief.sendall(captured)
            thief.settimeout(0.5)
            with contextlib.suppress(TimeoutError, ConnectionError):
                while thief.recv(1 << 16):
                    pass
    assert [record.seq for record in honest.received() if record.actor_id == "victim"] == list(range(1, 11))


def _pump(source: socket.socket, sink: socket.socket, copy: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if copy is not None:
                copy += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_records_out_of_order_are_refused(peer: Callable[..., Peer], honest: Honest, log: Callable[[str], bool]) -> None:
    stranger = peer().hello()
    stranger.send(2, 1)
    assert stranger.refusal()[0] is grpc.StatusCode.OUT_OF_RANGE
    assert log("the last one here is 0")
    for seq in (2**48 + 1, 2**64 - 1):
        stranger = peer().hello()
        stranger.send(1, 2)
        payload = encode_record(make_step(3))
        stranger.say(batch=link_pb2.Batch(records=[link_pb2.Envelope(seq=seq, previous_seq=2, payload=payload)]))
        assert stranger.refusal()[0] is grpc.StatusCode.OUT_OF_RANGE


BOMBS = {
    "a million empty records": link_pb2.ActorMessage(batch=link_pb2.Batch()).SerializeToString()[:1]
    + b"\x80\x89\x7a" + b"\x0a\x00" * 1_000_000,
    "no message at all": b"\xff" * 100,
    "another Hello": link_pb2.ActorMessage(hello=link_pb2.Hello()).SerializeToString(),
}  # fmt: skip


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS.keys())
def test_a_malformed_message_is_refused(server: LinkServer, honest: Honest, log: Callable[[str], bool], payload: bytes) -> None:
    hello = link_pb2.Hello(handshake=encode_handshake(HANDSHAKE), actor_id="bad", robot_id="arm-9", stream_id=bytes(16))
    messages = [link_pb2.ActorMessage(hello=hello).SerializeToString(), payload]
    with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.stream_stream("/hilserl.link.v1.Link/Stream")(iter(messages), metadata=credentials(TOKEN), timeout=10)
        with pytest.raises(grpc.RpcError) as error:
            for _ in call:
                pass
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert log("INVALID_ARGUMENT")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_decompression_bomb_is_refused(
    server: LinkServer, honest: Honest, log: Callable[[str], bool], compression: grpc.Compression
) -> None:
    """Some tens of kilobytes on the wire, 64 MiB behind them; 4 MiB are allowed."""
    hello = link_pb2.Hello(handshake=encode_handshake(HANDSHAKE), actor_id="bomber", robot_id="arm-9", stream_id=bytes(16))
    bomb = link_pb2.ActorMessage(batch=link_pb2.Batch(records=[link_pb2.Envelope(seq=1, payload=bytes(64 << 20))]))
    messages = [link_pb2.ActorMessage(hello=hello).SerializeToString(), bomb.SerializeToString()]
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        call = channel.stream_stream("/hilserl.link.v1.Link/Stream")(
            iter(messages), metadata=credentials(TOKEN), timeout=20, compression=compression
        )
        with pytest.raises(grpc.RpcError) as error:
            for _ in call:
                pass
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_until(lambda: log("The stream of actor `bomber` broke off"))


def test_weights_are_sent_twice_at_once_to_one_connection_and_not_fifty_times(
    server: LinkServer, honest: Honest, peer: Callable[..., Peer], log: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights.create(1, {"w": np.zeros(16_000_000, np.float32)})
    server.publish_weights(weights)
    greedy = peer()
    calls = [greedy.stub.GetWeights(link_pb2.WeightsRequest(), metadata=credentials(TOKEN), timeout=20) for _ in range(12)]
    refused = 0
    for call in calls:
        try:
            next(call)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            refused += 1
    assert refused >= 10 and log("asks for weights while it is being sent some")
    assert honest.client.wait_for_weights(10).content_hash == weights.content_hash
    for call in calls:
        call.cancel()


SCHEMA = FeatureSchema(
    {
        "observation.state": Feature((18,), "float32", "rad"),
        "observation.images.wrist": Feature((8, 8, 3), "uint8", "0-255 RGB"),
    },
    Feature((3,), "float32", "[-1, 1]"),
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"action": np.zeros(4, np.float32)}, r"action has shape \(4,\)"),
        ({"action": np.full(3, 1.5, np.float32)}, "outside"),
        ({"observation": {"observation.state": np.zeros(18, np.float32)}}, "the policy sees"),
        ({"observation.state": np.zeros(17, np.float32)}, r"float32 \(17,\)"),
        ({"observation.state": np.zeros(18)}, "float64"),
        ({"observation.state": np.full(18, np.nan, np.float32)}, "not finite"),
    ],
)
def test_a_step_that_the_learner_could_not_take_in_is_not_acknowledged(tmp_path: Path, change: dict, reason: str) -> None:
    """It would be in the journal otherwise, and stop this learner and every one that continues its run."""
    good = make_step(3)
    parts = {name: array for name, array in change.items() if name in good.observation}
    bad = dataclasses.replace(good, **({"observation": {**good.observation, **parts}} if parts else change))
    with make_server(tmp_path, schema=SCHEMA) as server:
        stranger = Peer(server.start()).hello()
        stranger.answer()
        stranger.say(batch=link_pb2.Batch(records=[link_pb2.Envelope(seq=1, payload=encode_record(bad))]))
        code, details = stranger.refusal()
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "Episode 0 step 3" in details
        assert re.search(reason, details), details
        assert server.poll(0) == []
        stranger.close()


# --------------------------------------------------------------------------- what must not grow


def test_the_memory_of_past_actors_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MAX_REMEMBERED_ACTORS", 10)
    monkeypatch.setattr(leases, "MAX_ACTORS", 4)
    held = leases.Leases(5.0)
    stays = leases.Lease("stays", "arm-stays", bytes(16), lambda: None)
    held.acquire(stays)
    for number in range(1000):
        lease = leases.Lease(f"actor-{number}", f"arm-{number}", bytes(16), lambda: None)
        held.acquire(lease)
        held.release(lease)
    assert len(held.last_heard_s()) == 14 and {"stays", "actor-999"} <= held.last_heard_s().keys()
    for number in range(3):
        held.acquire(leases.Lease(f"more-{number}", f"arm-more-{number}", bytes(16), lambda: None))
    with pytest.raises(leases.TransportError, match="4 actors are connected"):
        held.acquire(leases.Lease("one-more", "arm-x", bytes(16), lambda: None))


def test_a_run_takes_a_bounded_number_of_journals_and_forgets_none(
    server: LinkServer, honest: Honest, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_JOURNALS", 4)
    for stream in range(3):
        one = peer().hello(stream=stream)
        one.send(1)
        while one.answer().ack.durable_seq != 1:
            pass
        one.close()
        wait_until(lambda: "peer" not in server.live_actors())
    for _ in range(3):  # says nothing worth remembering
        empty = peer().hello(stream=77)
        empty.answer()
        empty.say(batch=link_pb2.Batch())
        empty.answer()
        empty.close()
        wait_until(lambda: "peer" not in server.live_actors())
    assert len(server._ingest._durable) == 4
    last = peer().hello(stream=9)
    last.send(1)
    assert "the most that one run takes" in last.refusal()[1]


def test_an_acknowledgement_of_what_was_never_sent_deletes_nothing(tmp_path: Path) -> None:
    """Whoever took the learner's place, or a learner with another journal."""
    with make_server(tmp_path) as server, make_client(tmp_path, server.start()) as client:
        client.connect(10)
        honest_seq = server._ingest.durable_seq
        server._ingest.durable_seq = lambda *stream: honest_seq(*stream) + 100
        wait_until(lambda: client._failure is not None)
        assert "acknowledges record 100, and 0 is the last one sent" in str(client._failure)
