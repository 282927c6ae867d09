"""The servo bus of one arm, as its host sees it: six STS3215 on a serial port (facts: Feetech's protocol 0).

One sync read a tick brings positions, velocities, loads, voltages, temperatures, currents and error bytes, and
what tells that a servo has started anew. Input is purged before each request, and the size that is asked for
changes from read to read: an answer that comes late is recognised by its size and never taken for a newer one.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import serial
from numpy.typing import ArrayLike, NDArray

from hilserl.errors import BusError
from hilserl.robot.packets import BROADCAST, Instruction, Packet, PacketReader
from hilserl.robot.registers import BY_NAME, MODEL_STS3215, find_register

Array = NDArray[np.floating[Any]]

BAUD_RATE = 1_000_000
SERVOS = (1, 2, 3, 4, 5, 6)
CURRENT_UNIT_A = 0.0065
_FIRST = BY_NAME["Torque_Enable"].address
_SIZES = (31, 32, 33)  # Torque_Enable to Present_Current, and up to two bytes more
_GAP_SHARE = 0.4  # of the timeout: silence after which no further servo answers
_TRIES = 3
_STOPS = 3  # blind writes of Torque_Enable, then checks, as often
_PAUSE_S = 0.002
_LOCK_S = 0.3  # stopping does not wait longer for whoever uses the bus
_MOVING = ("Torque_Enable", "Goal_Position", "Goal_Velocity", "Goal_Time")


@dataclass(frozen=True)
class BusState:
    """What six servos said in one sync read. Where a servo did not answer, numbers are NaN, errors 0 and flags false.

    Attributes:
        position_ticks: Shape (6,).
        velocity_ticks_s: [ticks/s], shape (6,).
        load: Duty of the motor, -1 to 1, shape (6,).
        voltage_v: Supply at the servo [V], shape (6,).
        temperature_c: [deg C], shape (6,).
        current_a: Magnitude [A], shape (6,).
        error: Error byte of the answer (1 voltage, 2 encoder, 4 heat, 8 current, 32 overload), shape (6,), uint8.
        answered: Shape (6,), bool.
        torque_on: Shape (6,), bool.
        goal_ticks: `Goal_Position`, shape (6,).
        acceleration: `Acceleration`, which is 0 after a servo has started anew, shape (6,).
        torque_limit: `Torque_Limit`, 0 to 1, shape (6,).
        lock: `Lock`, shape (6,).
        at: Time of the answer (time.monotonic()) [s].
    """

    position_ticks: Array
    velocity_ticks_s: Array
    load: Array
    voltage_v: Array
    temperature_c: Array
    current_a: Array
    error: NDArray[np.uint8]
    answered: NDArray[np.bool_]
    torque_on: NDArray[np.bool_]
    goal_ticks: Array
    acceleration: Array
    torque_limit: Array
    lock: Array
    at: float


class ServoBus:
    """Six servos on a serial port. Thread-safe; the port may be open elsewhere as well, where nobody else reads.

    Attributes:
        port: Its name.
        timeout_s: How long an answer is waited for [s].
        latched: Stopped: nothing that could move a servo is written any more.
    """

    def __init__(self, port: str, *, timeout_s: float = 0.05) -> None:
        """Open the port; nothing is sent.

        Raises:
            BusError: It cannot be opened.
        """
        self.port = str(port)
        self.timeout_s = timeout_s
        self.latched = False
        self._lock = threading.RLock()
        self._reads = 0
        try:
            self._serial = serial.Serial(self.port, BAUD_RATE, timeout=0)
        except (OSError, ValueError, termios.error) as error:
            raise BusError(
                f"{self.port}: the arm's serial port cannot be opened ({error}). Plug in the arm's USB cable, find its port with "
                "`lerobot-find-port`, and set `robot.port`; a port that exists and is refused needs membership in the group of the port."
            ) from None

    # Reading

    def read_state(self) -> BusState:
        """Read all servos in one transaction.

        Raises:
            BusError: The port is gone; a servo that does not answer raises nothing.
        """
        with self._lock:
            self._reads += 1
            answers = self._sync_read(_FIRST, _SIZES[self._reads % len(_SIZES)])
        return _decode(answers, time.monotonic())

    def ping(self, servo: int) -> bool:
        """Tell whether a servo of the SO-101's model answers.

        Raises:
            BusError: The port is gone.
        """
        answer = self._ask(servo, Instruction.READ, _address_and_size("Model_Number"), 2)
        return answer is not None and int.from_bytes(answer.parameters, "little") == MODEL_STS3215

    def read(self, servo: int, register: str) -> int:
        """Return a register by LeRobot's name, with its sign.

        Raises:
            BusError: The servo does not answer, or the port is gone.
        """
        found = find_register(register)
        answer = self._ask(servo, Instruction.READ, _address_and_size(register), found.size)
        if answer is None:
            raise self._silent(servo, f"`{register}` cannot be read")
        return found.decode(int.from_bytes(answer.parameters, "little"))

    # Writing

    def write(self, servo: int, register: str, value: int) -> None:
        """Write a register and wait until the servo says so.

        Raises:
            BusError: The servo does not answer, the port is gone, or the bus is stopped and this could move the servo.
        """
        if value and register in _MOVING:
            self._refuse_when_latched()
        found = find_register(register)
        data = found.encode(value).to_bytes(found.size, "little")
        if self._ask(servo, Instruction.WRITE, bytes([found.address]) + data, 0) is None:
            raise self._silent(servo, f"`{register}` cannot be set to {value}")

    def write_goals(self, ticks: ArrayLike) -> None:
        """Send all six goals at once; no servo answers. A goal switches a servo's torque on.

        Args:
            ticks: `Goal_Position`, shape (6,), rounded.

        Raises:
            BusError: The bus is stopped, a goal is no position, or the port is gone.
        """
        self._refuse_when_latched()
        self._sync_write("Goal_Position", ticks, 4095)

    def write_torque_limits(self, permille: ArrayLike) -> None:
        """Send all six torque limits at once; no servo answers.

        Args:
            permille: `Torque_Limit` [0.1 %], shape (6,), rounded.

        Raises:
            BusError: A limit is outside 0 to 1000, or the port is gone.
        """
        self._sync_write("Torque_Limit", permille, 1000)

    # Ending

    def stop_all(self) -> dict[int, bool]:
        """Switch the torque of all servos off, past every error, and refuse to move them from now on. Never raises.

        Returns:
            Whether each servo said that its torque is off, by id.
        """
        self.latched = True
        off = dict.fromkeys(SERVOS, False)
        held = self._lock.acquire(timeout=_LOCK_S)
        try:
            for _ in range(_STOPS):
                self._blind_off()
                with contextlib.suppress(BusError):
                    for servo, answer in self._sync_read(_FIRST, 1).items():
                        off[servo] = answer.parameters[0] == 0
                if all(off.values()):
                    break
        finally:
            if held:
                self._lock.release()
        return off

    def close(self) -> None:
        """Close the port; safe to call twice. It switches nothing off."""
        with contextlib.suppress(OSError, termios.error):
            self._serial.close()

    # The wire

    def _blind_off(self) -> None:
        data = b"".join(bytes([servo, 0]) for servo in SERVOS)
        request = Packet(BROADCAST, Instruction.SYNC_WRITE, bytes([_FIRST, 1]) + data)
        for _ in range(_STOPS):
            with contextlib.suppress(BusError):
                self._send(request)
            time.sleep(_PAUSE_S)

    def _sync_write(self, register: str, values: ArrayLike, highest: int) -> None:
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape != (len(SERVOS),) or not np.isfinite(numbers).all() or (numbers < 0).any() or (numbers > highest).any():
            raise BusError(f"`{register}` = {numbers.tolist()}: six numbers from 0 to {highest} are needed. Nothing was sent.")
        found = BY_NAME[register]
        pairs = zip(SERVOS, np.rint(numbers).astype(int).tolist(), strict=True)
        data = b"".join(bytes([servo]) + found.encode(value).to_bytes(found.size, "little") for servo, value in pairs)
        with self._lock:
            if register in _MOVING:
                self._refuse_when_latched()
            self._send(Packet(BROADCAST, Instruction.SYNC_WRITE, bytes([found.address, found.size]) + data))

    def _sync_read(self, address: int, size: int) -> dict[int, Packet]:
        request = Packet(BROADCAST, Instruction.SYNC_READ, bytes([address, size, *SERVOS]))
        self._purge()
        self._send(request)
        return self._collect(request, dict.fromkeys(SERVOS, size))

    def _ask(self, servo: int, instruction: Instruction, parameters: bytes, answer_size: int) -> Packet | None:
        """Ask one servo, several times if needed; None: it does not answer."""
        request = Packet(servo, instruction, parameters)
        with self._lock:
            for attempt in range(_TRIES):
                if attempt:
                    time.sleep(self.timeout_s)  # so that an answer which is only late is purged
                self._purge()
                self._send(request)
                if servo in (answers := self._collect(request, {servo: answer_size})):
                    return answers[servo]
        return None

    def _collect(self, request: Packet, sizes: Mapping[int, int]) -> dict[int, Packet]:
        """Return the answers of the servos asked, each of the size that was asked for."""
        reader, found = PacketReader(), dict[int, Packet]()
        echo = True  # some interfaces return what was sent
        until_s = time.monotonic() + self.timeout_s
        while len(found) < len(sizes) and (patience_s := until_s - time.monotonic()) > 0:
            for packet in reader.feed(self._receive(patience_s)):
                if echo and packet == request:
                    echo = False
                elif sizes.get(packet.servo_id) == len(packet.parameters) and packet.servo_id not in found:
                    found[packet.servo_id] = packet
                    until_s = time.monotonic() + _GAP_SHARE * self.timeout_s
        return found

    def _receive(self, patience_s: float) -> bytes:
        try:
            if not select.select([self._serial], [], [], patience_s)[0]:
                return b""
            data: bytes = self._serial.read(max(self._serial.in_waiting, 1))
        except (OSError, ValueError, TypeError, termios.error) as error:  # pyserial raises all of them when the cable is pulled
            raise self._gone(error) from None
        return data

    def _purge(self) -> None:
        try:
            self._serial.reset_input_buffer()
        except (OSError, termios.error) as error:
            raise self._gone(error) from None

    def _send(self, request: Packet) -> None:
        try:
            os.write(self._serial.fileno(), request.encode())  # pyserial's own calls a machine that stood still a write timeout
        except (OSError, termios.error) as error:
            raise self._gone(error) from None

    def _refuse_when_latched(self) -> None:
        if self.latched:
            raise BusError(f"{self.port}: the arm was stopped, so nothing moves it any more. Connect anew when it is safe.")

    def _silent(self, servo: int, what: str) -> BusError:
        return BusError(
            f"{self.port}: servo {servo} does not answer, so {what}. Check the arm's power supply and the cable to servo {servo} "
            f"(ids count from the base), and its id and baud rate with `lerobot-setup-motors`."
        )

    def _gone(self, error: Exception) -> BusError:
        return BusError(f"{self.port}: the serial port is gone ({error}). Plug the cable in again; look at the arm before it moves.")


def _address_and_size(register: str) -> bytes:
    found = find_register(register)
    return bytes([found.address, found.size])


def _decode(answers: Mapping[int, Packet], at: float) -> BusState:
    def row(name: str, scale: float = 1.0) -> Array:
        found = BY_NAME[name]
        start = found.address - _FIRST
        raws = [answers[servo].parameters[start : start + found.size] if servo in answers else None for servo in SERVOS]
        values = [np.nan if raw is None else found.decode(int.from_bytes(raw, "little")) * scale for raw in raws]
        return np.array(values, dtype=np.float64)

    return BusState(
        position_ticks=row("Present_Position"),
        velocity_ticks_s=row("Present_Velocity"),
        load=row("Present_Load", 0.001),
        voltage_v=row("Present_Voltage", 0.1),
        temperature_c=row("Present_Temperature"),
        current_a=row("Present_Current", CURRENT_UNIT_A),
        error=np.array([answers[servo].code if servo in answers else 0 for servo in SERVOS], dtype=np.uint8),
        answered=np.array([servo in answers for servo in SERVOS], dtype=np.bool_),
        torque_on=row("Torque_Enable") == 1,
        goal_ticks=row("Goal_Position"),
        acceleration=row("Acceleration"),
        torque_limit=row("Torque_Limit", 0.001),
        lock=row("Lock"),
        at=at,
    )
