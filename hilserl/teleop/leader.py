"""The arm led by a leader arm: it mirrors the follower while the policy acts; who moves it takes over; held still, it is handed back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.robot.codec import ActionCodec
from hilserl.robot.kinematics import Kinematics
from hilserl.teleop.device import Action
from hilserl.teleop.events import TeleopEvent
from hilserl.teleop.intervention import Control
from hilserl.teleop.keyboard import EVENTS_HELP, EventKeys
from hilserl.teleop.leader_arm import LeaderArm

Array = NDArray[np.floating[Any]]

HELP = f"move the leader arm to take over, hold it still to hand back; keys: {EVENTS_HELP}"
_CATCHING_UP_M = 0.003  # a follower that still moves so far in a step has not arrived where the leader is
_ARRIVED_RAD, _ARRIVE_S = 0.05, 5.0


class Follower(Protocol):
    """What the leader needs of the environment."""

    @property
    def joint_pos_rad(self) -> Array:
        """Measured joint angles [rad], shape (6,)."""


class Leader:
    """A leader arm as a device.

    While a person leads, each action is the way from where the follower *is* to where the leader is, through the one codec; what
    of it is executed is the environment's to say, and is what gets stored (FAILURES R06).
    """

    name = "leader arm"
    hand_back_s = 0.8

    def __init__(
        self, config: TrainConfig, follower: Follower, arm: LeaderArm, keys: EventKeys, pass_time: Callable[[float], None] | None = None
    ) -> None:
        """Use a connected leader arm.

        Args:
            config: The run's configuration.
            follower: Where the arm is that it leads.
            arm: The leader.
            keys: Say of the episode what a leader arm cannot.
            pass_time: In lock step: lets the leader's time pass while it is free [s]; None: its time passes by itself.
        """
        settings = config.actor.intervention.leader
        kinematics = Kinematics()
        self._codec, self._forward = ActionCodec(config, kinematics), kinematics.forward
        self._follower, self._arm, self._keys, self._pass_time = follower, arm, keys, pass_time
        self._period_s = 1.0 / config.robot.control_hz
        self._moved_rad, self._held_rad, self._still_rad = settings.moved_rad, settings.held_rad, settings.still_rad_s * self._period_s
        self._step_rad = settings.mirror_speed_rad_s * self._period_s
        self._led = False
        self._last_rad: Array = arm.joint_pos_rad
        self._last_tool_m: Array | None = None

    @property
    def is_led(self) -> bool:
        """Whether somebody leads: it is free."""
        return self._led

    def begin_episode(self) -> None:
        """Bring it to the follower's pose; somebody who holds it fast is not fought for longer than a few seconds."""
        self._led = False
        self._last_tool_m = None
        for _ in range(round(_ARRIVE_S / self._period_s)):
            self._arm.mirror(self._follower.joint_pos_rad, self._step_rad)
            if self._pass_time is None:
                time.sleep(self._period_s)
            if np.abs(self._arm.look() - self._follower.joint_pos_rad).max() < _ARRIVED_RAD:
                return

    def wants(self) -> bool:
        """Mirror or follow for one step; tell whether somebody moves it."""
        if self._led:
            if self._pass_time is not None:
                self._pass_time(self._period_s)
        else:
            self._arm.mirror(self._follower.joint_pos_rad, self._step_rad)
        before, now = self._last_rad, self._arm.look()
        self._last_rad = now
        if not self._led:
            return self._arm.pushed_rad() > self._moved_rad or self._arm.behind_rad() > self._held_rad
        moves = bool(np.abs(now - before).max() > self._still_rad)
        return self._is_catching_up() or moves

    def action(self) -> Action:
        """Return the way from the follower to the leader, clipped to one step."""
        action, _ = self._codec.encode(self._follower.joint_pos_rad, self._arm.joint_pos_rad)
        return action

    def changed(self, control: Control) -> None:
        """Let the arm go when somebody takes over; it holds again when the policy acts."""
        if control is Control.HUMAN and not self._led:
            self._arm.let_go()
            self._led, self._last_tool_m = True, None
        elif control is Control.POLICY:
            self._led = False

    def events(self) -> frozenset[TeleopEvent]:
        """Return what was said by keys since the last call."""
        return self._keys.events()

    def close(self) -> None:
        """Switch the leader off; safe to call twice."""
        self._arm.close()
        self._keys.close()

    def _is_catching_up(self) -> bool:
        tool, _ = self._forward(self._follower.joint_pos_rad)
        before, self._last_tool_m = self._last_tool_m, tool
        return before is None or float(np.linalg.norm(tool - before)) > _CATCHING_UP_M
