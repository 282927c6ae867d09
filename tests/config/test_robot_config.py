"""What a configuration may say of a real and of a virtual arm."""

import pytest

from hilserl.config import load_config
from hilserl.errors import ConfigError

REAL = {"robot.type": "so101_follower", "robot.port": "/dev/ttyACM0", "actor.intervention.type": "none"}


def test_one_line_makes_the_virtual_arm_a_real_one():
    virtual = load_config("so101_virtual_reach")
    changes = {"robot.virtual": None, "robot.port": "/dev/ttyACM0", "robot.cameras.wrist.path": "/dev/v4l/by-id/x"}
    real = load_config("so101_virtual_reach", changes | {"actor.intervention.type": "none"})
    assert not virtual.robot.is_simulated and not virtual.robot.is_real
    assert real.robot.is_real
    assert real.robot.model_copy(update={"virtual": virtual.robot.virtual, "port": None, "cameras": virtual.robot.cameras}) == virtual.robot


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"robot.type": "so101_follower"}, "robot.port is missing, and `so101_follower` is a real arm. Find it with `lerobot-find-port`"),
        ({"robot.virtual": {}}, "robot.virtual goes with `robot.type: so101_follower`"),
        (REAL | {"robot.virtual": {}}, "`robot.virtual` starts an arm of its own"),
        (REAL | {"robot.bus_hz": 45}, "robot.bus_hz (45) must be a multiple of control_hz (10)"),
        (REAL | {"robot.torque_limit_pct": [80, 80, 80, 80, 80, 0]}, "each is above 0, at most 100 %"),
        (REAL | {"observation.privileged": True}, "a real arm does not know where the cube is"),
        (REAL | {"task.reward": "shaped"}, "`shaped` needs to know where the cube is"),
        (REAL, "robot.cameras.wrist.path is missing"),
        (REAL | {"robot.cameras.wrist.path": "/dev/video0", "actor.intervention.type": "simulated"}, "sees the simulation only"),
        ({"robot.cameras.wrist.path": "4"}, "is a number, and another camera has it after the next start"),
    ],
)
def test_what_a_real_arm_cannot_be_is_refused_with_the_remedy(changes, expected):
    with pytest.raises(ConfigError) as error:
        load_config("reach", changes)
    assert expected in str(error.value)


def test_lerobots_name_for_the_end_effector_robot_means_the_same():
    config = load_config("reach", REAL | {"robot.type": "so101_follower_end_effector", "robot.cameras.wrist.path": "/dev/video0"})
    assert config.robot.is_real
