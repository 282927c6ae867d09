"""Fuzz of everything that reads bytes of others: random bytes, and valid messages changed in the ways that find mistakes.

python tests/link/fuzz.py COUNT [SEED]     prints how many inputs each reader got, and what became of them

Only `TransportError` may come out; `scan` of a journal may not raise at all. Each input is bounded in time and memory.
atheris, which is guided by coverage, does not exist for this Python; the changes below know the format instead.
"""

import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from google.protobuf.message import DecodeError
from link_testing import HANDSHAKE, make_report, make_step

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.codec import (
    decode_actor_message,
    decode_record,
    decode_status,
    decode_weights,
    encode_frozen,
    encode_handshake,
    encode_record,
    encode_status,
    encode_weights,
)
from hilserl.link.journal_format import pack_header, scan
from hilserl.link.messages import FrozenTensors, LearnerAlarm, LearnerStatus, Weights

LONGEST_S = 2.0  # of one input; they take some ten microseconds
LARGEST_MB = 300  # of the whole process above where it began
_SALT = 12345


def _weights() -> bytes:
    frozen = FrozenTensors.create({f"vision.{name}.w": np.arange(4, dtype=np.float32) for name in ("front", "side")})
    weights = Weights.create(3, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((), np.float64)}, frozen)
    return encode_weights(weights, HANDSHAKE) + encode_frozen(frozen)


def _hello() -> bytes:
    hello = link_pb2.Hello(handshake=encode_handshake(HANDSHAKE), actor_id="a", robot_id="r", stream_id=bytes(16))
    return link_pb2.ActorMessage(hello=hello).SerializeToString()


def _batch() -> bytes:
    records = [link_pb2.Envelope(seq=number, previous_seq=number - 1, payload=encode_record(make_step(number))) for number in (1, 2)]
    return link_pb2.ActorMessage(batch=link_pb2.Batch(records=records)).SerializeToString()


def _journal() -> bytes:
    payloads = [b"", b"short", bytes(300), encode_record(make_step(1))]
    return b"".join(pack_header(seq, payload, _SALT) + payload for seq, payload in enumerate(payloads, 1))


