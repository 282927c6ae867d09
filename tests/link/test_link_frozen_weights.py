"""Tensors that no update changes cross the wire once, and are still never mixed up with others."""

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fault_proxy import FaultProxy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from link_testing import HANDSHAKE, free_port, make_client, make_server, wait_until

from hilserl.errors import TransportError
from hilserl.link import FrozenTensors, LinkClient, LinkServer, Weights, link_pb2, messages, service
from hilserl.link import client as client_module
from hilserl.link.codec import decode_weights, encode_frozen, encode_weights

FROZEN_FLOATS, TRAINED_FLOATS = 500_000, 2_500  # 2 MB, 10 kB
SLACK = 20_000  # bytes of HTTP/2, acknowledgements and heartbeats around ten pushes


def make_frozen(seed: int, cameras: tuple[str, ...] = ("wrist",)) -> FrozenTensors:
    encoder = np.random.default_rng(seed).standard_normal(FROZEN_FLOATS).astype(np.float32)
    return FrozenTensors.create({f"vision.{camera}.weight": encoder.copy() for camera in cameras})


def make_weights(version: int, frozen: FrozenTensors) -> Weights:
    return Weights.create(
        version, {"actor.weight": np.random.default_rng(version).standard_normal(TRAINED_FLOATS).astype(np.float32)}, frozen
    )


def assert_same(received: Weights, published: Weights) -> None:
    assert (received.version, received.content_hash) == (published.version, published.content_hash)
    assert received.tensors.keys() == published.tensors.keys()
    for name, tensor in published.tensors.items():
        assert received.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(received.tensors[name], tensor)


@pytest.fixture(autouse=True)
def quick_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor learns of new weights with the answer to a heartbeat."""
    monkeypatch.setattr(client_module, "_HEARTBEAT_S", 0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LinkServer]:
    with make_server(tmp_path) as server:
        server.address = server.start()
        yield server


@pytest.fixture
def proxy(server: LinkServer) -> Iterator[FaultProxy]:
    proxy = FaultProxy(server.address)
    yield proxy
    proxy.close()


@pytest.fixture
def client(proxy: FaultProxy, tmp_path: Path) -> Iterator[LinkClient]:
    with make_client(tmp_path, proxy.address) as client:
        client.connect(5)
        yield client


# ----------------------------------------------------------------------------- what is on the wire


@pytest.mark.failure("L18")
def test_frozen_tensors_cross_the_wire_once_and_every_version_is_complete(
    server: LinkServer, proxy: FaultProxy, client: LinkClient
) -> None:
    frozen, after_first = make_frozen(0), 0
    for version in range(1, 11):
        published = make_weights(version, frozen)
        server.publish_weights(published)
        assert_same(client.wait_for_weights(10), published)
        after_first = after_first or proxy.bytes_down
    assert 4 * FROZEN_FLOATS < after_first < 4 * (FROZEN_FLOATS + TRAINED_FLOATS) + SLACK
    assert 9 * 4 * TRAINED_FLOATS < proxy.bytes_down - after_first < 9 * 4 * TRAINED_FLOATS + SLACK


def test_equal_encoders_of_several_cameras_cross_the_wire_once(server: LinkServer, proxy: FaultProxy, client: LinkClient) -> None:
    published = make_weights(1, make_frozen(0, ("front", "side", "wrist")))
    server.publish_weights(published)
    assert_same(client.wait_for_weights(10), published)
    assert proxy.bytes_down < 4 * (FROZEN_FLOATS + TRAINED_FLOATS) + SLACK


def test_weights_without_a_frozen_part_follow_weights_with_one(server: LinkServer, client: LinkClient) -> None:
    for version, frozen in enumerate((make_frozen(0), FrozenTensors(), make_frozen(0)), 1):
        published = make_weights(version, frozen)
        server.publish_weights(published)
        assert_same(client.wait_for_weights(10), published)


def test_another_frozen_part_travels_in_full(server: LinkServer, client: LinkClient, caplog: pytest.LogCaptureFixture) -> None:
    for version in (1, 2):
        published = make_weights(version, make_frozen(version))
        server.publish_weights(published)
        assert_same(client.wait_for_weights(10), published)
    assert "Asking the learner" not in caplog.text  # it came without being asked for a second time


# --------------------------------------------------------------------------------------- restarts


@pytest.mark.failure("L18")
def test_a_restarted_actor_gets_everything(server: LinkServer, client: LinkClient, tmp_path: Path) -> None:
    published = make_weights(1, make_frozen(0))
    server.publish_weights(published)
    client.wait_for_weights(10)
    client.close()
    with make_client(tmp_path, server.address) as again:
        again.connect(5)
        assert_same(again.wait_for_weights(10), published)


@pytest.mark.failure("L18")
@pytest.mark.parametrize("seed", [0, 1], ids=["same frozen part", "another frozen part"])
def test_a_restarted_learners_weights_are_its_own(tmp_path: Path, seed: int) -> None:
    port = free_port()
    with make_server(tmp_path, port) as server, make_client(tmp_path, server.start()) as client:
        client.connect(5)
        server.publish_weights(make_weights(5, make_frozen(0)))
        client.wait_for_weights(10)
        server.stop(grace_s=0.1)
        with make_server(tmp_path, port) as restarted:
            published = make_weights(1, make_frozen(seed))  # a lower version: it begins anew
            restarted.publish_weights(published)
            restarted.start()
            assert_same(client.wait_for_weights(10), published)


# ------------------------------------------------------------------------------ damage and mismatch


def withhold(monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Let the learner leave out the frozen part that many times, whatever the actor has; returns what the actor said it has."""
    asked: list[str] = []
    honest = service.PublishedWeights.missing

    def missing(self: service.PublishedWeights, request: link_pb2.WeightsRequest) -> tuple[bytes, ...]:
        if not self.version or request.known_version == self.version:
            return ()
        asked.append(request.known_frozen_hash)
        return (self.payload,) if len(asked) <= times else honest(self, request)

    monkeypatch.setattr(service.PublishedWeights, "missing", missing)
    return asked


