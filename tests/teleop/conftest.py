"""A virtual leader arm in lock step, and a simulated follower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hilserl.config.models import ObservationConfig, TaskConfig, TrainConfig
from hilserl.robot.kinematics import Kinematics
from hilserl.sim.env import So101Env
from hilserl.teleop.device import Person
from hilserl.teleop.keyboard import EventKeys
from hilserl.teleop.leader import Leader
from hilserl.teleop.leader_arm import LeaderArm
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.server import ServerOptions

HZ = 10.0


class Bench:
    """A virtual leader, LeRobot's calibration of it, and the simulated arm that it leads."""

    def __init__(self, process: VirtualArmProcess, stack: ExitStack) -> None:
        self.process, self._stack = process, stack
        intervention = {"type": "leader", "hand_back_s": 0.3}
        intervention["leader"] = {"port": str(process.port), "calibration_dir": str(process.calibration.parent), "timeout_s": 10.0}
        self.config = TrainConfig(
            task=TaskConfig(type="lift", control_time_s=30),
            observation=ObservationConfig(images={}, privileged=True),
            actor={"intervention": intervention},
        )

    def arm(self) -> LeaderArm:
        limits = Kinematics()
        settings = self.config.actor.intervention.leader
        arm = LeaderArm(settings, str(self.process.port), limits.lower_rad, limits.upper_rad)
        self._stack.callback(arm.close)
        return arm

    def environment(self) -> So101Env:
        environment = So101Env(self.config)
        self._stack.callback(environment.close)
        return environment

    def person(self, environment: So101Env) -> Person:
        return Person(self.config, Leader(self.config, environment, self.arm(), EventKeys(None), self.pass_time))

    def pass_time(self, seconds: float) -> None:
        self.process.ask("advance", seconds=seconds)

    def torque_on(self) -> list[bool]:
        return self.process.ask("state")["torque_on"]


@pytest.fixture
def bench(tmp_path: Path, own_home: Path) -> Iterator[Bench]:
    options = ArmOptions(motor="7.4V", seed=5, lock_step_hz=HZ, timing=Timing(wire=False))
    with ExitStack() as stack:
        process = stack.enter_context(
            VirtualArmProcess(ServerOptions(tmp_path / "leader", name="leader", arm=options, until_stdin_ends=True))
        )
        yield Bench(process, stack)
