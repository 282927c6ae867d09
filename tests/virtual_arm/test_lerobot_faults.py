"""What LeRobot's own driver does under each fault: the reasons for ours. Each test states LeRobot 0.6.1's behaviour, good or bad."""

from __future__ import annotations

import termios
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import serial
from conftest import make_follower, wait_longer
from lerobot.robots.so_follower import SO101Follower

from hilserl.schema import JOINT_NAMES
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess
from hilserl.virtual_arm.protection import Status
from hilserl.virtual_arm.server import ServerOptions

HZ = 50.0
SHORT_MS = 400.0  # where an answer is missing on purpose
HOME = {
    "shoulder_pan.pos": 0.0,
    "shoulder_lift.pos": -35.0,
    "elbow_flex.pos": 35.0,
    "wrist_flex.pos": 75.0,
    "wrist_roll.pos": 0.0,
    "gripper.pos": 20.0,
}


@pytest.fixture(scope="module")
def shared_arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualArmProcess]:
    lock_step = ArmOptions(lock_step_hz=HZ, timing=Timing(wire=False))
    with VirtualArmProcess(ServerOptions(folder=tmp_path_factory.mktemp("arm"), arm=lock_step, until_stdin_ends=True)) as process:
        yield process


@pytest.fixture
def arm(shared_arm: VirtualArmProcess) -> VirtualArmProcess:
    shared_arm.ask("reset")
    return shared_arm


@pytest.fixture
def robot(arm: VirtualArmProcess) -> Iterator[SO101Follower]:
    """LeRobot's follower, connected, at home."""
    robot = make_follower(arm)
    robot.connect(calibrate=False)
    act(robot, HOME, 1.5)
    wait_longer(robot.bus, SHORT_MS)
    yield robot
    robot.bus.port_handler.is_open = False  # however the test left it, __del__ shall not try again
    robot.bus.port_handler.ser.close()


def act(robot: SO101Follower, action: dict[str, float], seconds: float) -> dict[str, float]:
    """Send one action for a while, as a control loop does; return the last observation."""
    for _ in range(round(seconds * HZ)):
        robot.send_action(action)
    return robot.get_observation()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def torque(arm: VirtualArmProcess) -> str:
    """Which servos hold, ids 1 to 6: `000111`."""
    return "".join(str(int(on)) for on in arm.ask("state")["torque_on"])


def status(arm: VirtualArmProcess) -> list[Status]:
    return [Status(bits) for bits in arm.ask("state")["status"]]


# Wire


def test_a_lost_answer_is_read_again(arm, robot):
    arm.ask("wire", faults={"drop_next": 1})
    robot.get_observation()
    assert arm.ask("state")["faults"]["dropped"] == 1
    robot.disconnect()
    assert torque(arm) == "000000"


@pytest.mark.parametrize("fault", ["drop", "flip"])
def test_many_lost_or_damaged_answers_end_the_loop(arm, robot, fault):
    wait_longer(robot.bus, 50.0)
    arm.ask("wire", faults={fault: 0.4})
    with pytest.raises(ConnectionError, match="Failed to sync read 'Present_Position'"):
        for _ in range(500):
            robot.get_observation()
    assert torque(arm) == "111111"  # nothing stops the arm


def test_one_late_answer_makes_every_later_read_one_old(arm, robot):
    """Nothing throws away what is left in the buffer: FAILURES R11."""
    arm.ask("wire", faults={"late_next": 1, "late_s": SHORT_MS / 1000 * 1.25})
    robot.get_observation()  # its first try waits in vain, its second is answered
    wait_for(lambda: robot.bus.port_handler.ser.in_waiting == 6 * 8)  # now the answer to the first arrives
    true_deg, seen_deg = [], []
    for step in range(10):
        true_deg.append(np.degrees(arm.ask("state")["joint_pos_rad"][0]))
        seen_deg.append(robot.get_observation()["shoulder_pan.pos"])
        robot.send_action(HOME | {"shoulder_pan.pos": 5.0 * step})
    np.testing.assert_allclose(seen_deg[1:], true_deg[:-1], atol=0.2)
    assert max(np.abs(np.subtract(true_deg, seen_deg))) > 2.0
    present = arm.ask("register", servo=1, name="Present_Position")["value"]
    assert robot.bus.read("Present_Current", "shoulder_pan", normalize=False) != 0  # a current, it says;
    assert abs(arm.ask("register", servo=1, name="Present_Current")["value"]) < 400 < present  # it is a position


