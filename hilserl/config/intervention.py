"""The person who may take over from the policy, or in simulation a simulated one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hilserl.config.base import Fraction, Model


class LeaderConfig(Model):
    """A leader arm: it mirrors the follower while the policy acts, and leads it when somebody moves it."""

    port: str | None = Field(None, description="Its serial port, such as /dev/serial/by-id/usb-...; `lerobot-find-port` finds it")
    id: str = Field("leader", pattern=r"^[A-Za-z0-9_.-]+$", description="Its name, as in LeRobot's calibration file")
    calibration_dir: Path | None = Field(
        None, description="Folder of LeRobot's calibration file `<id>.json`; None: where `lerobot-calibrate` writes it"
    )
    torque_limit_pct: Annotated[
        float, Field(ge=20, le=100, description="Its torque while it mirrors: too little, and it lags or sinks under its own weight [%]")
    ] = 80.0
    moved_rad: Annotated[float, Field(ge=0.02, le=0.5, description="A hand has moved it when it went so far off its way [rad]")] = 0.15
    held_rad: Annotated[float, Field(ge=0.1, le=1.5, description="A hand holds it fast when it is so far behind [rad]")] = 0.5
    still_rad_s: Annotated[float, Field(gt=0, le=1, description="Slower than this it is held still, and is handed back [rad/s]")] = 0.08
    mirror_speed_rad_s: Annotated[float, Field(gt=0, le=3, description="It goes to the follower's pose no faster than this [rad/s]")] = 1.5
    timeout_s: Annotated[float, Field(gt=0, le=10, description="How long an answer of its servos is waited for [s]")] = 0.05
    virtual: bool = Field(False, description="Start a virtual one, moved by the simulated human's hand; not with a real arm")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.virtual and self.port is not None:
            raise ValueError(f"port is {self.port}, and `virtual` starts a leader of its own: leave one of them out")
        return self


class GamepadConfig(Model):
    """A gamepad of this machine (Linux' joystick interface)."""

    device: str = Field("/dev/input/js0", description="Its device, better one of /dev/input/by-id/*-joystick")
    deadzone: Annotated[float, Field(ge=0, lt=0.9, description="Stick positions below this are none")] = 0.1


class InterventionConfig(Model):
    """Who takes over, and when control changes hands."""

    type: Literal["none", "simulated", "leader", "gamepad", "keyboard", "console"] = Field(
        "none",
        description="`leader`: an arm that is moved; `gamepad`: while its button is held; `keyboard`: a key in this terminal; "
        "`console`: the page alone, which may also take over beside each of the others",
    )
    take_over_s: Annotated[float, Field(ge=0, le=2, description="A person wants control for this long before getting it [s]")] = 0.1
    hand_back_s: Annotated[float, Field(ge=0, le=10)] | None = Field(
        None, description="The policy acts again this long after the person let go [s]; None: leader 0.8, keyboard 0.6, gamepad 0.2"
    )
    longest_s: Annotated[float, Field(gt=0, description="Longer at a stretch is taken for a stuck device, and ended [s]")] = 60.0
    leader: LeaderConfig = Field(default_factory=LeaderConfig)
    gamepad: GamepadConfig = Field(default_factory=GamepadConfig)

    # The simulated human
    stuck_steps: Annotated[int, Field(ge=1, description="Take over after this many steps without progress")] = 8
    delay_steps: Annotated[int, Field(ge=0, description="Reaction time [steps]")] = 3
    noise: Annotated[float, Field(ge=0, le=1)] = 0.2
    max_bout_steps: Annotated[int, Field(ge=1, description="Hand back after at most this many steps")] = 12
    probability: Fraction = Field(0.5, description="Chance to react to one occasion at the start; tapers as success rises")

    @property
    def is_simulated(self) -> bool:
        """Whether the simulated human decides, with or without a leader arm in its hand."""
        return self.type == "simulated" or (self.type == "leader" and self.leader.virtual)

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        if self.type == "leader" and self.leader.port is None and not self.leader.virtual:
            raise ValueError("leader.port is missing: find the leader arm with `lerobot-find-port`, or set `leader: {virtual: true}`")
        return self
