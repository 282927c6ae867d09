"""Virtual arms as processes, and LeRobot's own classes on their ports."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig

from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.server import ServerOptions

PATIENCE_MS = 2000.0
"""LeRobot waits 50 ms for an answer. A busy test machine can stand still for longer."""

StartArm = Callable[..., VirtualArmProcess]


@pytest.fixture
def start_arm(tmp_path: Path) -> Iterator[StartArm]:
    """Start a virtual arm; `arm` are its `ArmOptions`, anything else its `ServerOptions`. In lock step and without wire time by default."""
    with ExitStack() as stack:

        def start(name: str = "follower", arm: ArmOptions | None = None, **options: Any) -> VirtualArmProcess:
            built = arm or ArmOptions(lock_step_hz=50.0, timing=Timing(wire=False))
            served = ServerOptions(folder=options.pop("folder", tmp_path / name), name=name, arm=built, until_stdin_ends=True, **options)
            return stack.enter_context(VirtualArmProcess(served))

        yield start


def wait_longer(bus: FeetechMotorsBus, milliseconds: float = PATIENCE_MS) -> None:
    """Let LeRobot's bus wait longer for an answer; nothing else of it changes."""

    def set_packet_timeout(handler: Any, packet_length: int) -> None:
        handler.packet_start_time = handler.getCurrentTime()
        handler.packet_timeout = milliseconds

    bus.port_handler.setPacketTimeout = types.MethodType(set_packet_timeout, bus.port_handler)


def make_follower(arm: VirtualArmProcess, **config: Any) -> SO101Follower:
    """Make LeRobot's follower on the port of a virtual arm, with its calibration file."""
    robot = SO101Follower(SO101FollowerConfig(port=str(arm.port), id=arm.options.name, calibration_dir=arm.calibration.parent, **config))
    wait_longer(robot.bus)
    return robot


def make_leader(arm: VirtualArmProcess, **config: Any) -> SO101Leader:
    """Make LeRobot's leader on the port of a virtual arm, with its calibration file."""
    leader = SO101Leader(SO101LeaderConfig(port=str(arm.port), id=arm.options.name, calibration_dir=arm.calibration.parent, **config))
    wait_longer(leader.bus)
    return leader