def test_late_answers_are_stale_and_the_end_of_the_loop(arm, robot):
    wait_longer(robot.bus, 50.0)
    arm.ask("wire", faults={"late": 1.0, "late_s": 0.06})
    before = robot.get_observation()
    robot.send_action(HOME | {"shoulder_pan.pos": 40.0})
    for _ in range(3):
        robot.send_action(HOME | {"shoulder_pan.pos": 40.0})
    after = robot.get_observation()
    assert after["shoulder_pan.pos"] == pytest.approx(before["shoulder_pan.pos"], abs=1.0)  # the arm has moved
    assert np.degrees(arm.ask("state")["joint_pos_rad"][0]) > 5.0


def test_strangers_on_the_bus_do_not_hang_it(arm, robot):
    arm.ask("wire", faults={"foreign": 1.0})
    robot.get_observation()
    robot.disconnect()
    assert torque(arm) == "000000"


def test_an_echoing_interface_is_taken_for_an_answer(arm):
    robot = make_follower(arm)
    arm.ask("wire", faults={"echo": True})
    with pytest.raises(IndexError):
        robot.connect(calibrate=False)
    robot.bus.port_handler.ser.close()
    robot.bus.port_handler.is_open = False


# Servos


def test_a_servo_that_falls_silent_leaves_the_rest_energised(arm, robot):
    arm.ask("servo", servo=3, ailments={"silent": True})
    with pytest.raises(ConnectionError, match="There is no status packet"):
        robot.get_observation()
    with pytest.raises(ConnectionError):
        robot.disconnect()
    assert torque(arm) == "001111"  # R08
    assert robot.is_connected


def test_a_dead_servo_lets_go_and_the_rest_goes_on_holding(arm, robot):
    arm.ask("servo", servo=2, ailments={"dead": True})
    arm.ask("advance", seconds=1.0)
    with pytest.raises(ConnectionError):
        robot.get_observation()
    assert torque(arm) == "101111"
    fallen = np.degrees(arm.ask("state")["joint_pos_rad"][1]) - HOME["shoulder_lift.pos"]
    assert abs(fallen) > 3.0


def test_an_overload_is_not_seen_and_keeps_torque_from_being_switched_off(arm, robot):
    """R10, R13: 2 s until the servo itself trips; `disconnect` raises at the first bad servo."""
    arm.ask("jam", servo=3)
    beyond = HOME | {"elbow_flex.pos": HOME["elbow_flex.pos"] + 60.0}
    act(robot, beyond, 1.9)
    assert not any(status(arm))
    act(robot, beyond, 0.4)
    assert status(arm)[2] == Status.OVERLOAD
    act(robot, beyond, 0.1)
    load = arm.ask("register", servo=3, name="Present_Load")["value"]
    assert load == pytest.approx(200, abs=1)  # the protective torque
    with pytest.raises(RuntimeError, match="Overload error"):
        robot.disconnect()
    assert torque(arm) == "000111"
    assert robot.is_connected


def test_a_small_relative_target_keeps_a_jammed_servo_from_tripping(start_arm):
    """And so nobody notices that it is jammed. With position loops about as soft as a real servo's."""
    arm = start_arm(arm=ArmOptions(lock_step_hz=HZ, timing=Timing(wire=False), stiffness=0.02))
    robot = make_follower(arm, max_relative_target=5.0)
    robot.connect(calibrate=False)
    arm.ask("jam", servo=1)
    act(robot, HOME | {"shoulder_pan.pos": 60.0}, 3.0)
    assert 300 < arm.ask("register", servo=1, name="Present_Load")["value"] < 800
    assert not any(status(arm))
    robot.disconnect()


def test_overheating_is_not_seen_and_keeps_torque_from_being_switched_off(arm, robot):
    arm.ask("servo", servo=2, ailments={"temperature_c": 75.0})
    act(robot, HOME, 0.5)
    assert status(arm)[1] == Status.OVERHEAT
    with pytest.raises(RuntimeError, match="Overheat error"):
        robot.disconnect()
    assert torque(arm) == "001111"


def test_a_reboot_is_not_seen_and_the_next_goal_energises_it_without_its_settings(arm, robot):
    """R12."""
    assert arm.ask("register", servo=2, name="Acceleration")["value"] == 254
    arm.ask("reboot", servo=2)
    assert torque(arm) == "101111"
    robot.get_observation()
    robot.send_action(HOME)
    robot.get_observation()
    assert torque(arm) == "111111"
    assert arm.ask("register", servo=2, name="Acceleration")["value"] == 0
    assert arm.ask("state")["power_ups"] == [1, 2, 1, 1, 1, 1]


