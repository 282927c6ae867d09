"""The process of a virtual arm: one loop that keeps time, serves the port, and listens on the control socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hilserl.config.models import CameraConfig
from hilserl.errors import RobotError
from hilserl.virtual_arm.arm import ArmOptions, VirtualArm
from hilserl.virtual_arm.calibration import write_lerobot_calibration
from hilserl.virtual_arm.camera import Cameras, frame_path
from hilserl.virtual_arm.control import Control
from hilserl.virtual_arm.eeprom import read_eeproms, write_eeproms
from hilserl.virtual_arm.port import SerialPort

_AT_ONCE = 4  # physics steps before the port is looked at again
_BEHIND_S = 0.25  # more than this is given up: the arm's time stands still for it
_IDLE_S = 0.05
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class ServerOptions:
    """What a process serves, and where.

    Attributes:
        folder: Holds everything below unless named: `port`, `control.sock`, `eeprom.json`, `calibration/<name>.json`,
            `cameras/<camera>.frames`.
        name: Of the arm; LeRobot's `--robot.id`.
        port: Path of the serial port; None: in the folder.
        keep_eeprom: The servos remember what they were told in an earlier run.
        arm: How the arm is built.
        hand: A request to `Control.hand` to begin with; None: nobody moves it.
        cameras: What sees the arm and its table, by name; each is one of the simulation's (`simulated_as`).
        camera_fps: Their frames per second in real time; in lock step a frame is made when a reader asks for one.
        until_stdin_ends: End when standard input does, so that it never outlives who started it.
    """

    folder: Path
    name: str = "follower"
    port: Path | None = None
    keep_eeprom: bool = False
    arm: ArmOptions = ArmOptions()  # noqa: RUF009 (frozen)
    hand: dict[str, Any] | None = None
    cameras: Mapping[str, CameraConfig] = field(default_factory=dict)
    camera_fps: float = 30.0
    until_stdin_ends: bool = False

    @property
    def port_path(self) -> Path:
        """Where the serial port is."""
        return self.port or self.folder / "port"

    @property
    def control_path(self) -> Path:
        """Where the control socket is."""
        return self.folder / "control.sock"

    @property
    def eeprom_path(self) -> Path:
        """Where EEPROM is kept."""
        return self.folder / "eeprom.json"

    @property
    def calibration_path(self) -> Path:
        """Where LeRobot's calibration of this arm is written."""
        return self.folder / "calibration" / f"{self.name}.json"

    def camera_path(self, camera: str) -> Path:
        """Where the frames of a camera are, for a `FrameReader`."""
        return frame_path(self.folder, camera)

    def to_json(self) -> str:
        """Write them as one line."""
        return _ADAPTER.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> ServerOptions:
        """Read what `to_json` wrote."""
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(ServerOptions)


