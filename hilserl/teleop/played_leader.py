"""A virtual leader arm in the hand of the simulated human: the whole way of a person's intervention, without a person.

The human watches the truth, and when it would act, its hand pushes the leader; nothing else tells the policy's side of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.robot.codec import ActionCodec
from hilserl.robot.kinematics import Kinematics
from hilserl.schema import JOINT_NAMES
from hilserl.sim.human import SimulatedHuman
from hilserl.sim.privileged import PrivilegedState
from hilserl.teleop.device import Person
from hilserl.teleop.leader import Leader
from hilserl.virtual_arm.client import VirtualArmProcess

_PUSH_RAD = 0.3  # of the joint that moves most: a hand that wants control does not hint
_SPEED_RAD_S = 4.0
_SMALL_RAD = 1e-3


class Twin(Protocol):
    """What the simulated human sees."""

    @property
    def privileged_state(self) -> PrivilegedState:
        """The true state of the scene."""


class PlayedLeader(Person):
    """A person at a leader arm, played by the simulated human."""

    def __init__(
        self,
        config: TrainConfig,
        twin: Twin,
        leader: Leader,
        process: VirtualArmProcess,
        rng: np.random.Generator,
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the leader of `process` into the hand.

        Args:
            config: The run's configuration.
            twin: Knows the truth.
            leader: The device, connected to the port of `process`.
            process: The virtual leader arm.
            rng: Of the simulated human.
            clean_up: Called at the end.
        """
        super().__init__(config, leader)
        self._twin, self._leader, self._process = twin, leader, process
        self._codec = ActionCodec(config, Kinematics())
        self._human = SimulatedHuman(config, rng)
        self._holds = False
        self._clean_up = clean_up

    def reset(self) -> None:
        """An episode starts: the hand is off."""
        self._release()
        self._human.reset()
        super().reset()

    def intervene(self) -> NDArray[np.float32] | None:
        """Move the hand as the human wants, then do as any person's device does."""
        state = self._twin.privileged_state
        wanted = self._human.intervene(state)
        if wanted is not None:
            self._push(state.joint_pos_rad, wanted)
        elif not self._leader.is_led:  # led, it is held where it is until its torque is back
            self._release()
        return super().intervene()

    def observe_outcome(self, success: bool) -> None:
        """Remember how the policy does."""
        self._human.observe_outcome(success)

    def close(self) -> None:
        """Switch the leader off, and end its process; safe to call twice."""
        super().close()
        self._process.stop()
        self._clean_up()

    def _push(self, joints_rad: NDArray[Any], wanted: NDArray[np.float32]) -> None:
        way = self._codec.decode(wanted, joints_rad).joint_target_rad - joints_rad
        if not self._leader.is_led:
            most = float(np.abs(way).max())
            way = way * (_PUSH_RAD / most) if most > _SMALL_RAD else np.array([_PUSH_RAD, 0.0, 0.0, 0.0, 0.0, 0.0])
        target = dict(zip(JOINT_NAMES, (joints_rad + way).tolist(), strict=True))
        self._process.ask("hand", move="to", joints_rad=target, speed_rad_s=_SPEED_RAD_S)
        self._holds = True

    def _release(self) -> None:
        if self._holds:
            self._process.ask("hand", move="release")
            self._holds = False
