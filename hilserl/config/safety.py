"""When a real arm is stopped, and how. Every default was tried on the virtual arm: docs/safety.md says which is a guess about hardware."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hilserl.config.base import Count, Fraction, Model, Positive


class SafetyConfig(Model):
    """Limits of every command, rules that stop the arm, and the processes that watch."""

    # Limits
    joint_margin_rad: Annotated[
        float, Field(ge=0, le=0.5, description="Commands stay this far from the ends of a joint's range (not the gripper's) [rad]")
    ] = 0.02
    max_lead_rad: Annotated[float, Field(gt=0, le=1.0, description="A command is at most this far ahead of where the joint is [rad]")] = (
        0.25
    )
    max_gripper_lead_rad: Annotated[float, Field(gt=0, le=2.0, description="The same for the jaw, whose lead is its grip [rad]")] = 0.4

    # Stall: the joint does not follow, and its motor works hard
    stall_s: Annotated[float, Field(ge=0.05, le=1.5, description="A stall lasts this long before it counts; servos wait 2 s [s]")] = 0.3
    stall_error_rad: Positive = Field(0.08, description="A joint that stalls is at least this far behind its command [rad]")
    stall_current_a: Positive = Field(1.3, description="A motor that stalls draws at least this [A], or gives `stall_torque_share`")
    stall_torque_share: Fraction = Field(0.8, description="A motor that stalls gives at least this share of its torque limit")
    stall_speed_rad_s: Positive = Field(0.15, description="A joint that stalls is slower than this [rad/s]")
    stalls_before_landing: Count = Field(
        5, description="So many stalls within `stall_window_s` take the arm down; fewer let go of what blocks"
    )
    stall_window_s: Positive = Field(30.0, description="See `stalls_before_landing` [s]")

    # The other rules
    warm_c: Annotated[float, Field(gt=20, le=100, description="A motor this warm is told of [deg C]")] = 55.0
    hot_c: Annotated[float, Field(gt=20, le=100, description="A motor this hot takes the arm down [deg C]")] = 65.0
    min_voltage_share: Fraction = Field(0.7, description="A supply below this share of what it was at the start takes the arm down")
    voltage_s: Annotated[float, Field(ge=0, le=2.0, description="A voltage is wrong for this long before it counts [s]")] = 0.1
    silent_ticks: Count = Field(3, description="A servo that does not answer so many times in a row takes the arm down")
    lost_rad: Positive = Field(0.6, description="A joint that is this far from its command for `lost_s` takes the arm down [rad]")
    lost_s: Annotated[float, Field(ge=0, le=2.0, description="See `lost_rad` [s]")] = 0.3
    max_jump_rad_s: Positive = Field(12.0, description="A position that changes faster than any joint can takes the arm down [rad/s]")

    # Landing
    landing_s: Annotated[float, Field(ge=0, le=5.0, description="Torque falls to zero over this time [s]")] = 1.0
    guardian_silence_s: Annotated[
        float, Field(ge=0.2, le=5.0, description="Real time: the guardian takes the arm down after this long without a heartbeat [s]")
    ] = 0.5
    reconnect_s: Annotated[
        float, Field(ge=0, le=86_400, description="So long the guardian waits for an unplugged arm, to switch its torque off [s]")
    ] = 600.0
    answer_s: Annotated[
        float, Field(ge=0, le=600, description="So long the guardian asks a servo that does not say that its torque is off [s]")
    ] = 10.0
    black_box_s: Annotated[float, Field(ge=1, le=120, description="What is kept of the last ticks [s]")] = 10.0

    @model_validator(mode="after")
    def _warns_before_it_stops(self) -> Self:
        if not self.warm_c < self.hot_c:
            raise ValueError(f"safety.warm_c ({self.warm_c}) must be below safety.hot_c ({self.hot_c} deg C)")
        return self
