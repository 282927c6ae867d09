"""The virtual arm: six servos, the mechanics, the supply and the bus, on one clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hilserl.errors import RobotError
from hilserl.robot.packets import Instruction, Packet
from hilserl.robot.registers import BY_NAME, TICKS_PER_TURN
from hilserl.schema import JOINT_NAMES
from hilserl.virtual_arm.bus import Bus, Timing
from hilserl.virtual_arm.calibration import Mounting, mountings
from hilserl.virtual_arm.control_table import factory_eeprom
from hilserl.virtual_arm.faults import FaultyWire
from hilserl.virtual_arm.hand import Movement
from hilserl.virtual_arm.motor import MOTORS, Drive, Measured
from hilserl.virtual_arm.plant import PHYSICS_HZ, REST_RAD, Command, Plant
from hilserl.virtual_arm.servo import Servo, ServoOptions
from hilserl.virtual_arm.supply import Supply

_BROWN_OUT_V, _STARTS_V = 3.0, 3.5
_GOAL = BY_NAME["Goal_Position"].address
_TICKS_PER_RAD = TICKS_PER_TURN / (2.0 * math.pi)


@dataclass(frozen=True)
class ArmOptions:
    """How a virtual arm is built.

    Attributes:
        motor: Which servos: `12V` or `7.4V`.
        calibrated: Its EEPROM holds a calibration; else it is as from the factory.
        seed: Decides how the servos' horns are mounted, and which packets faults hit.
        stiffness: Of the position loops, times that of the MuJoCo model, which is stiffer than a real servo: 17 N m/deg at
            `P_Coefficient` 16. With 0.02 the arm sags by half a degree and more.
        start_rad: Where it is at first [rad], six joints.
        timing: Of the bus.
        servo: What public sources do not settle.
        lock_step_hz: Time passes only with every write of goals, by one period of this rate [Hz]; None: real time.
    """

    motor: Literal["12V", "7.4V"] = "12V"
    calibrated: bool = True
    seed: int = 0
    stiffness: float = 1.0
    start_rad: Sequence[float] = REST_RAD
    timing: Timing = field(default_factory=Timing)
    servo: ServoOptions = field(default_factory=ServoOptions)
    lock_step_hz: float | None = None


class VirtualArm:
    """One arm. Not thread-safe.

    Attributes:
        options: How it was built.
        servos: In the order of the joints, ids 1 to 6 unless changed.
        plant: Its mechanics.
        supply: Its power.
        bus: What its port is connected to.
        mountings: How each servo sits on its joint.
        time_s: Since it was switched on, by its own clock [s].
    """

    def __init__(self, options: ArmOptions | None = None, eeproms: Sequence[bytes] | None = None) -> None:
        """Build it and switch it on.

        Args:
            options: How.
            eeproms: What the servos' EEPROM held when it was last used; None: as `options` say.

        Raises:
            RobotError: An option makes no sense.
        """
        self.options = options = options or ArmOptions()
        if options.lock_step_hz is not None and not 1.0 <= options.lock_step_hz <= PHYSICS_HZ:
            raise RobotError(f"lock step at {options.lock_step_hz} Hz: give 1 to {PHYSICS_HZ:.0f} Hz.")
        motor = MOTORS[options.motor]
        self.plant = Plant(options.lock_step_hz or PHYSICS_HZ, options.start_rad)
        self.mountings: list[Mounting] = mountings(self.plant.lower_rad, self.plant.upper_rad, options.seed)
        self.servos: list[Servo] = []
        for index, mounting in enumerate(self.mountings):
            eeprom = eeproms[index] if eeproms else factory_eeprom(index + 1, motor.max_voltage_v)
            servo = Servo(index + 1, motor, options.servo, eeprom)
            if options.calibrated and not eeproms:
                for register, value in mounting.registers().items():
                    servo.table.burn(register, value)
            self.servos.append(servo)
        self.supply = Supply(motor.nominal_v)
        self.bus = Bus(self.servos, options.timing, FaultyWire(options.seed), after=self._after)
        self.time_s = 0.0
        self._movement: Movement | None = None
        self._movement_began_s = 0.0
        self._supply(currents_a=[0.0] * len(self.servos))

    def advance(self, seconds: float) -> None:
        """Let time pass, in whole steps of the physics [s]."""
        for _ in range(round(seconds / self.plant.timestep_s)):
            self._step()

    def move_by_hand(self, movement: Movement | None) -> None:
        """Begin to move the arm by hand; None: let go."""
        self._movement, self._movement_began_s = movement, self.time_s

    @property
    def moved_by_hand(self) -> bool:
        """Whether a hand is on its way."""
        movement = self._movement
        return movement is not None and (movement.loop_from_s is not None or self.time_s < self._movement_began_s + movement.duration_s)

    def power_cycle(self) -> None:
        """Cut the power too shortly for the arm to move: every servo starts anew."""
        for servo in self.servos:
            servo.power_down()
        self._supply([0.0] * len(self.servos))

    def servo(self, servo_id: int) -> Servo:
        """Return the servo at a joint, by the number that it has from the base up (1 to 6).

        Raises:
            RobotError: There is none.
        """
        if not 1 <= servo_id <= len(self.servos):
            raise RobotError(f"servo {servo_id}: there are 1 to {len(self.servos)}, from the base up.")
        return self.servos[servo_id - 1]

    def state(self) -> dict[str, Any]:
        """Return everything that a test or a person wants to see, as plain values."""
        cube, yaw = self.plant.cube
        names = ("Torque_Enable", "Goal_Position", "Present_Position", "Present_Load", "Present_Current", "Present_Temperature", "Lock")
        return {
            "time_s": self.time_s,
            "joint_pos_rad": self.plant.joint_pos_rad.tolist(),
            "joint_vel_rad_s": self.plant.joint_vel_rad_s.tolist(),
            "cube_pos_m": cube.tolist(),
            "cube_yaw_rad": yaw,
            "voltage_v": self.supply.voltage_v,
            "torque_on": [servo.torque_on for servo in self.servos],
            "status": [int(servo.status) for servo in self.servos],
            "power_ups": [servo.power_ups for servo in self.servos],
            "moved_by_hand": self.moved_by_hand,
            "servos": [
                {"joint": joint, "id": servo.servo_id} | {name: servo.get(name) for name in names}
                for joint, servo in zip(JOINT_NAMES, self.servos, strict=True)
            ],
            "requests": dict(self.bus.counts),
            "faults": dict(self.bus.faults.counts),
        }

    def _after(self, packet: Packet) -> None:
        """In lock step, let a control period pass with every write of goals to several servos."""
        written = packet.code == Instruction.SYNC_WRITE and packet.parameters[0] <= _GOAL < packet.parameters[0] + packet.parameters[1]
        if written and self.options.lock_step_hz is not None:
            self.advance(1.0 / self.options.lock_step_hz)

    def _step(self) -> None:
        dt_s, plant = self.plant.timestep_s, self.plant
        positions = plant.joint_pos_rad.tolist()
        commands = [self._command(servo, servo.drive(dt_s), position) for servo, position in zip(self.servos, positions, strict=True)]
        if self._movement is None:
            torques = plant.step(commands).tolist()
        else:
            moving_s = self.time_s - self._movement_began_s
            hand, soon = self._movement.at(moving_s), self._movement.at(moving_s + dt_s)
            torques = plant.step(commands, soon, (soon - hand) / dt_s, self._movement.torque_nm).tolist()
        shares = [abs(torque) / servo.motor.stall_torque_nm for torque, servo in zip(torques, self.servos, strict=True)]
        currents = [share * servo.motor.stall_current_a for share, servo in zip(shares, self.servos, strict=True)]
        before_v = self.supply.voltage_v
        self._supply(currents)
        positions, velocities = plant.joint_pos_rad.tolist(), plant.joint_vel_rad_s.tolist()
        for index, servo in enumerate(self.servos):
            full = servo.motor.stall_torque_nm * before_v / servo.motor.nominal_v
            servo.sense(
                Measured(
                    encoder=self.mountings[index].encoder(positions[index]),
                    velocity=velocities[index] * _TICKS_PER_RAD,
                    duty=min(max(torques[index] / full, -1.0), 1.0) if full > 0 else 0.0,
                    current_a=currents[index],
                    voltage_v=self.supply.voltage_v,
                ),
                dt_s,
            )
        self.time_s += dt_s

    def _command(self, servo: Servo, drive: Drive, position_rad: float) -> Command:
        if drive.error is None:
            return Command(None)
        full = servo.motor.stall_torque_nm * self.supply.voltage_v / servo.motor.nominal_v
        return Command(position_rad + drive.error / _TICKS_PER_RAD, drive.gain * self.options.stiffness, drive.duty_limit * full)

    def _supply(self, currents_a: list[float]) -> None:
        """Work out the voltage; servos go down in a brown-out and come up again after it."""
        voltage_v = self.supply.load(currents_a)
        for servo, mounting, position in zip(self.servos, self.mountings, self.plant.joint_pos_rad, strict=True):
            if servo.powered and voltage_v < _BROWN_OUT_V:
                servo.power_down()
            elif not servo.powered and voltage_v > _STARTS_V:
                servo.power_up(mounting.encoder(float(position)), voltage_v)
