"""The bytes of a journal's segment: records one after another, found again behind damage.

A record is a header (magic, payload length, number, checksum of the payload, checksum of the
header) and its payload. The header's checksum starts from a salt, the journal's identity, so
that bytes of another journal inside a payload are never taken for a record.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator

_MAGIC = b"HJ1\n"
_HEADER = struct.Struct("<4sIQI")  # magic, payload length, seq, payload crc32
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_READ_BYTES = 1 << 20


def pack_header(seq: int, payload: bytes, salt: int) -> bytes:
    """Return what stands before `payload`, record number `seq`."""
    header = _HEADER.pack(_MAGIC, len(payload), seq, zlib.crc32(payload))
    return header + _CRC.pack(zlib.crc32(header, salt))


def scan(
    descriptor: int, start: int, end: int, salt: int, report_damage: Callable[[int], None], *, after: int = 0
) -> Iterator[tuple[int, bytes, int]]:
    """Yield (seq, payload, offset behind it) of every good record with a number above `after`."""
    offset, chunk, chunk_start = start, b"", start
    while offset + HEADER_BYTES <= end:
        at = offset - chunk_start
        if at + HEADER_BYTES > len(chunk):
            chunk, chunk_start, at = os.pread(descriptor, min(_READ_BYTES, end - offset), offset), offset, 0
        header = _parse_header(chunk, at, salt)
        if header is None:
            following = _find_header(descriptor, offset + 1, end, salt)
            if following is not None:  # else it is the torn tail, which `Journal` cuts off at opening
                report_damage(offset)
            offset = end if following is None else following
            continue
        length, seq, payload_crc = header
        behind = offset + HEADER_BYTES + length
        if seq <= after:
            offset = behind
            if offset - chunk_start > len(chunk):
                chunk, chunk_start = b"", offset
            continue
        if behind > end:
            return
        if at + HEADER_BYTES + length > len(chunk):
            chunk, chunk_start, at = os.pread(descriptor, max(_READ_BYTES, behind - offset), offset), offset, 0
        payload = chunk[at + HEADER_BYTES : at + HEADER_BYTES + length]
        if len(payload) == length and zlib.crc32(payload) == payload_crc:
            yield seq, payload, behind
        elif behind < end:
            report_damage(offset)
        offset = behind


def _parse_header(chunk: bytes, at: int, salt: int) -> tuple[int, int, int] | None:
    """Return (length, seq, payload crc) of the header at byte `at`, or None where there is none."""
    if len(chunk) < at + HEADER_BYTES:
        return None
    magic, length, seq, payload_crc = _HEADER.unpack_from(chunk, at)
    (crc,) = _CRC.unpack_from(chunk, at + _HEADER.size)
    if magic != _MAGIC or crc != zlib.crc32(chunk[at : at + _HEADER.size], salt):
        return None
    return length, seq, payload_crc


def _find_header(descriptor: int, start: int, end: int, salt: int) -> int | None:
    """Return the offset of the next good header at or after `start`."""
    offset = start
    while offset + HEADER_BYTES <= end:
        chunk = os.pread(descriptor, min(_READ_BYTES, end - offset), offset)
        if len(chunk) < HEADER_BYTES:
            return None
        at = chunk.find(_MAGIC)
        while at >= 0 and at + HEADER_BYTES <= len(chunk):
            if _parse_header(chunk, at, salt) is not None:
                return offset + at
            at = chunk.find(_MAGIC, at + 1)
        offset += len(chunk) - HEADER_BYTES + 1
    return None
