import numpy as np
import pytest

from hilserl.config.models import ObservationConfig, TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.kinematics import euler
from hilserl.robot.state import assemble_state, joint_velocity
from hilserl.schema import policy_schema

JOINTS = np.array([0.1, -0.5, 0.6, 1.2, 0.0, 0.4])
VELOCITY = np.arange(6) / 10


@pytest.mark.failure("D04")
def test_components_are_where_the_schema_names_them(kinematics):
    config = TrainConfig(observation=ObservationConfig(state=("ee_pos", "joint_pos"), privileged=True))
    tool, _ = kinematics.forward(JOINTS)
    cube = np.array([0.2, 0.05, 0.01])
    state = assemble_state(config, kinematics, JOINTS, VELOCITY, cube)
    named = dict(zip(policy_schema(config).observation["observation.state"].names, state, strict=True))
    assert state.dtype == np.float32
    assert named["ee_pos.z"] == np.float32(tool[2])
    assert named["joint_pos.elbow_flex"] == np.float32(0.6)
    assert named["cube_from_tool.x"] == np.float32(0.2 - tool[0])


def test_the_default_state_is_18_numbers(kinematics):
    state = assemble_state(TrainConfig(), kinematics, JOINTS, VELOCITY)
    tool, rotation = kinematics.forward(JOINTS)
    np.testing.assert_array_equal(state, np.concatenate([JOINTS, VELOCITY, tool, euler(rotation)]).astype(np.float32))


@pytest.mark.failure("D04")
def test_a_cube_position_is_never_made_up(kinematics):
    with pytest.raises(RobotError, match=r"cube_from_tool.*privileged: false"):
        assemble_state(TrainConfig(observation=ObservationConfig(privileged=True)), kinematics, JOINTS, VELOCITY)


def test_velocity_is_the_difference_over_one_control_period():
    np.testing.assert_allclose(joint_velocity(JOINTS, JOINTS - 0.02, control_hz=10), np.full(6, 0.2))
    np.testing.assert_array_equal(joint_velocity(JOINTS, None, control_hz=10), np.zeros(6))
