"""The half-duplex wire that the servos share: who hears a request, who answers, in which order, and when."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

from hilserl.robot.packets import BROADCAST, Instruction, Packet, PacketReader
from hilserl.virtual_arm.faults import FaultyWire
from hilserl.virtual_arm.servo import Servo

_BITS_PER_BYTE = 10
_GIVE_UP_S = 0.02  # a packet that began and does not end within this is forgotten


@dataclass(frozen=True)
class Timing:
    """How long things take.

    Attributes:
        wire: Whether bytes take the time that the baud rate says.
        usb_latency_s: From the last byte of an answer to the host [s].
    """

    wire: bool = True
    usb_latency_s: float = 0.0


class Bus:
    """Servos on one wire.

    Attributes:
        faults: What goes wrong on it.
        timing: How long things take.
        counts: Requests by instruction, and what was not understood.
    """

    def __init__(
        self, servos: Sequence[Servo], timing: Timing, faults: FaultyWire, after: Callable[[Packet], None] = lambda packet: None
    ) -> None:
        """Connect servos.

        Args:
            servos: All that are on the wire.
            timing: How long things take.
            faults: What goes wrong.
            after: Called when a request has been carried out.
        """
        self.timing = timing
        self.faults = faults
        self.counts: dict[str, int] = {}
        self._servos = servos
        self._after = after
        self._reader = PacketReader()
        self._outgoing: list[tuple[float, int, bytes]] = []
        self._sequence = 0
        self._host_until_s = 0.0  # the host's last request is on the wire until then
        self._servos_until_s = 0.0  # the servos' last answer is
        self._heard_s = 0.0
        self._babble_s = 0.0

    def receive(self, data: bytes, now_s: float, baud_rate: int) -> None:
        """Take bytes from the host, carry out what they ask for, and queue the answers.

        Args:
            data: As written to the port.
            now_s: Time [s], of a clock that does not run backwards.
            baud_rate: What the host's port is set to [bit/s].
        """
        damaged = self._reader.damaged
        if self._reader.waiting and now_s - self._heard_s > _GIVE_UP_S:
            self._reader.forget()
        self._heard_s = now_s
        if self.faults.faults.echo:
            self._send(data, now_s)
        for packet in self._reader.feed(self.faults.request(data)):
            self._carry_out(packet, now_s, baud_rate)
        self._count("damaged", self._reader.damaged - damaged)

    def due(self, now_s: float) -> bytes:
        """Return the bytes that reach the host by now."""
        self._babble(now_s)
        data = bytearray()
        while self._outgoing and self._outgoing[0][0] <= now_s:
            data += heapq.heappop(self._outgoing)[2]
        return bytes(data)

    def next_due_s(self) -> float | None:
        """Return when the next bytes reach the host; None: nothing is on its way."""
        return self._outgoing[0][0] if self._outgoing else None

    def _carry_out(self, packet: Packet, now_s: float, baud_rate: int) -> None:
        begins_s = max(now_s, self._host_until_s)
        self._host_until_s = ends_s = begins_s + self._wire_s(len(packet.parameters) + 6, baud_rate)
        if begins_s < self._servos_until_s:
            self._count("collisions")  # both talk at once
            return
        try:
            instruction = Instruction(packet.code)
        except ValueError:
            self._count("unknown")
            return
        self._count(instruction.name)
        hearing = [servo for servo in self._servos if servo.hears and servo.baud_rate == baud_rate]
        answers = list(self._execute(instruction, packet, hearing))
        at_s, late_s = ends_s, self.faults.delay_s()
        if stranger := self.faults.foreign():
            self._send(stranger, at_s + self.timing.usb_latency_s + late_s)
        for answer, delay_s in answers:
            at_s += (delay_s if self.timing.wire else 0.0) + self._wire_s(len(answer), baud_rate)
            if heard := self.faults.answer(answer):
                self._send(heard, at_s + self.timing.usb_latency_s + late_s)
        self._servos_until_s = at_s
        self._after(packet)

    def _execute(self, instruction: Instruction, packet: Packet, hearing: list[Servo]) -> Iterator[tuple[bytes, float]]:
        """Carry out a request; yield each answer and how long its servo waits before it [s]."""
        everybody = packet.servo_id == BROADCAST
        parameters = packet.parameters
        addressed = [servo for servo in hearing if everybody or servo.servo_id == packet.servo_id]
        match instruction:
            case Instruction.PING:
                for servo_id in sorted({servo.servo_id for servo in addressed}):
                    yield self._together([servo for servo in addressed if servo.servo_id == servo_id])
            case Instruction.READ if len(parameters) == 2 and not everybody and addressed:
                yield self._together(addressed, read=(parameters[0], parameters[1]))
            case Instruction.SYNC_READ if len(parameters) > 2 and everybody:
                for servo_id in parameters[2:]:
                    if asked := [servo for servo in hearing if servo.servo_id == servo_id]:
                        yield self._together(asked, read=(parameters[0], parameters[1]))
            case Instruction.SYNC_WRITE if len(parameters) > 2 and everybody:
                address, size = parameters[:2]
                for start in range(2, len(parameters) - size, size + 1):
                    for servo in hearing:
                        if servo.servo_id == parameters[start]:
                            servo.write(address, parameters[start + 1 : start + 1 + size])
            case Instruction.READ | Instruction.SYNC_READ | Instruction.SYNC_WRITE:
                self._count("unknown")
            case _:
                quiet = everybody or not addressed or not addressed[0].answers_writes
                answer = (b"", 0.0) if quiet else self._together(addressed)  # under the id that was asked, before it changes
                for servo in addressed:
                    self._change(instruction, servo, parameters)
                if not quiet:
                    yield answer

    @staticmethod
    def _change(instruction: Instruction, servo: Servo, parameters: bytes) -> None:
        match instruction:
            case Instruction.WRITE if len(parameters) > 1:
                servo.write(parameters[0], parameters[1:])
            case Instruction.REG_WRITE if len(parameters) > 1:
                servo.write_later(parameters[0], parameters[1:])
            case Instruction.ACTION:
                servo.act()
            case Instruction.RECOVERY:
                servo.reset_to_factory()
            case Instruction.REBOOT:
                servo.reboot()

    @staticmethod
    def _together(servos: list[Servo], read: tuple[int, int] | None = None) -> tuple[bytes, float]:
        """Return what servos of one id answer, all at the same time: on the wire a zero wins."""
        answers = [Packet(servo.servo_id, int(servo.status), servo.read(*read) if read else b"").encode() for servo in servos]
        return reduce(lambda one, other: bytes(a & b for a, b in zip(one, other, strict=True)), answers), servos[0].return_delay_s

    def _wire_s(self, count: int, baud_rate: int) -> float:
        return count * _BITS_PER_BYTE / baud_rate if self.timing.wire else 0.0

    def _send(self, data: bytes, at_s: float) -> None:
        heapq.heappush(self._outgoing, (at_s, self._sequence, data))
        self._sequence += 1

    def _babble(self, now_s: float) -> None:
        if self.faults.faults.babble_hz > 0 and now_s >= self._babble_s:
            self._babble_s = now_s + 1.0 / self.faults.faults.babble_hz
            self._send(self.faults.foreign_packet(), now_s)

    def _count(self, what: str, more: int = 1) -> None:
        if more:
            self.counts[what] = self.counts.get(what, 0) + more
