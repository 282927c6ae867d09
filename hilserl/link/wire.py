"""A look at protobuf bytes before they are parsed: how many parts are in there.

Parsing makes some fifty bytes of memory of an empty part, which takes two on the wire: without a look first, a message
of the largest size allowed would cost gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hilserl.errors import TransportError
from hilserl.link.limits import MAX_BATCH_RECORDS, MAX_DIMENSIONS, MAX_OBSERVATION_TENSORS, MAX_WEIGHT_TENSORS

_SMALL_BYTES = 16 << 10  # whatever is in there, it parses to less than a megabyte
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Shape:
    """What a message may be made of.

    Attributes:
        fields: Most fields, repeated ones counted each time.
        parts: Messages inside it, by field number.
        packed: Most bytes of a packed repeated number, by field number.
    """

    fields: int
    parts: Mapping[int, Shape] = field(default_factory=dict)
    packed: Mapping[int, int] = field(default_factory=dict)


# Field numbers of link.proto; a test compares them with it.
_TENSOR = Shape(fields=4 + MAX_DIMENSIONS, packed={2: 10 * MAX_DIMENSIONS})
_STEP = Shape(fields=16 + 2 * MAX_OBSERVATION_TENSORS, parts={3: _TENSOR, 4: _TENSOR, 9: _TENSOR})
RECORD = Shape(fields=4, parts={1: _STEP, 2: Shape(fields=64)})
_BATCH = Shape(fields=MAX_BATCH_RECORDS)
_HELLO = Shape(fields=16, parts={1: Shape(fields=16)})
ACTOR_MESSAGE = Shape(fields=4, parts={1: _HELLO, 2: _BATCH, 3: Shape(fields=16)})
WEIGHTS = Shape(fields=16 + 3 * MAX_WEIGHT_TENSORS, parts={5: _TENSOR, 7: _TENSOR, 8: Shape(fields=4)})


def check_shape(payload: bytes, shape: Shape) -> None:
    """Refuse bytes that are no protobuf message, or one of more parts than `shape` allows.

    Raises:
        TransportError: They are.
    """
    if len(payload) > _SMALL_BYTES:
        _check(payload, 0, len(payload), shape)


def _check(data: bytes, at: int, end: int, shape: Shape) -> None:
    count = 0
    while at < end:
        count += 1
        if count > shape.fields:
            raise TransportError(f"A received message has a part of more than {shape.fields} fields; refused.")
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        if kind == _LENGTH:
            length, at = _varint(data, at, end)
            if length > end - at or length > shape.packed.get(number, length):
                raise _damaged()
            if length and (part := shape.parts.get(number)):
                _check(data, at, at + length, part)
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _damaged()
    if at != end:
        raise _damaged()


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at byte `at`, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _damaged()


def _damaged() -> TransportError:
    return TransportError("Received bytes are not a message of the link. The sender is damaged or speaks another protocol.")
