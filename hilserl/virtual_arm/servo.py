"""One STS3215: what a write does, what a read answers, and what it does with its motor.

What no public source settles is an option of `ServoOptions`, with the likelier behaviour as default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hilserl.robot.registers import BAUD_RATES, BY_NAME, TICKS_PER_TURN
from hilserl.virtual_arm.control_table import ControlTable, factory_eeprom
from hilserl.virtual_arm.motion import Path
from hilserl.virtual_arm.motor import AMBIENT_C, OFF, Drive, Measured, Motor
from hilserl.virtual_arm.protection import Protection, Status
from hilserl.virtual_arm.settings import CURRENT_UNIT_A, Settings

POSITION_MODE, VELOCITY_MODE = 0, 1
_RECENTRE = 128  # of Torque_Enable: call the present position 2048
_TORQUE, _GOAL = BY_NAME["Torque_Enable"].address, BY_NAME["Goal_Position"].address


@dataclass(frozen=True)
class ServoOptions:
    """What public sources do not settle, or settle differently.

    Attributes:
        goal_enables_torque: Writing `Goal_Position` switches the torque on (several reports).
        torque_on_goal: Where a servo goes whose torque is switched on: it stays (`present`), or to what
            `Goal_Position` held before (`register`).
        clears: What ends an overload, over-current or overheating: switching the torque on again, or only a power cycle.
        lock_at_power_up: `Lock` after power-up: 1 in Feetech's table.
    """

    goal_enables_torque: bool = True
    torque_on_goal: Literal["present", "register"] = "present"
    clears: Literal["torque", "power"] = "torque"
    lock_at_power_up: int = 1


@dataclass
class Ailments:
    """What is broken in one servo.

    Attributes:
        silent: Its data line is broken: it neither hears nor answers, and goes on holding.
        dead: Neither answers nor moves.
        encoder_set: Bits of the encoder stuck at one.
        encoder_clear: Bits of the encoder stuck at zero.
        encoder_lost: The magnet is gone; the servo reports it.
        temperature_c: Hold the temperature there [deg C]; None: as the motor heats it.
    """

    silent: bool = False
    dead: bool = False
    encoder_set: int = 0
    encoder_clear: int = 0
    encoder_lost: bool = False
    temperature_c: float | None = None


class Servo:
    """One servo. Positions are encoder ticks; the encoder is absolute within a turn.

    Attributes:
        table: Its memory.
        motor: What it was sold with.
        options: What public sources do not settle.
        ailments: What is broken.
        powered: Whether its electronics run.
        power_ups: How often they started.
        temperature_c: Inside [deg C].
    """

    def __init__(self, servo_id: int, motor: Motor, options: ServoOptions | None = None, eeprom: bytes | None = None) -> None:
        self.motor = motor
        self.options = options or ServoOptions()
        self.ailments = Ailments()
        self.table = ControlTable(eeprom or factory_eeprom(servo_id, motor.max_voltage_v))
        self.powered = False
        self.power_ups = 0
        self.temperature_c = AMBIENT_C
        self._measured = Measured(0.0)
        self._path = Path()
        self._protection = Protection()
        self._pending: tuple[int, bytes] | None = None
        self._settings_were: Settings | None = None

    @property
    def servo_id(self) -> int:
        """Its address on the bus."""
        return self.table.raw("ID")

    @property
    def baud_rate(self) -> int:
        """What it listens at [bit/s]."""
        return BAUD_RATES[min(self.table.raw("Baud_Rate"), len(BAUD_RATES) - 1)]

    @property
    def hears(self) -> bool:
        """Whether it takes part in the bus."""
        return self.powered and not self.ailments.silent and not self.ailments.dead

    @property
    def torque_on(self) -> bool:
        """Whether the motor is driven."""
        return self.powered and not self.ailments.dead and self._settings.torque_on

    @property
    def status(self) -> Status:
        """Its errors now."""
        return self._protection.status

    @property
    def answers_writes(self) -> bool:
        """Whether it answers more than PING and READ."""
        return self.table.raw("Response_Status_Level") != 0

    @property
    def return_delay_s(self) -> float:
        """From the end of a request to the answer [s]."""
        return max(self.table.raw("Return_Delay_Time"), 1) * 2e-6

    # What the bus asks of it

    def get(self, name: str) -> int:
        """Return a register by name, with its sign and up to date."""
        self._feed_back()
        return self.table.get(name)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the control table."""
        self._feed_back()
        return self.table.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        """Write bytes of the control table, with their effects."""
        torque_was, homing_was = self.table.raw("Torque_Enable"), self.table.raw("Homing_Offset")
        self.table.write(address, data)
        end = address + len(data)
        if address <= _TORQUE < end:
            self._switch_torque(torque_was, goal_written=address <= _GOAL < end)
        if address <= _GOAL < end and self.options.goal_enables_torque and not self.table.raw("Torque_Enable"):
            self.table.set("Torque_Enable", 1)
            self._path.restart(self._measured.encoder)
        if self.table.raw("Homing_Offset") != homing_was:
            self._path.restart(self._measured.encoder)

    def write_later(self, address: int, data: bytes) -> None:
        """Keep a write until `act` (REG_WRITE)."""
        self._pending = address, data
        self.table.set("Async_Write_Flag", 1)

    def act(self) -> None:
        """Do what `write_later` kept (ACTION); nothing where nothing is kept."""
        if self._pending is not None:
            (address, data), self._pending = self._pending, None
            self.table.set("Async_Write_Flag", 0)
            self.write(address, data)

    def reset_to_factory(self) -> None:
        """Set EEPROM to its factory values, the id excepted."""
        self.table.reset_to_factory(factory_eeprom(self.servo_id, self.motor.max_voltage_v))

    def call_position(self, wanted: int) -> None:
        """Choose `Homing_Offset`, for good, so that the present position reads `wanted`."""
        half = TICKS_PER_TURN // 2
        offset = (round(self._sensed()) - wanted + half) % TICKS_PER_TURN - half
        self.table.burn("Homing_Offset", max(offset, 1 - half))  # the register cannot hold -2048
        self._path.restart(self._measured.encoder)

    # Power

    def power_up(self, encoder: float, voltage_v: float) -> None:
        """Start from EEPROM, torque off, with the shaft where it is [ticks]."""
        self.powered = True
        self.power_ups += 1
        self.table.power_up(self.options.lock_at_power_up)
        self._pending = None
        self._protection = Protection()
        self._measured = Measured(encoder, voltage_v=voltage_v)
        self._path.restart(encoder)

    def reboot(self) -> None:
        """Start anew without losing power."""
        self.power_up(self._measured.encoder, self._measured.voltage_v)

    def power_down(self) -> None:
        """Stop; what is not in EEPROM is lost."""
        self.powered = False

    # The motor

    def drive(self, dt_s: float) -> Drive:
        """Decide what the motor does during the next step of `dt_s`."""
        if not self.torque_on:
            return OFF
        settings, encoder = self._settings, self._measured.encoder
        share = self._protection.torque_share(settings.limits)
        if share == 0.0 or settings.mode not in (POSITION_MODE, VELOCITY_MODE):  # nothing that drives an SO-101 uses the others
            self._path.restart(encoder)
            return OFF
        if settings.mode == POSITION_MODE:
            self._path.advance(encoder + settings.goal - self._position(), settings.max_speed, settings.acceleration, dt_s)
        else:
            self._path.turn(settings.turning_speed, settings.acceleration, dt_s)
        return Drive(self._path.setpoint - encoder, settings.gain, min(settings.torque_limit, share))

    def sense(self, measured: Measured, dt_s: float) -> None:
        """Take the measurements at the end of a step of `dt_s`."""
        self._measured = measured
        self.temperature_c = self.motor.temperature_after(self.temperature_c, measured.current_a, dt_s)
        if self.ailments.temperature_c is not None:
            self.temperature_c = self.ailments.temperature_c
        if self.powered:
            self._protection.watch(
                self._settings.limits,
                load=abs(measured.duty),
                current_a=measured.current_a,
                temperature_c=self.temperature_c,
                voltage_v=measured.voltage_v,
                encoder_lost=self.ailments.encoder_lost,
                dt_s=dt_s,
            )

    def _switch_torque(self, was: int, goal_written: bool) -> None:
        now = self.table.raw("Torque_Enable")
        if now == _RECENTRE:
            self.table.set("Torque_Enable", was)
            self.call_position(TICKS_PER_TURN // 2)
        elif bool(now) != bool(was):
            if now and self.options.clears == "torque":  # not when switched off: that answer still carries the error
                self._protection.clear()
            self._path.restart(self._measured.encoder)
            if now and self.options.torque_on_goal == "present" and not goal_written:
                self.table.set("Goal_Position", round(self._position()))

    def _sensed(self) -> float:
        """Return what the encoder says [ticks], its broken bits included."""
        stuck, encoder = self.ailments, self._measured.encoder
        if not (stuck.encoder_set or stuck.encoder_clear):
            return encoder
        turns, within = divmod(math.floor(encoder), TICKS_PER_TURN)
        return float(turns * TICKS_PER_TURN + ((within | stuck.encoder_set) & ~stuck.encoder_clear) % TICKS_PER_TURN)

    def _position(self) -> float:
        """Return the present position as the bus sees it [ticks], with its fraction."""
        position = self._sensed() - self._settings.homing
        return position if self._settings.many_turns else position % TICKS_PER_TURN

    @property
    def _settings(self) -> Settings:
        if self._settings_were is None or self._settings_were.version != self.table.version:
            self._settings_were = Settings.read(self.table)
        return self._settings_were

    def _feed_back(self) -> None:
        """Bring the registers that report measurements up to date."""
        if not self.powered:
            return
        now = self._measured
        position = round(self._position())
        self.table.set("Present_Position", position if self._settings.many_turns else position % TICKS_PER_TURN)
        self.table.set("Present_Velocity", round(now.velocity / self._settings.speed_unit))
        self.table.set("Present_Load", round(now.duty * 1000))
        self.table.set("Present_Voltage", round(now.voltage_v * 10))
        self.table.set("Present_Temperature", round(self.temperature_c))
        self.table.set("Status", self._protection.status)
        self.table.set("Moving", abs(now.velocity) > self.table.raw("Moving_Velocity_Threshold"))
        self.table.set("Present_Current", round(now.current_a / CURRENT_UNIT_A))
        self.table.set("Goal_Position_2", self.table.get("Goal_Position"))