class Journals:
    """Reads journal bytes through a file, as `Journal` does."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("fuzz")

    def read(self, data: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        offset = 0
        for seq, payload, behind in scan(self._descriptor, 0, len(data), _SALT, lambda at: None):
            assert 0 <= offset < behind <= len(data) and seq >= 0 and len(payload) <= len(data), "a record that is not in the bytes"
            offset = behind


def readers() -> dict[str, tuple[Callable[[bytes], object], list[bytes]]]:
    """Return, by name, what reads bytes of others, and valid input for it."""
    steps = [encode_record(make_step(3)), encode_record(make_step(4, ended=True)), encode_record(make_report(2))]
    alarms = (LearnerAlarm("regressed", "It is worse."),)
    status = encode_status(LearnerStatus("training", -3, 40, 5, 6, 7, "all is well", alarms)).SerializeToString()

    def read_status(data: bytes) -> None:
        try:
            message = link_pb2.LearnerStatus.FromString(data)
        except DecodeError:
            return  # gRPC does this part, and ends the call
        decode_status(message)

    return {
        "decode_record": (decode_record, steps),
        "decode_actor_message": (decode_actor_message, [_hello(), _batch()]),
        "decode_weights": (lambda data: decode_weights(data, HANDSHAKE), [_weights()]),
        "decode_status": (read_status, [status]),
        "scan": (Journals().read, [_journal()]),
    }


class Mutator:
    """Changes valid bytes in ways that keep much of their meaning."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def change(self, valid: list[bytes]) -> bytes:
        """Return one input: random, or one of `valid` changed some times."""
        choose = self._random
        if choose.random() < 0.1:
            return choose.randbytes(choose.choice((0, 1, 3, 16, 100, 1000)))
        data = bytearray(choose.choice(valid))
        for _ in range(choose.choice((1, 1, 1, 2, 4, 16))):
            choose.choice(self._changes)(self, data, valid)
            if len(data) > 1 << 16:
                del data[1 << 16 :]
        return bytes(data)

    def _at(self, data: bytearray) -> int:
        # Most of the structure stands at the front; the rest are pixels.
        return self._random.randrange(min(len(data), self._random.choice((16, 64, 1 << 16))) or 1)

    def _flip(self, data: bytearray, valid: list[bytes]) -> None:
        if data:
            data[self._at(data)] ^= 1 << self._random.randrange(8)

    def _set(self, data: bytearray, valid: list[bytes]) -> None:
        if data:
            data[self._at(data)] = self._random.choice((0, 1, 0x7F, 0x80, 0xFF, self._random.randrange(256)))

    def _cut(self, data: bytearray, valid: list[bytes]) -> None:
        del data[self._at(data) :]

    def _remove(self, data: bytearray, valid: list[bytes]) -> None:
        at = self._at(data)
        del data[at : at + self._random.choice((1, 2, 8, 64))]

    def _repeat(self, data: bytearray, valid: list[bytes]) -> None:
        at = self._at(data)
        part = data[at : at + self._random.choice((1, 2, 8, 64))]
        data[at:at] = part * self._random.choice((1, 2, 100))

    def _insert(self, data: bytearray, valid: list[bytes]) -> None:
        at = self._at(data)
        data[at:at] = self._random.randbytes(self._random.choice((1, 2, 8, 64)))

    def _splice(self, data: bytearray, valid: list[bytes]) -> None:
        other = self._random.choice(valid)
        at, start = self._at(data), self._random.randrange(len(other) or 1)
        data[at:] = other[start:]

    def _number(self, data: bytearray, valid: list[bytes]) -> None:
        """A varint or a fixed number of an extreme value, such as a length or an extent."""
        value = self._random.choice((2**31, 2**32 - 1, 2**63, 2**64 - 1, 10**6, 255, 0))
        if self._random.random() < 0.5:
            encoded = bytearray()
            while value > 0x7F:
                encoded.append(value & 0x7F | 0x80)
                value >>= 7
            encoded.append(value)
        else:
            encoded = bytearray(value.to_bytes(8, "little"))
        at = self._at(data)
        data[at : at + (len(encoded) if self._random.random() < 0.5 else 1)] = encoded

    def _bomb(self, data: bytearray, valid: list[bytes]) -> None:
        """Very many empty fields of one number."""
        key = bytes([self._random.randrange(1, 10) << 3 | 2, 0])
        data += key * self._random.choice((10, 50, 200, 2000))

    _changes = (_flip, _flip, _set, _cut, _remove, _repeat, _insert, _splice, _number, _number, _bomb)


def fuzz(count: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Give each reader its share of `count` inputs; returns how many were taken and refused.

    Raises:
        AssertionError: Something else than `TransportError` came out, or an input cost too much; shows it.
    """
    results: dict[str, Counter[str]] = {}
    mutator = Mutator(seed)
    targets = readers()
    began_mb = _memory_mb()
    for index, (name, (read, valid)) in enumerate(targets.items()):
        results[name] = Counter()
        for _ in range(count // len(targets) + (index < count % len(targets))):
            data = mutator.change(valid)
            started = time.perf_counter()
            try:
                read(data)
                results[name]["taken"] += 1
            except TransportError as error:
                assert len(str(error)) < 20_000, f"{name}: an error of {len(str(error))} characters"
                results[name]["refused"] += 1
            except BaseException as error:
                raise AssertionError(f"{name} raised {error!r} of {data[:2000]!r}") from error
            took_s = time.perf_counter() - started
            assert took_s < LONGEST_S, f"{name} took {took_s:.1f} s for {len(data)} bytes {data[:2000]!r}"
        assert _memory_mb() - began_mb < LARGEST_MB, f"{name}: memory grew from {began_mb:.0f} to {_memory_mb():.0f} MB"
    return results


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    started = time.perf_counter()
    found = fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for name, counts in found.items():
        print(f"{name:22} {counts.total():>9,} inputs: {counts['taken']:>9,} taken, {counts['refused']:>9,} refused")
    print(
        f"{sum(counts.total() for counts in found.values()):,} inputs in {time.perf_counter() - started:.0f} s, peak {_memory_mb():.0f} MB"
    )
