from __future__ import annotations

import numpy as np
import pytest

from hilserl.robot.kinematics import Kinematics


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
