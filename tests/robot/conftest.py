from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safety_testing import FAST, OWNER, Drive, Owner, alive, until

from hilserl.robot.kinematics import Kinematics
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.server import ServerOptions


@pytest.fixture(scope="session")
def kinematics() -> Kinematics:
    return Kinematics()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def postures(kinematics: Kinematics) -> np.ndarray:
    """Joint angles (N, 6) [rad] whose tool is inside the default workspace, wrist roll at zero."""
    rng = np.random.default_rng(3)
    found = []
    while len(found) < 200:
        joints = rng.uniform(kinematics.lower_rad, kinematics.upper_rad)
        joints[4] = 0.0
        tool, _ = kinematics.forward(joints)
        if (tool >= (0.10, -0.15, 0.0)).all() and (tool <= (0.35, 0.15, 0.25)).all():
            found.append(joints)
    return np.array(found)


@pytest.fixture(scope="module")
def served_arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualArmProcess]:
    options = ServerOptions(
        folder=tmp_path_factory.mktemp("arm"), arm=ArmOptions(lock_step_hz=50.0, timing=Timing(wire=False)), until_stdin_ends=True
    )
    with VirtualArmProcess(options) as arm:
        yield arm


@pytest.fixture
def virtual_arm(served_arm: VirtualArmProcess) -> VirtualArmProcess:
    served_arm.ask("reset")
    return served_arm


@pytest.fixture
def drive(virtual_arm: VirtualArmProcess, own_home: Path) -> Iterator[Drive]:
    """Start a process that drives the arm; return it and its guardian's number. Nothing of them is left."""
    with ExitStack() as stack:

        def start(lock_step: bool = False, **settings: Any) -> tuple[Owner, int]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(OWNER), str(virtual_arm.port), json.dumps(FAST | settings), str(lock_step)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            said = process.stdout.readline().split()
            assert said[:1] == ["driving"], said
            stack.callback(_end, process, int(said[1]))
            return process, int(said[1])

        yield start


def _end(owner: Owner, guardian: int) -> None:
    """Kill both, the owner first, so that the guardian does its work; one that does not end is killed as well."""
    owner.kill()
    if not until(lambda: not alive(guardian), 20.0):
        os.kill(guardian, signal.SIGKILL)
