"""Arrays on the wire: {dtype, shape, bytes}, checked when they come in.

Nothing received is trusted: dtype, number of dimensions, size and names are compared with the
bytes that are there before numpy sees them. Decoding does not copy, so decoded arrays are
read-only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.limits import MAX_DIMENSIONS, MAX_EXTENT, MAX_TENSOR_NAME

_DTYPES = {
    link_pb2.BOOL: np.dtype(np.bool_),
    link_pb2.UINT8: np.dtype(np.uint8),
    link_pb2.UINT16: np.dtype("<u2"),
    link_pb2.UINT32: np.dtype("<u4"),
    link_pb2.UINT64: np.dtype("<u8"),
    link_pb2.INT8: np.dtype(np.int8),
    link_pb2.INT16: np.dtype("<i2"),
    link_pb2.INT32: np.dtype("<i4"),
    link_pb2.INT64: np.dtype("<i8"),
    link_pb2.FLOAT16: np.dtype("<f2"),
    link_pb2.FLOAT32: np.dtype("<f4"),
    link_pb2.FLOAT64: np.dtype("<f8"),
}
# numpy calls a type equal to its little-endian form only on a little-endian machine.
_CODES = {dtype.newbyteorder("="): code for code, dtype in _DTYPES.items()}
SUPPORTED_DTYPES = tuple(_CODES)


def encode_tensor(array: np.ndarray, into: link_pb2.Tensor, name: str = "") -> None:
    """Fill one wire tensor from an array of any layout and byte order.

    Raises:
        TransportError: The dtype has no wire form, such as `object`.
    """
    into.dtype = _code(array.dtype, name)
    into.shape.extend(array.shape)
    into.data = bytes(_data(array))
    into.name = name


def named_fields(arrays: Mapping[str, np.ndarray], number: int) -> list[bytes | memoryview]:
    """Return the bytes of a message's repeated field `number` of wire tensors, one per name, in parts to be joined.

    What `encode_named` and protobuf make, without copying the data twice: the control thread sends pictures.

    Raises:
        TransportError: As `encode_tensor`.
    """
    parts: list[bytes | memoryview] = []
    for name, array in arrays.items():
        prefix = _prefix(number, name, array.dtype, array.shape)
        parts += (prefix, _data(array))
    return parts


def length_prefix(number: int, length: int) -> bytes:
    """Return what stands before the `length` bytes of a field of a protobuf message."""
    out = bytearray((number << 3 | 2,))
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


@lru_cache(maxsize=256)
def _prefix(number: int, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return all of a tensor's field but the data, which comes last."""
    code = _code(dtype, name)
    length = math.prod(shape) * dtype.itemsize
    head: bytes = link_pb2.Tensor(dtype=code, shape=shape, name=name).SerializeToString()
    head += length_prefix(link_pb2.Tensor.DATA_FIELD_NUMBER, length)
    return length_prefix(number, len(head) + length) + head


def _code(dtype: np.dtype, name: str) -> link_pb2.DType:
    code = _CODES.get(dtype.newbyteorder("="))
    if code is None:
        raise TransportError(
            f"{_quoted(name)}arrays of dtype {dtype} cannot be sent over the link. "
            f"Convert it to one of {[str(supported) for supported in SUPPORTED_DTYPES]}."
        )
    return code


def _data(array: np.ndarray) -> bytes | memoryview:
    """Return the array's bytes, little-endian and in C order; a view where they are that already."""
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.data.cast("B") if array.flags.c_contiguous and array.size and array.ndim else array.tobytes()


def decode_tensor(message: link_pb2.Tensor) -> np.ndarray:
    """Return the array of one wire tensor, read-only and without a copy.

    Raises:
        TransportError: dtype, shape and bytes do not belong together.
    """
    dtype = _DTYPES.get(message.dtype)
    if dtype is None:
        raise TransportError(f"{_quoted(message.name)}a received tensor has the unknown dtype code {message.dtype}.")
    if len(message.shape) > MAX_DIMENSIONS:
        raise TransportError(
            f"{_quoted(message.name)}a received tensor has {len(message.shape)} dimensions, at most {MAX_DIMENSIONS} are read."
        )
    shape = tuple(message.shape)
    if any(extent > MAX_EXTENT for extent in shape):
        raise TransportError(f"{_quoted(message.name)}a received tensor has the impossible shape {shape}.")
    data = message.data
    size = math.prod(shape)
    if size * dtype.itemsize != len(data) or math.prod(max(1, extent) for extent in shape) > MAX_EXTENT:
        raise TransportError(
            f"{_quoted(message.name)}a received tensor of dtype {dtype} and shape {shape} needs {size * dtype.itemsize} bytes, "
            f"{len(data)} came. The sender is damaged or speaks another protocol."
        )
    if dtype == np.bool_ and data.strip(b"\x00\x01"):
        raise TransportError(f"{_quoted(message.name)}a received bool tensor holds bytes other than 0 and 1.")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def encode_named(arrays: Mapping[str, np.ndarray], into: Iterable[link_pb2.Tensor]) -> None:
    """Append one wire tensor per name to a repeated field."""
    for name, array in arrays.items():
        encode_tensor(array, into.add(), name)  # type: ignore[attr-defined]


def decode_named(messages: Iterable[link_pb2.Tensor], *, what: str, limit: int) -> dict[str, np.ndarray]:
    """Return the named arrays of a repeated field.

    Args:
        messages: The wire tensors.
        what: What they are together, for the error.
        limit: Most tensors allowed.

    Raises:
        TransportError: Too many, unnamed or twice the same, or one of them is malformed.
    """
    arrays: dict[str, np.ndarray] = {}
    for message in messages:
        name = message.name
        if not name or len(name) > MAX_TENSOR_NAME or name in arrays:
            raise TransportError(f"A received {what} has a tensor with no, an overlong or a repeated name: {name[:MAX_TENSOR_NAME]!r}.")
        if len(arrays) >= limit:
            raise TransportError(f"A received {what} has more than {limit} tensors.")
        arrays[name] = decode_tensor(message)
    return arrays


def _quoted(name: str) -> str:
    return f"`{name[:MAX_TENSOR_NAME]}`: " if name else ""
