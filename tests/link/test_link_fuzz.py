"""The readers of others' bytes, fed with what nobody would send."""

import dataclasses
import time
import tracemalloc

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_testing import HANDSHAKE, make_step

from hilserl.errors import TransportError
from hilserl.link import link_pb2, wire
from hilserl.link.codec import decode_actor_message, decode_record, decode_status, decode_weights, encode_record
from hilserl.link.limits import MAX_ALARM_TEXT, MAX_ALARMS, MAX_BATCH_RECORDS, MAX_COUNT, MAX_STATUS_TEXT

pytestmark = pytest.mark.failure("R18")


def test_some_thousand_inputs() -> None:
    results = fuzz.fuzz(5_000, seed=1)
    for name, counts in results.items():
        assert counts["refused"] or name == "scan", f"nothing was refused by {name}"
        assert counts["taken"], f"nothing got through to the end of {name}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_inputs() -> None:
    results = fuzz.fuzz(1_000_000, seed=2)
    assert sum(counts.total() for counts in results.values()) >= 1_000_000
    print(results)


READERS = fuzz.readers()


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.data())
def test_hypothesis_finds_nothing_either(name: str, data: st.DataObject) -> None:
    """The same readers, with inputs that hypothesis shrinks to the smallest that fails."""
    read, valid = READERS[name]
    base = bytearray(data.draw(st.sampled_from(valid)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, min(len(base), 80)))
        base[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    try:
        read(bytes(base))
    except TransportError:
        return


# ------------------------------------------------------------------------ small bytes, much memory


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def part(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


BOMBS = {
    "a million records": (decode_actor_message, part(2, part(1, b"") * 1_000_000)),
    "a million times a batch": (decode_actor_message, part(2, b"") * 1_000_000),
    "a million tensors": (decode_record, part(1, part(3, b"") * 1_000_000)),
    "a million steps in one": (decode_record, part(1, b"") * 1_000_000),
    "a million dimensions": (decode_record, part(1, part(3, part(2, b"\x01" * 1_000_000)))),
    "a million dimensions, unpacked": (decode_record, part(1, part(4, b"\x10\x01" * 1_000_000))),
    "a million weights": (lambda data: decode_weights(data, HANDSHAKE), part(5, b"") * 1_000_000),
    "a million copies of weights": (lambda data: decode_weights(data, HANDSHAKE), part(8, b"") * 1_000_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_of_parts_is_refused_before_it_is_parsed(name: str) -> None:
    """Parsed, each would take from eight to a hundred times its bytes."""
    read, data = BOMBS[name]
    tracemalloc.start()
    before = fuzz._memory_mb()
    with pytest.raises(TransportError):
        read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 and fuzz._memory_mb() - before < 8


def test_a_batch_as_large_as_allowed_is_taken_and_one_record_more_is_not() -> None:
    def batch(count: int) -> bytes:
        records = [link_pb2.Envelope(seq=number, payload=bytes(30)) for number in range(1, count + 1)]
        return link_pb2.ActorMessage(batch=link_pb2.Batch(records=records)).SerializeToString()

    assert len(decode_actor_message(batch(MAX_BATCH_RECORDS)).batch.records) == MAX_BATCH_RECORDS
    with pytest.raises(TransportError, match="more than 1024 fields"):
        decode_actor_message(batch(MAX_BATCH_RECORDS + 1))


def test_the_look_at_the_bytes_knows_the_protocols_fields() -> None:
    """Every message inside another one is looked into, under its own number; the tensors' data are not."""

    def compare(shape: wire.Shape, message: object) -> None:
        parts = {f.number: f.message_type for f in message.fields if f.message_type is not None}
        assert shape.parts.keys() == parts.keys() or not shape.parts, message.full_name
        for number, inner in shape.parts.items():
            compare(inner, parts[number])

    names = link_pb2.DESCRIPTOR.message_types_by_name
    for shape, name in ((wire.RECORD, "Record"), (wire.ACTOR_MESSAGE, "ActorMessage"), (wire.WEIGHTS, "Weights")):
        compare(shape, names[name])
    assert names["Tensor"].fields_by_name["shape"].number in wire._TENSOR.packed


def test_a_frozen_tensor_may_not_be_copied_to_gigabytes() -> None:
    message = link_pb2.Weights(architecture_hash="architecture", schema_hash="schema", frozen_hash="x")
    message.frozen.add(name="a", dtype=link_pb2.UINT8, shape=[1 << 20], data=bytes(1 << 20))
    for number in range(2000):
        message.frozen_copies[f"c{number}"] = "a"
    started = time.monotonic()
    with pytest.raises(TransportError, match="more than 1073741824 bytes"):
        decode_weights(message.SerializeToString(), HANDSHAKE)
    assert time.monotonic() - started < 5  # hashing them takes longer by far on any machine


@pytest.mark.parametrize("number", [-1, MAX_COUNT + 1, 2**64 - 1])
def test_a_number_that_no_run_reaches_is_refused(number: int) -> None:
    with pytest.raises(TransportError, match="below 0 or above"):
        encode_record(dataclasses.replace(make_step(1), episode=number))
    if number > 0:
        message = link_pb2.Record.FromString(encode_record(make_step(1)))
        message.step.step = number
        with pytest.raises(TransportError, match="below 0 or above"):
            decode_record(message.SerializeToString())


def test_a_report_that_is_not_finite_is_refused() -> None:
    message = link_pb2.Record(episode=link_pb2.EpisodeReport(episode=1, episode_return=float("nan")))
    with pytest.raises(TransportError, match="report of episode 1 has a number that is not finite"):
        decode_record(message.SerializeToString())


@pytest.mark.parametrize("alarms", [[link_pb2.Alarm(name="a")] * (MAX_ALARMS + 1), [link_pb2.Alarm(text="x" * (MAX_ALARM_TEXT + 1))]])
def test_a_status_with_too_many_alarms_or_too_long_ones_is_refused(alarms: list) -> None:
    with pytest.raises(TransportError, match="more than 20 alarms, or one of more than 500 characters"):
        decode_status(link_pb2.LearnerStatus(phase=1, alarms=alarms))


def test_a_status_with_a_book_in_it_is_refused() -> None:
    with pytest.raises(TransportError, match="at most 4096 are read"):
        decode_status(link_pb2.LearnerStatus(phase=1, message="x" * (MAX_STATUS_TEXT + 1)))
