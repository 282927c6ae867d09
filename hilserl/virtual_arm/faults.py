"""What can go wrong between the host and the servos. Shares are of requests or answers, drawn with a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

from hilserl.robot.packets import Packet

_FOREIGN_ID = 42


@dataclass
class WireFaults:
    """What happens to packets.

    Attributes:
        drop: Share of answers that are lost.
        drop_next: This many answers are lost, from now on.
        flip: Share of answers with one bit flipped.
        drop_requests: Share of requests that are lost.
        flip_requests: Share of requests with one bit flipped.
        late: Share of requests whose answers come `late_s` late.
        late_next: The answers of this many requests come `late_s` late, from now on.
        late_s: How late [s].
        foreign: Share of requests that somebody else also answers, first, under an id that nobody asked.
        babble_hz: Packets a second that nobody asked for.
        echo: The interface returns what the host sends.
    """

    drop: float = 0.0
    drop_next: int = 0
    flip: float = 0.0
    drop_requests: float = 0.0
    flip_requests: float = 0.0
    late: float = 0.0
    late_next: int = 0
    late_s: float = 0.06
    foreign: float = 0.0
    babble_hz: float = 0.0
    echo: bool = False

    @classmethod
    def names(cls) -> list[str]:
        """Return what can be set."""
        return [field.name for field in fields(cls)]


class FaultyWire:
    """Applies the faults.

    Attributes:
        faults: What happens now; may be replaced at any time.
        counts: How often what happened.
    """

    def __init__(self, seed: int) -> None:
        self.faults = WireFaults()
        self.counts = dict.fromkeys(("dropped", "flipped", "late", "foreign"), 0)
        self._random = random.Random(seed)

    def request(self, data: bytes) -> bytes:
        """Return what the servos hear of a request."""
        if self._happens(self.faults.drop_requests):
            self.counts["dropped"] += 1
            return b""
        return self._flipped(data) if self._happens(self.faults.flip_requests) else data

    def answer(self, data: bytes) -> bytes:
        """Return what the host hears of an answer."""
        if self.faults.drop_next > 0:
            self.faults.drop_next -= 1
            self.counts["dropped"] += 1
            return b""
        if self._happens(self.faults.drop):
            self.counts["dropped"] += 1
            return b""
        return self._flipped(data) if self._happens(self.faults.flip) else data

    def delay_s(self) -> float:
        """Return how late the answers of the next request come [s]."""
        if self.faults.late_next > 0:
            self.faults.late_next -= 1
        elif not self._happens(self.faults.late):
            return 0.0
        self.counts["late"] += 1
        return self.faults.late_s

    def foreign(self) -> bytes:
        """Return what somebody else says before the answer; mostly nothing."""
        return self.foreign_packet() if self._happens(self.faults.foreign) else b""

    def foreign_packet(self) -> bytes:
        """Return a valid packet that nobody asked for."""
        self.counts["foreign"] += 1
        return Packet(_FOREIGN_ID, 0, self._random.randbytes(2)).encode()

    def _happens(self, share: float) -> bool:
        return share > 0.0 and self._random.random() < share

    def _flipped(self, data: bytes) -> bytes:
        self.counts["flipped"] += 1
        damaged = bytearray(data)
        damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        return bytes(damaged)