class Server:
    """Serves one virtual arm until it is told to stop.

    Attributes:
        slipped_s: How long the arm's time stood still because the machine was too slow [s].
    """

    def __init__(self, options: ServerOptions) -> None:
        """Build the arm and open port and socket.

        Raises:
            RobotError: Another virtual arm runs in this folder, or the port cannot be made.
        """
        self._options = options
        options.folder.mkdir(parents=True, exist_ok=True)
        eeproms = read_eeproms(options.eeprom_path) if options.keep_eeprom else None
        arm = VirtualArm(options.arm, eeproms)
        self.slipped_s = 0.0
        self._listener = _listen(options.control_path)
        self._port = SerialPort(options.port_path)
        request_socket = options.control_path if options.arm.lock_step_hz is not None else None
        self._cameras = Cameras(options.cameras, options.folder, options.camera_fps, request_socket) if options.cameras else None
        self._control = Control(arm, self._port, self._cameras)
        self._peers: dict[socket.socket, bytearray] = {}
        self._saved = [bytes(servo.table.eeprom) for servo in arm.servos]
        self._zero_s = time.monotonic()
        if options.arm.calibrated and eeproms is None:  # else it is the user's, made with `lerobot-calibrate`
            write_lerobot_calibration(arm.mountings, options.calibration_path)
        if options.hand is not None:
            self._control.hand(**options.hand)

    @property
    def arm(self) -> VirtualArm:
        """The arm; `reset` replaces it."""
        return self._control.arm

    def stop(self) -> None:
        """Ask it to end soon; from a signal handler as well."""
        self._control.stopping = True

    def run(self) -> None:
        """Serve until `stop`, the verb `stop`, or the end of standard input."""
        try:
            if self._cameras is not None:
                self._cameras.start()
            while not self._control.stopping:
                self._turn()
        finally:
            self.close()

    def close(self) -> None:
        """Take port and socket away; safe to call twice."""
        if self._cameras is not None:
            self._cameras.close()
        self._port.unplug()
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        self._listener.close()
        self._options.control_path.unlink(missing_ok=True)

    def _turn(self) -> None:
        watched: list[Any] = [self._listener, *self._peers]
        if self._port.plugged:
            watched.append(self._port)
        if self._options.until_stdin_ends:
            watched.append(sys.stdin)
        ready, _, _ = select.select(watched, [], [], self._patience_s())
        self._keep_time()
        if self._cameras is not None:
            self._cameras.see(self.arm.plant.data.qpos)
        self._hear()  # first: what was sent before somebody asks about it has happened
        for source in ready:
            if source is self._listener:
                self._peers[self._listener.accept()[0]] = bytearray()
            elif source is sys.stdin:
                if not os.read(sys.stdin.fileno(), 4096):
                    self.stop()
            elif source is not self._port:
                self._serve(source)
        if (data := self.arm.bus.due(time.monotonic())) and self._port.plugged:
            self._port.write(data)
        self._save()

    def _patience_s(self) -> float:
        """Return how long there is nothing to do [s]."""
        now_s = time.monotonic()
        times = [_IDLE_S]
        if self.arm.options.lock_step_hz is None:
            times.append(self._zero_s + self.arm.time_s + self.arm.plant.timestep_s - now_s)
        if (due_s := self.arm.bus.next_due_s()) is not None:
            times.append(due_s - now_s)
        return max(min(times), 0.0)

    def _keep_time(self) -> None:
        """In real time, bring the physics up to now, a few steps at once."""
        if self.arm.options.lock_step_hz is not None:
            return
        behind_s = time.monotonic() - self._zero_s - self.arm.time_s
        if behind_s > _BEHIND_S:
            self._zero_s += behind_s
            self.slipped_s += behind_s
            return
        step_s = self.arm.plant.timestep_s
        self.arm.advance(min(int(behind_s / step_s), _AT_ONCE) * step_s)

    def _hear(self) -> None:
        while self._port.plugged and (data := self._port.read()):
            self.arm.bus.receive(data, time.monotonic(), self._port.baud_rate())

    def _serve(self, peer: socket.socket) -> None:
        buffer = self._peers[peer]
        try:
            data = peer.recv(4096)
            buffer += data
            while (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                peer.sendall(self._control.answer(line))
        except OSError:  # who asked is gone, or does not read its answers
            data = b""
        if not data or len(buffer) > _LONGEST_LINE:
            peer.close()
            del self._peers[peer]

    def _save(self) -> None:
        """Keep EEPROM as soon as it changes."""
        if not self._options.keep_eeprom:
            return
        now = [bytes(servo.table.eeprom) for servo in self.arm.servos]
        if now != self._saved:
            write_eeproms(self._options.eeprom_path, now)
            self._saved = now


def _listen(path: Path) -> socket.socket:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        raise RobotError(f"{path.parent}: a virtual arm runs there already. End it, or choose another folder.")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    os.chmod(path, 0o600)
    listener.listen()
    return listener
