"""Feetech's protocol 0: bytes to packets and back.

Request and answer look alike: FF FF, id, length, instruction or error, parameters, checksum. The length counts
what follows it; the checksum is the complement of the sum from the id on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

BROADCAST = 0xFE
HEADER = b"\xff\xff"
_FRAME = 4  # header, id, length
_LONGEST = 250


class Instruction(IntEnum):
    """What a request asks for."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    RECOVERY = 0x06
    REBOOT = 0x08
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


@dataclass(frozen=True)
class Packet:
    """One packet.

    Attributes:
        servo_id: Whom it is for, or from.
        code: Instruction of a request, error byte of an answer.
        parameters: The rest.
    """

    servo_id: int
    code: int
    parameters: bytes = b""

    def encode(self) -> bytes:
        """Return the packet as it goes over the wire."""
        body = bytes([self.servo_id, len(self.parameters) + 2, self.code]) + self.parameters
        return HEADER + body + bytes([checksum(body)])


class PacketReader:
    """Finds packets in a stream of bytes.

    Attributes:
        damaged: How many bytes or packets were skipped because they made no sense.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self._buffer = bytearray()

    @property
    def waiting(self) -> bool:
        """Whether a packet has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes, return the packets that they complete."""
        self._buffer += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def forget(self) -> None:
        """Drop a packet that never ended."""
        if self._buffer:
            self.damaged += 1
            self._buffer.clear()

    def _next(self) -> Packet | None:
        while True:
            start = self._buffer.find(HEADER)
            if start < 0:
                keep = 1 if self._buffer.endswith(b"\xff") else 0
                self._skip(len(self._buffer) - keep)
                return None
            self._skip(start)
            if len(self._buffer) < _FRAME:
                return None
            servo_id, length = self._buffer[2], self._buffer[3]
            if servo_id == 0xFF or not 2 <= length <= _LONGEST:
                self._skip(1)
                continue
            if len(self._buffer) < _FRAME + length:
                return None
            frame = bytes(self._buffer[: _FRAME + length])
            if checksum(frame[2:-1]) != frame[-1]:
                self._skip(1)
                continue
            del self._buffer[: len(frame)]
            return Packet(servo_id, frame[4], frame[5:-1])

    def _skip(self, count: int) -> None:
        if count:
            self.damaged += 1
            del self._buffer[:count]


def checksum(body: bytes) -> int:
    """Return the checksum of everything from the id on."""
    return ~sum(body) & 0xFF