@pytest.mark.failure("L18")
def test_a_mismatch_asks_for_everything_once(
    server: LinkServer, client: LinkClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = make_frozen(0), make_frozen(1)
    server.publish_weights(make_weights(1, old))
    client.wait_for_weights(10)
    asked = withhold(monkeypatch, 1)
    published = make_weights(2, new)
    server.publish_weights(published)
    assert_same(client.wait_for_weights(10), published)
    assert asked == [old.content_hash, ""]
    assert "Asking the learner at" in caplog.text


@pytest.mark.failure("L18")
def test_a_mismatch_that_stays_ends_the_actor_with_the_reason(
    server: LinkServer, client: LinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish_weights(make_weights(1, make_frozen(0)))
    client.wait_for_weights(10)
    asked = withhold(monkeypatch, 1000)
    server.publish_weights(make_weights(2, make_frozen(1)))
    with pytest.raises(
        TransportError, match=r"Weights version 2 came without their frozen tensors, hash [0-9a-f]{32}; this actor has none"
    ):
        client.wait_for_weights(10)
    time.sleep(0.3)  # several heartbeats
    assert len(asked) == 2
    with pytest.raises(
        TransportError, match=r"Weights version 2 came without their frozen tensors, hash [0-9a-f]{32}; this actor has none"
    ):
        client.latest_weights()


@pytest.mark.failure("L18")
@pytest.mark.parametrize("part", ["payload", "frozen_payload"])
def test_a_part_damaged_on_the_way_ends_the_actor(server: LinkServer, client: LinkClient, part: str) -> None:
    published = make_weights(1, make_frozen(0))
    whole = service.PublishedWeights(
        1, published.content_hash, published.frozen.content_hash, encode_weights(published, HANDSHAKE), encode_frozen(published.frozen)
    )
    damaged = bytearray(getattr(whole, part))
    damaged[len(damaged) // 2] ^= 1  # inside a tensor's data
    server._board.publish(dataclasses.replace(whole, **{part: bytes(damaged)}))
    with pytest.raises(TransportError, match="damaged on the way"):
        client.wait_for_weights(10)


def test_trained_weights_damaged_on_the_way_are_asked_for_again_in_full(
    server: LinkServer, client: LinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = make_frozen(0)
    server.publish_weights(make_weights(1, frozen))
    client.wait_for_weights(10)
    honest = service.PublishedWeights.missing

    def missing(self: service.PublishedWeights, request: link_pb2.WeightsRequest) -> tuple[bytes, ...]:
        parts = honest(self, request)
        if len(parts) != 1:
            return parts
        return (parts[0][:500] + bytes([parts[0][500] ^ 1]) + parts[0][501:],)

    monkeypatch.setattr(service.PublishedWeights, "missing", missing)
    published = make_weights(2, frozen)
    server.publish_weights(published)
    assert_same(client.wait_for_weights(10), published)


def test_the_actor_cannot_change_the_frozen_part_that_it_keeps(server: LinkServer, client: LinkClient) -> None:
    server.publish_weights(make_weights(1, make_frozen(0)))
    received = client.wait_for_weights(10)
    assert received.tensors["actor.weight"].flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        received.tensors["vision.wrist.weight"][0] = 0


# ------------------------------------------------------------------------------- the learner's side


def test_the_frozen_part_is_hashed_and_encoded_once(server: LinkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = [0]

    class CountingHash:
        def __init__(self, data: bytes = b"") -> None:
            self._hash = hashlib.sha256()
            self.update(data)

        def update(self, data: bytes | memoryview) -> None:
            hashed[0] += memoryview(data).nbytes
            self._hash.update(data)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    monkeypatch.setattr(messages, "hashlib", SimpleNamespace(sha256=CountingHash))
    frozen = make_frozen(0)
    server.publish_weights(make_weights(1, frozen))
    payload, first = server._board.weights.frozen_payload, hashed[0]
    assert 4 * FROZEN_FLOATS <= first <= 3 * 4 * FROZEN_FLOATS + 2 * 4 * TRAINED_FLOATS + SLACK  # made, checked, compared with the others
    for version in range(2, 12):
        server.publish_weights(make_weights(version, frozen))
    assert hashed[0] - first <= 10 * 2 * 4 * TRAINED_FLOATS + SLACK
    assert server._board.weights.frozen_payload is payload


def test_a_frozen_part_that_is_not_what_its_hash_says_is_not_published(server: LinkServer) -> None:
    frozen = make_frozen(0)
    with pytest.raises(ValueError, match="frozen tensors of weights version 1 do not have the content hash"):
        server.publish_weights(make_weights(1, FrozenTensors("0" * 32, frozen.tensors)))
    server.publish_weights(make_weights(1, frozen))
    with pytest.raises(ValueError, match="do not have the content hash"):  # the hash covers which frozen part it is
        server.publish_weights(dataclasses.replace(make_weights(2, frozen), frozen=make_frozen(1)))


def test_a_tensor_is_trained_or_frozen() -> None:
    with pytest.raises(ValueError, match=r"\['w'\] are both trained and frozen"):
        Weights.create(1, {"w": np.zeros(1)}, FrozenTensors.create({"w": np.zeros(1)}))


# --------------------------------------------------------------------------------------- the codec

ARRAYS = arrays.arrays(st.sampled_from(["f4", "f2", "i8", "u1"]), arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=2))


@settings(max_examples=150, deadline=None)
@given(st.lists(ARRAYS, max_size=3), st.lists(ARRAYS, max_size=6), st.data())
def test_any_weights_come_back_with_and_without_their_frozen_part(trained: list, frozen: list, data: st.DataObject) -> None:
    twice = [data.draw(st.sampled_from(frozen)) for _ in range(2)] if frozen else []
    held = FrozenTensors.create({f"frozen.{index}": array for index, array in enumerate(frozen + twice)})
    published = Weights.create(3, {f"trained.{index}": array for index, array in enumerate(trained)}, held)
    payload = encode_weights(published, HANDSHAKE)
    first = decode_weights(payload + encode_frozen(held), HANDSHAKE)
    second = decode_weights(payload, HANDSHAKE, first.frozen)
    for received in (first, second):
        assert received.content_hash == published.content_hash
        assert received.tensors.keys() == published.tensors.keys()
        for name, array in published.tensors.items():
            assert (received.tensors[name].dtype, received.tensors[name].shape) == (array.dtype, array.shape)
            assert received.tensors[name].tobytes() == array.tobytes()


def test_a_frozen_copy_of_nothing_or_under_a_taken_name_is_refused() -> None:
    frozen = FrozenTensors.create({"a": np.zeros(2), "b": np.ones(2)})
    published = Weights.create(1, {}, frozen)
    for name, source in (("c", "missing"), ("a", "b")):
        message = link_pb2.Weights.FromString(encode_weights(published, HANDSHAKE) + encode_frozen(frozen))
        message.frozen_copies[name] = source
        with pytest.raises(TransportError, match=f"the frozen `{name}` cannot be a copy of `{source}`"):
            decode_weights(message.SerializeToString(), HANDSHAKE)


def test_weights_are_not_taken_with_another_frozen_part() -> None:
    """Two learners' encoders have the same names and shapes: only their values tell them apart."""
    with pytest.raises(TransportError, match="came without their frozen tensors"):
        decode_weights(encode_weights(make_weights(1, make_frozen(0)), HANDSHAKE), HANDSHAKE, make_frozen(1))


def test_an_actor_that_is_told_of_new_weights_gets_the_newest(server: LinkServer, client: LinkClient) -> None:
    frozen = make_frozen(0)
    for version in range(1, 30):
        server.publish_weights(make_weights(version, frozen))
    wait_until(lambda: client._fetched_version == 29)
    assert_same(client.wait_for_weights(1), make_weights(29, frozen))
