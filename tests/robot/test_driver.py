"""The driver on a virtual arm in lock step: what it asks before it moves anything, and how it moves."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from hilserl.config.models import RobotConfig
from hilserl.errors import RobotError
from hilserl.robot.arm import Arm
from hilserl.robot.feetech import SERVOS
from hilserl.robot.kinematics import HOME_RAD
from hilserl.robot.latch import latched
from hilserl.virtual_arm.client import VirtualArmProcess

HOME = np.array([*HOME_RAD[:5], 0.6])
Connect = Callable[..., Arm]


@pytest.fixture
def make(virtual_arm: VirtualArmProcess, own_home) -> Iterator[Connect]:
    with ExitStack() as stack:

        def make(**settings: Any) -> Arm:
            robot = {
                "type": "so101_follower",
                "id": "follower",
                "port": str(virtual_arm.port),
                "calibration_dir": virtual_arm.calibration.parent,
            }
            arm = Arm(RobotConfig.model_validate(robot | settings), lock_step=True)
            stack.callback(arm.close)
            return arm

        yield make


@pytest.fixture
def connect(make: Connect) -> Connect:
    def connect(**settings: Any) -> Arm:
        arm = make(**settings)
        arm.connect()
        return arm

    return connect


def register(arm: VirtualArmProcess, servo: int, name: str) -> int:
    value: int = arm.ask("register", servo=servo, name=name)["value"]
    return value


def test_connecting_writes_the_settings_every_time_and_moves_nothing(virtual_arm, connect) -> None:
    before = virtual_arm.ask("state")["joint_pos_rad"]
    arm = connect(torque_limit_pct=[60, 61, 62, 63, 64, 40])
    assert [register(virtual_arm, servo, "Torque_Limit") for servo in SERVOS] == [600, 610, 620, 630, 640, 400]
    for servo in SERVOS:
        held = {
            name: register(virtual_arm, servo, name)
            for name in ("Acceleration", "Lock", "Operating_Mode", "P_Coefficient", "Torque_Enable")
        }
        assert held == {"Acceleration": 254, "Lock": 1, "Operating_Mode": 0, "P_Coefficient": 16, "Torque_Enable": 1}
        assert register(virtual_arm, servo, "Unloading_Condition") & 44 == 44
    assert register(virtual_arm, 6, "Overload_Torque") == 60
    np.testing.assert_allclose(virtual_arm.ask("state")["joint_pos_rad"], before, atol=0.01)
    np.testing.assert_allclose(arm.state.joint_pos_rad, before, atol=0.01)
    arm.close()
    assert not any(virtual_arm.ask("state")["torque_on"])
    arm.close()
    connect()  # torque limits were lost with no power cycle either: written anew
    assert register(virtual_arm, 1, "Torque_Limit") == 750


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"do": "servo", "servo": 5, "ailments": {"silent": True}}, r"no STS3215 \(model 777\) answers as servo 5 \(wrist_roll\)"),
        ({"do": "register", "servo": 2, "name": "Model_Number", "value": 1}, r"answers as servo 2 \(shoulder_lift\)"),
        ({"do": "register", "servo": 2, "name": "Firmware_Minor_Version", "value": 9}, "different firmware"),
        ({"do": "register", "servo": 3, "name": "Homing_Offset", "value": 5}, r"servo 3 \(`elbow_flex`\) has `Homing_Offset` 5"),
        ({"do": "register", "servo": 1, "name": "Phase", "value": 28}, "counts more than one turn"),
        ({"do": "servo", "servo": 4, "ailments": {"encoder_lost": True}}, r"servos report errors \(4 \(wrist_flex\): 2;"),
        ({"do": "supply", "on": False}, "no servo answers"),
    ],
)
def test_an_arm_that_is_not_as_it_should_be_is_refused_without_torque(virtual_arm, make, monkeypatch, request_, problem) -> None:
    monkeypatch.setattr("hilserl.robot.arm._LOCK_STEP_TIMEOUT_S", 0.2)
    virtual_arm.ask(**request_)
    if request_["do"] in ("servo", "supply"):
        virtual_arm.ask("advance", seconds=0.1)
    with pytest.raises(RobotError, match=problem):
        make().connect()
    assert not any(virtual_arm.ask("state")["torque_on"])
    assert latched("follower") is None  # nothing was stopped: nothing had begun


def test_a_path_is_followed_to_its_end_within_its_ticks(connect) -> None:
    arm = connect()
    arm.move_to(HOME, 1.0)
    tick = arm.state.tick
    target = HOME + np.array([0.1, 0.05, -0.05, 0.05, 0.1, 0.1])
    state = arm.follow(target, 5)
    assert state.tick == tick + 5
    np.testing.assert_array_equal(state.command_rad, target)
    np.testing.assert_allclose(state.joint_pos_rad, target, atol=0.02)
    assert state.clips.total == 0


@pytest.mark.failure("R05")
def test_a_pose_is_reached_at_the_speed_that_was_asked_for(virtual_arm, connect) -> None:
    arm = connect()
    began = virtual_arm.ask("state")["time_s"]
    distance = np.abs(HOME - arm.state.command_rad).max()
    left = arm.move_to(HOME, 0.8)
    took_s = virtual_arm.ask("state")["time_s"] - began
    assert distance / 0.8 <= took_s < distance / 0.8 + 1.0
    np.testing.assert_allclose(left, np.array(virtual_arm.ask("state")["joint_pos_rad"]) - HOME, atol=0.003)
    assert np.abs(left).max() < 0.01


@pytest.mark.failure("R05")
@pytest.mark.failure("R13")
def test_a_pose_that_something_blocks_is_reported(virtual_arm, connect) -> None:
    arm = connect()
    arm.move_to(HOME, 1.0)
    virtual_arm.ask("jam", servo=1)
    with pytest.raises(RobotError, match=r"did not get to where it should: servo 1 \(shoulder_pan\) does not follow"):
        arm.move_to(HOME + np.array([1.0, 0, 0, 0, 0, 0]), 1.0)
    np.testing.assert_allclose(arm.state.command_rad, arm.state.joint_pos_rad, atol=0.01)  # it lets go
    virtual_arm.ask("jam", servo=1, on=False)
    arm.move_to(HOME, 1.0)


@pytest.mark.failure("R02")
def test_the_state_is_measured_and_never_the_command(virtual_arm, connect) -> None:
    arm = connect(safety={"stall_error_rad": 1.0, "lost_rad": 1.0})
    arm.move_to(HOME, 1.0)
    virtual_arm.ask("jam", servo=1)
    for _ in range(5):
        state = arm.follow(HOME + np.array([0.2, 0, 0, 0, 0, 0]), 5)
    assert state.command_rad[0] - state.joint_pos_rad[0] > 0.15
    np.testing.assert_allclose(state.joint_pos_rad, virtual_arm.ask("state")["joint_pos_rad"], atol=0.003)


@pytest.mark.failure("R04")
def test_every_command_passes_the_limits(virtual_arm, connect) -> None:
    arm = connect()
    arm.move_to(HOME, 1.0)
    state = arm.follow(np.full(6, 9.0), 40)
    assert (state.command_rad <= arm.limits.upper_rad).all()
    assert state.clips.joint and state.clips.workspace
    with pytest.raises(RobotError, match="six finite numbers"):
        arm.follow([0, 0, np.nan, 0, 0, 0], 5)


@pytest.mark.failure("R14")
def test_a_reason_to_hold_still_stops_the_command_and_one_that_stays_is_an_error(connect, monkeypatch) -> None:
    arm = connect()
    arm.move_to(HOME, 1.0)
    answers = iter([None, "the camera is frozen", "the camera is frozen"])
    arm.hold_still = lambda: next(answers, None)
    tick, target = arm.state.tick, HOME + np.array([0.1, 0, 0, 0, 0, 0])
    state = arm.follow(target, 5)
    assert state.tick == tick + 7  # two ticks were not used
    monkeypatch.setattr("hilserl.robot.arm._HELD_S", 0.05)
    arm.hold_still = lambda: "the camera is frozen"
    with pytest.raises(RobotError, match=r"held still for .*: the camera is frozen"):
        arm.follow(HOME, 5)
    np.testing.assert_allclose(arm.state.command_rad, target)
    arm.hold_still = lambda: None
    arm.follow(HOME, 5)


def test_a_gripping_jaw_gets_less_torque_until_it_lets_go(virtual_arm, connect) -> None:
    arm = connect()
    arm.move_to(HOME, 1.0)
    virtual_arm.ask("jam", servo=6)
    closed = HOME.copy()
    closed[5] -= 0.5
    arm.follow(closed, 40)
    assert register(virtual_arm, 6, "Torque_Limit") == 200
    virtual_arm.ask("jam", servo=6, on=False)
    arm.follow(HOME, 20)
    assert register(virtual_arm, 6, "Torque_Limit") == 500
    assert arm.stopped is None


@pytest.mark.failure("R08")
def test_stopping_is_idempotent_latches_and_a_person_re_arms(virtual_arm, connect, make) -> None:
    arm = connect()
    arm.stop("somebody said so.")
    arm.stop("again.")
    assert not any(virtual_arm.ask("state")["torque_on"])
    with pytest.raises(RobotError, match=r"was stopped: somebody said so\."):
        arm.follow(HOME, 5)
    arm.close()
    held = latched("follower")
    assert held is not None and held.text == "somebody said so."
    with pytest.raises(RobotError, match="hilserl rearm --robot follower"):
        make().connect()
