"""What a configuration may say of people."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hilserl.config.loader import load_config
from hilserl.config.models import InterventionConfig
from hilserl.errors import ConfigError


def test_a_leader_needs_a_port_or_is_virtual():
    with pytest.raises(ValidationError, match=r"leader\.port is missing: find the leader arm with `lerobot-find-port`"):
        InterventionConfig(type="leader")
    with pytest.raises(ValidationError, match="leave one of them out"):
        InterventionConfig(type="leader", leader={"virtual": True, "port": "/dev/ttyACM1"})
    assert InterventionConfig(type="leader", leader={"virtual": True}).is_simulated
    assert not InterventionConfig(type="leader", leader={"port": "/dev/ttyACM1"}).is_simulated


def test_a_real_arm_is_not_helped_by_a_simulated_human():
    real = {"robot.type": "so101_follower", "robot.port": "/dev/ttyACM0", "actor.pace": "realtime"}
    with pytest.raises(ConfigError, match="the simulated human sees the simulation only"):
        load_config("reach", real | {"actor.intervention": {"type": "leader", "leader": {"virtual": True}}})


def test_a_device_that_is_not_known_is_told_with_those_that_are():
    with pytest.raises(ConfigError, match=r"leader.*gamepad.*keyboard"):
        load_config("reach", {"actor.intervention.type": "spacemouse"})