def test_a_stuck_encoder_bit_is_believed(arm, robot):
    before = robot.get_observation()["wrist_roll.pos"]
    raw = arm.ask("register", servo=5, name="Present_Position")["value"]
    homing = arm.ask("register", servo=5, name="Homing_Offset")["value"]
    clear = ~(raw + homing) & 1 << 8 or (raw + homing) & 1 << 8
    arm.ask("servo", servo=5, ailments={"encoder_set" if not (raw + homing) & 1 << 8 else "encoder_clear": clear})
    assert abs(robot.get_observation()["wrist_roll.pos"] - before) == pytest.approx(22.5, abs=0.3)


@pytest.mark.parametrize(
    ("register", "value", "message"),
    [("Model_Number", 2825, "incorrect model numbers"), ("Firmware_Minor_Version", 9, "different firmware versions")],
)
def test_another_model_or_firmware_is_refused(arm, register, value, message):
    arm.ask("register", servo=4, name=register, value=value)
    robot = make_follower(arm)
    with pytest.raises(RuntimeError, match=message):
        robot.connect(calibrate=False)
    robot.bus.port_handler.ser.close()
    robot.bus.port_handler.is_open = False


def test_a_servo_at_another_baud_rate_is_missing(arm):
    arm.ask("register", servo=5, name="Baud_Rate", value=1)
    robot = make_follower(arm)
    wait_longer(robot.bus, SHORT_MS)
    with pytest.raises(RuntimeError, match=r"Missing motor IDs:\s+- 5"):
        robot.connect(calibrate=False)
    robot.bus.port_handler.ser.close()
    robot.bus.port_handler.is_open = False


# Power and cable


def test_power_loss_ends_the_loop(arm, robot):
    arm.ask("supply", on=False)
    arm.ask("advance", seconds=1.0)
    assert torque(arm) == "000000"
    with pytest.raises(ConnectionError):
        robot.get_observation()
    with pytest.raises(ConnectionError):
        robot.disconnect()


def test_a_short_power_cut_is_not_seen_and_the_arm_snaps_back(arm, robot):
    act(robot, HOME, 0.2)
    arm.ask("supply", on=False)
    arm.ask("advance", seconds=0.5)  # the arm falls
    arm.ask("supply", on=True)
    arm.ask("advance", seconds=0.1)
    fallen = robot.get_observation()
    assert torque(arm) == "000000"
    robot.send_action(HOME)
    robot.get_observation()
    assert torque(arm) == "111111"
    speeds = []
    for _ in range(10):
        robot.send_action(HOME)
        robot.get_observation()
        speeds.append(max(map(abs, arm.ask("state")["joint_vel_rad_s"])))
    assert abs(fallen["shoulder_lift.pos"] - HOME["shoulder_lift.pos"]) > 3.0
    assert max(speeds) > 1.0


def test_too_low_a_voltage_is_not_seen_and_keeps_torque_from_being_switched_off(arm, robot):
    arm.ask("supply", source_v=3.8, resistance_ohm=0.01)
    act(robot, HOME, 0.2)
    assert all(bits & Status.VOLTAGE for bits in status(arm))
    with pytest.raises(RuntimeError, match="Input voltage error"):
        robot.disconnect()
    assert torque(arm) == "011111"


def test_a_poor_plug_reboots_the_servos_under_load(arm, robot):
    arm.ask("supply", resistance_ohm=4.0)
    act(robot, HOME | {"shoulder_lift.pos": -90.0, "elbow_flex.pos": 80.0, "wrist_flex.pos": 20.0, "shoulder_pan.pos": 80.0}, 0.5)
    assert max(arm.ask("state")["power_ups"]) > 1


def test_an_unplugged_cable_is_an_error_that_disconnect_does_not_survive(arm, robot):
    arm.ask("unplug")
    with pytest.raises((serial.SerialException, termios.error)):  # the second is no OSError
        robot.get_observation()
    with pytest.raises(termios.error):
        robot.disconnect()
    assert robot.is_connected
    assert torque(arm) == "111111"
    arm.ask("plug")
    again = make_follower(arm)
    again.connect(calibrate=False)
    again.disconnect()
    assert torque(arm) == "000000"


def test_every_joint_is_where_it_was_left(arm, robot):
    """The faults above are the faults' doing: without one, the same loop is quiet."""
    seen = act(robot, HOME, 0.5)
    np.testing.assert_allclose([seen[f"{name}.pos"] for name in JOINT_NAMES], list(HOME.values()), atol=1.0)
    robot.disconnect()
    assert torque(arm) == "000000"
