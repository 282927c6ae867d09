"""A servo on a bench: an ideal shaft, an optional wall, and a clock."""

from __future__ import annotations

from hilserl.robot.registers import find_register
from hilserl.virtual_arm.motor import MOTORS, Measured
from hilserl.virtual_arm.servo import Servo, ServoOptions

STEP_S = 0.005


class Bench:
    """One powered servo whose shaft follows its setpoint, unless `wall` [ticks] is in the way."""

    def __init__(self, options: ServoOptions | None = None, encoder: float = 2000.0, motor: str = "12V") -> None:
        self.servo = Servo(1, MOTORS[motor], options)
        self.encoder = encoder
        self.wall: float | None = None
        self.voltage_v = 12.0
        self.time_s = 0.0
        self.servo.power_up(encoder, self.voltage_v)

    def write(self, name: str, value: int) -> None:
        register = find_register(name)
        self.servo.write(register.address, register.encode(value).to_bytes(register.size, "little"))

    def run(self, seconds: float) -> None:
        """Pass time. Against the wall the motor pushes with a duty of 1 per 100 ticks of error."""
        for _ in range(round(seconds / STEP_S)):
            drive = self.servo.drive(STEP_S)
            before, duty = self.encoder, 0.0
            if drive.error is not None:
                self.encoder += drive.error
                if self.wall is not None and self.encoder > self.wall:
                    self.encoder = self.wall
                    duty = min((before + drive.error - self.wall) / 100.0, drive.duty_limit)
            current_a = abs(duty) * self.servo.motor.stall_current_a
            velocity = (self.encoder - before) / STEP_S
            self.servo.sense(Measured(self.encoder, velocity, duty, current_a, self.voltage_v), STEP_S)
            self.time_s += STEP_S

    def power_cycle(self) -> None:
        self.servo.power_down()
        self.servo.power_up(self.encoder, self.voltage_v)
