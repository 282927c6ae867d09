"""The arm without its port: mechanics, power, hand, and its clock."""

from __future__ import annotations

import numpy as np
import pytest

from hilserl.errors import RobotError
from hilserl.robot.kinematics import HOME_RAD
from hilserl.robot.registers import TICKS_PER_TURN, find_register
from hilserl.virtual_arm import hand
from hilserl.virtual_arm.arm import ArmOptions, VirtualArm
from hilserl.virtual_arm.calibration import MIDDLE
from hilserl.virtual_arm.plant import REST_RAD
from hilserl.virtual_arm.protection import Status


@pytest.fixture
def arm() -> VirtualArm:
    return VirtualArm(ArmOptions(start_rad=HOME_RAD))


def write(arm: VirtualArm, servo: int, name: str, value: int) -> None:
    register = find_register(name)
    arm.servo(servo).write(register.address, register.encode(value).to_bytes(register.size, "little"))


def send(arm: VirtualArm, joints_rad) -> None:
    for servo, (mounting, angle) in enumerate(zip(arm.mountings, joints_rad, strict=True), 1):
        write(arm, servo, "Goal_Position", round(MIDDLE + (angle - mounting.middle_rad) / (2 * np.pi) * TICKS_PER_TURN))


def energise(arm: VirtualArm) -> None:
    for servo in range(1, 7):
        write(arm, servo, "Torque_Enable", 1)


def test_it_rests_where_it_is_without_torque():
    arm = VirtualArm()
    arm.advance(3.0)
    np.testing.assert_allclose(arm.plant.joint_pos_rad, REST_RAD, atol=0.01)


def test_it_falls_without_torque_and_holds_with_it(arm):
    energise(arm)
    arm.advance(1.0)
    np.testing.assert_allclose(arm.plant.joint_pos_rad, HOME_RAD, atol=0.005)
    for servo in range(1, 7):
        write(arm, servo, "Torque_Enable", 0)
    arm.advance(1.0)
    assert np.abs(arm.plant.joint_pos_rad - HOME_RAD).max() > 0.1


def test_it_goes_where_it_is_sent(arm):
    wanted = np.array([0.4, -0.9, 0.8, 1.0, -0.5, 0.9])
    send(arm, wanted)
    arm.advance(2.0)
    np.testing.assert_allclose(arm.plant.joint_pos_rad, wanted, atol=0.003)


def test_a_soft_arm_sags(arm):
    soft = VirtualArm(ArmOptions(start_rad=HOME_RAD, stiffness=0.02))
    for one in (arm, soft):
        send(one, HOME_RAD)
        one.advance(2.0)
    assert np.abs(arm.plant.joint_pos_rad - HOME_RAD).max() < 0.003
    assert 0.005 < np.abs(soft.plant.joint_pos_rad - HOME_RAD).max() < 0.1


def test_a_fast_motion_loads_the_servos_and_the_supply(arm):
    send(arm, [1.2, -1.2, 1.2, 0.6, 1.0, 1.0])
    arm.advance(0.15)
    state = arm.state()
    assert max(abs(servo["Present_Load"]) for servo in state["servos"]) > 500
    assert 9.0 < state["voltage_v"] < 11.7
    arm.advance(3.0)
    assert 11.7 < arm.state()["voltage_v"] < 12.0


def test_a_joint_is_no_faster_than_its_servo(arm):
    send(arm, [1.8, *HOME_RAD[1:]])
    fastest = 0.0
    for _ in range(200):
        arm.advance(0.005)
        fastest = max(fastest, abs(arm.plant.joint_vel_rad_s[0]))
    assert 3.0 < fastest < 3300 / TICKS_PER_TURN * 2 * np.pi * 1.1


def test_a_jammed_joint_stays_and_trips_its_servo(arm):
    energise(arm)
    before = arm.plant.joint_pos_rad[2]
    arm.plant.jammed.add(2)
    send(arm, [0.0, -0.6, 1.5, 1.35, 0.0, 0.0])
    arm.advance(1.9)
    assert not arm.servo(3).status
    arm.advance(0.4)
    assert arm.servo(3).status == Status.OVERLOAD
    assert arm.plant.joint_pos_rad[2] == before
    arm.plant.jammed.clear()
    arm.advance(1.0)
    assert arm.plant.joint_pos_rad[2] != before


def test_the_gripper_squeezes_the_cube_and_feels_it(arm):
    """A grasp shows in the load, as on a real arm."""
    joints, _ = _over_the_cube()
    arm.plant.place([*joints[:5], 0.6])
    arm.plant.place_cube((0.22, 0.0, 0.0125), 0.0)
    send(arm, [*joints[:5], 0.6])
    arm.advance(0.5)
    send(arm, [*joints[:5], -0.1])
    arm.advance(0.5)
    assert arm.plant.joint_pos_rad[5] > 0.05  # the cube is in between
    assert arm.servo(6).get("Present_Load") < -300


def _over_the_cube():
    from hilserl.robot.kinematics import Kinematics

    return Kinematics().inverse_with_residual(np.array(HOME_RAD), (0.22, 0.0, 0.015))


def test_a_brown_out_restarts_the_servos(arm):
    energise(arm)
    arm.supply.source_v = 2.5
    arm.advance(0.1)
    assert not any(servo.powered for servo in arm.servos)
    arm.supply.source_v = 12.0
    arm.advance(0.1)
    assert [servo.power_ups for servo in arm.servos] == [2] * 6
    assert not any(servo.torque_on for servo in arm.servos)


