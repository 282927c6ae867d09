"""The control socket: JSON lines on a Unix socket, to look into the arm and to play every fault.

A request is `{"do": "<verb>", ...}`, its answer `{"ok": true, ...}` or `{"ok": false, "error": "..."}`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError, validate_call

from hilserl.errors import HilserlError, RobotError
from hilserl.schema import JOINT_NAMES
from hilserl.virtual_arm import hand
from hilserl.virtual_arm.arm import VirtualArm
from hilserl.virtual_arm.camera import CameraFault, Cameras
from hilserl.virtual_arm.faults import WireFaults
from hilserl.virtual_arm.port import SerialPort
from hilserl.virtual_arm.servo import Ailments

Answer = dict[str, Any]
_LONGEST_WAIT_S = 3600.0


class Control:
    """Carries out requests. Every public method is a verb.

    Attributes:
        arm: The arm; another one after `reset`.
        stopping: Somebody asked for the end.
    """

    def __init__(self, arm: VirtualArm, port: SerialPort, cameras: Cameras | None = None) -> None:
        self.stopping = False
        self.arm = arm
        self._port = port
        self._cameras = cameras
        self._verbs: dict[str, Callable[..., Answer | None]] = {
            name: validate_call(method)
            for name, method in inspect.getmembers(self, inspect.ismethod)
            if not name.startswith("_") and name != "answer"
        }

    def answer(self, line: bytes) -> bytes:
        """Carry out one line; return the line that answers it."""
        try:
            request = json.loads(line)
            verb = self._verbs.get(request.pop("do")) if isinstance(request, dict) and "do" in request else None
            if verb is None:
                raise RobotError(f'a request is {{"do": VERB, ...}} with one of the verbs {", ".join(self._verbs)}.')
            answer: Answer = {"ok": True} | (verb(**request) or {})
        except ValidationError as error:
            wrong = [f"`{'.'.join(map(str, one['loc']))}`: {one['msg'].lower()}" for one in error.errors()]
            answer = {"ok": False, "error": "; ".join(wrong)}
        except (HilserlError, TypeError, ValueError) as error:
            answer = {"ok": False, "error": str(error)}
        return json.dumps(answer).encode() + b"\n"

    # Looking

    def state(self) -> Answer:
        """Tell everything about arm, servos and bus."""
        return self.arm.state() | {"port": str(self._port.path), "plugged": self._port.plugged, "bytes_lost": self._port.lost}

    def register(self, servo: int, name: str, value: int | None = None) -> Answer:
        """Tell a register, or change it for good from inside: `name` as in LeRobot, also `Model_Number` and `Firmware_Minor_Version`."""
        chosen = self.arm.servo(servo)
        if value is not None:
            chosen.table.burn(name, value)
        return {"value": chosen.get(name)}

    # Wire

    def wire(self, faults: dict[str, float]) -> Answer:
        """Replace what goes wrong on the wire; `{}` ends it. See `WireFaults`."""
        if unknown := set(faults) - set(WireFaults.names()):
            raise RobotError(f"wire fault {sorted(unknown)[0]!r} is unknown. There are: {', '.join(WireFaults.names())}.")
        self.arm.bus.faults.faults = TypeAdapter(WireFaults).validate_python(faults)
        return {}

    def unplug(self) -> None:
        """Pull the USB cable; power stays on, so the servos go on holding."""
        self._port.unplug()

    def plug(self) -> None:
        """Put the USB cable back."""
        self._port.plug()

    # Servos

    def servo(self, servo: int, ailments: dict[str, Any]) -> None:
        """Replace what is broken in one servo; `{}` repairs it. See `Ailments`."""
        names = [field.name for field in fields(Ailments)]
        if unknown := set(ailments) - set(names):
            raise RobotError(f"ailment {sorted(unknown)[0]!r} is unknown. There are: {', '.join(names)}.")
        self.arm.servo(servo).ailments = TypeAdapter(Ailments).validate_python(ailments)

    def reboot(self, servo: int) -> None:
        """Let one servo start anew, as after a glitch of its own."""
        self.arm.servo(servo).reboot()

    def jam(self, servo: int, on: bool = True) -> None:
        """Block a joint where it is, or free it."""
        self.arm.servo(servo)
        (self.arm.plant.jammed.add if on else self.arm.plant.jammed.discard)(servo - 1)

    # Power

    def supply(self, on: bool | None = None, source_v: float | None = None, resistance_ohm: float | None = None) -> None:
        """Switch the power, or change its voltage or resistance: a brown-out is a low voltage, a poor plug a high resistance."""
        supply = self.arm.supply
        supply.on = supply.on if on is None else on
        supply.source_v = supply.source_v if source_v is None else source_v
        supply.resistance_ohm = supply.resistance_ohm if resistance_ohm is None else resistance_ohm

    def power_cycle(self) -> None:
        """Cut the power so shortly that the arm does not move: all servos start anew."""
        self.arm.power_cycle()

    # Hand and table

    def hand(
        self,
        move: Literal["to", "sweep", "wave", "recording", "release"],
        joints_rad: dict[str, float] | None = None,
        speed_rad_s: float = hand.DEFAULT_SPEED_RAD_S,
        torque_nm: float = hand.DEFAULT_TORQUE_NM,
        folder: Path | None = None,
        episode: int = 0,
        loop: bool = False,
    ) -> Answer:
        """Move the arm by hand; joints that `joints_rad` does not name are left alone."""
        arm = self.arm
        start = arm.plant.joint_pos_rad
        match move:
            case "release":
                arm.move_by_hand(None)
                return {"seconds": 0.0}
            case "to":
                movement = hand.through(start, [_by_joint(joints_rad or {})], speed_rad_s, torque_nm)
            case "sweep":
                movement = hand.sweep(start, arm.plant.lower_rad, arm.plant.upper_rad, speed_rad_s)
            case "wave":
                movement = hand.wave(start)
            case "recording":
                if folder is None:
                    raise RobotError("`recording` needs the `folder` of a LeRobotDataset.")
                movement = hand.recording(start, folder, episode, loop=loop)
        arm.move_by_hand(movement)
        return {"seconds": movement.duration_s}

    def cube(self, position_m: tuple[float, float, float], yaw_rad: float = 0.0) -> None:
        """Put the cube somewhere, in the arm's base frame."""
        self.arm.plant.place_cube(position_m, yaw_rad)

    # Cameras

    def frame(self, camera: str) -> Answer:
        """In lock step: draw a frame of this moment."""
        return {"number": self._eyes().draw(camera, self.arm.plant.data.qpos)}

    def camera(self, camera: str, fault: CameraFault | None = None) -> None:
        """Let a camera fail; without `fault`, repair it."""
        self._eyes().fail(camera, fault)

    # Time and end

    def advance(self, seconds: float) -> Answer:
        """In lock step: let time pass."""
        if self.arm.options.lock_step_hz is None:
            raise RobotError("`advance` is for an arm in lock step; this one runs in real time.")
        if not 0.0 <= seconds <= _LONGEST_WAIT_S:
            raise RobotError(f"advance by {seconds} s: give 0 to {_LONGEST_WAIT_S:.0f} s.")
        self.arm.advance(seconds)
        return {"time_s": self.arm.time_s}

    def reset(self) -> None:
        """Begin with a new arm of the same options: as from the shop, its calibration included, at rest, nothing broken."""
        self.arm = VirtualArm(self.arm.options)
        self._port.plug()
        if self._cameras is not None:
            self._cameras.repair()

    def stop(self) -> None:
        """End the virtual arm."""
        self.stopping = True

    def _eyes(self) -> Cameras:
        if self._cameras is None:
            raise RobotError("this virtual arm has no camera. Start it with `hilserl virtual-arm --camera wrist`.")
        return self._cameras


def _by_joint(joints_rad: dict[str, float]) -> list[float]:
    if unknown := set(joints_rad) - set(JOINT_NAMES):
        raise RobotError(f"joint {sorted(unknown)[0]!r} is unknown. There are: {', '.join(JOINT_NAMES)}.")
    return [joints_rad.get(name, np.nan) for name in JOINT_NAMES]