def test_with_a_low_voltage_the_motors_are_weak(arm):
    arm.supply.source_v = 4.5
    send(arm, [1.8, *HOME_RAD[1:]])
    arm.advance(0.3)
    slow = abs(arm.plant.joint_pos_rad[0])
    strong = VirtualArm(ArmOptions(start_rad=HOME_RAD))
    send(strong, [1.8, *HOME_RAD[1:]])
    strong.advance(0.3)
    assert slow < 0.7 * strong.plant.joint_pos_rad[0]


def test_the_small_motor_is_the_small_motor():
    small = VirtualArm(ArmOptions(motor="7.4V"))
    assert small.supply.source_v == 7.4
    assert small.servo(1).get("Max_Voltage_Limit") == 80
    small.advance(0.1)
    assert not any(servo.status for servo in small.servos)


def test_mountings_are_different_and_repeatable():
    one, same, other = (VirtualArm(ArmOptions(seed=seed)).mountings for seed in (0, 0, 1))
    assert one == same != other
    assert len({mounting.middle_ticks for mounting in one}) == 6


def test_lock_step_needs_a_sensible_rate():
    with pytest.raises(RobotError, match=r"lock step at 0\.5 Hz: give 1 to 200 Hz"):
        VirtualArm(ArmOptions(lock_step_hz=0.5))


def test_there_are_six_servos(arm):
    with pytest.raises(RobotError, match="servo 7: there are 1 to 6"):
        arm.servo(7)


# The hand


def test_a_hand_moves_a_limp_arm_and_lets_go(arm):
    target = [0.5, np.nan, 0.2, np.nan, np.nan, 1.0]
    arm.move_by_hand(hand.through(arm.plant.joint_pos_rad, target, speed_rad_s=2.0))
    assert arm.moved_by_hand
    while arm.moved_by_hand:
        arm.advance(0.05)
    np.testing.assert_allclose(arm.plant.joint_pos_rad[[0, 2, 5]], [0.5, 0.2, 1.0], atol=0.03)
    arm.move_by_hand(None)
    arm.advance(1.0)
    assert abs(arm.plant.joint_pos_rad[2] - 0.2) > 0.05


def test_a_servo_that_holds_resists_a_weak_hand(arm):
    energise(arm)
    arm.move_by_hand(hand.through(arm.plant.joint_pos_rad, [0.8, *[np.nan] * 5], torque_nm=1.0))
    arm.advance(2.0)
    assert abs(arm.plant.joint_pos_rad[0]) < 0.05
    arm.move_by_hand(hand.through(arm.plant.joint_pos_rad, [0.8, *[np.nan] * 5], torque_nm=6.0))
    arm.advance(2.0)
    assert arm.plant.joint_pos_rad[0] > 0.6


def test_no_joint_of_the_hand_is_faster_than_asked():
    movement = hand.through(np.zeros(6), [[1.0, 0.5, 0, 0, 0, 0], [1.0, -0.5, 0, 0, 0, 0]], speed_rad_s=0.5)
    times = np.linspace(0, movement.duration_s, 400)
    speeds = np.abs(np.diff([movement.at(time) for time in times], axis=0)) / np.diff(times)[:, None]
    assert movement.duration_s == pytest.approx(4.0)
    assert speeds.max() == pytest.approx(0.5, rel=0.02)
    np.testing.assert_array_equal(movement.at(99.0), [1.0, -0.5, 0, 0, 0, 0])


def test_a_wave_goes_on_and_on_without_a_jump():
    movement = hand.wave(np.zeros(6), seconds=10.0)
    times = np.arange(0.0, 40.0, 0.02)
    steps = np.abs(np.diff([movement.at(time) for time in times], axis=0))
    assert steps.max() < 0.05


def test_a_recording_is_followed(arm, tmp_path):
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    (tmp_path / "meta").mkdir()
    (tmp_path / "data" / "chunk-000").mkdir(parents=True)
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"features": {"action": {"names": [f"{name}.pos" for name in names]}}}))
    actions = [[10.0 * (frame / 20), -40.0, 40.0, 70.0, 0.0, 30.0] for frame in range(40)]
    table = pa.table(
        {
            "action": [[0.0] * 6, *actions],
            "timestamp": [0.0, *[frame / 10 for frame in range(40)]],
            "episode_index": [0] + [3] * 40,
        }
    )
    pq.write_table(table, tmp_path / "data" / "chunk-000" / "file-000.parquet")
    movement = hand.recording(arm.plant.joint_pos_rad, tmp_path, 3)
    arm.move_by_hand(movement)
    while arm.moved_by_hand:
        arm.advance(0.05)
    np.testing.assert_allclose(np.degrees(arm.plant.joint_pos_rad[:5]), actions[-1][:5], atol=1.0)
    with pytest.raises(hand.DatasetError, match="there is no episode 9"):
        hand.recording(arm.plant.joint_pos_rad, tmp_path, 9)
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"features": {"action": {"names": ["delta_x", "delta_y"]}}}))
    with pytest.raises(hand.DatasetError, match=r"a leader arm needs joints: shoulder_pan\.pos"):
        hand.recording(arm.plant.joint_pos_rad, tmp_path, 3)
