"""LeRobot's own driver and Feetech's own SDK, unmodified, on the virtual arm's port."""

from __future__ import annotations

import builtins
import threading

import numpy as np
import pytest
import scservo_sdk
from conftest import StartArm, make_follower, make_leader, wait_longer
from lerobot.motors import Motor, MotorNormMode
from lerobot.motors.feetech import FeetechMotorsBus

from hilserl.robot.units import joints_to_lerobot
from hilserl.schema import JOINT_NAMES
from hilserl.virtual_arm.arm import ArmOptions
from hilserl.virtual_arm.bus import Timing
from hilserl.virtual_arm.client import VirtualArmProcess

POSE = {"shoulder_pan": 20.0, "shoulder_lift": -30.0, "elbow_flex": 40.0, "wrist_flex": 35.0, "wrist_roll": 60.0, "gripper": 50.0}
ACTION = {f"{name}.pos": value for name, value in POSE.items()}
ALL_OFF, ALL_ON = [False] * 6, [True] * 6
LOCK_STEP = ArmOptions(lock_step_hz=50.0, timing=Timing(wire=False))


@pytest.fixture(scope="module")
def shared_arm(tmp_path_factory: pytest.TempPathFactory):
    from hilserl.virtual_arm.server import ServerOptions

    with VirtualArmProcess(ServerOptions(folder=tmp_path_factory.mktemp("arm"), arm=LOCK_STEP, until_stdin_ends=True)) as process:
        yield process


@pytest.fixture
def arm(shared_arm):
    """A new arm in lock step at 50 Hz, in a process that outlives the test."""
    shared_arm.ask("reset")
    return shared_arm


@pytest.fixture
def follower(arm):
    robot = make_follower(arm)
    robot.connect(calibrate=False)
    yield robot
    if robot.is_connected:
        robot.disconnect()


def true_joints(arm: VirtualArmProcess) -> np.ndarray:
    """Where MuJoCo has the joints, in LeRobot's units."""
    return joints_to_lerobot(arm.ask("state")["joint_pos_rad"])


def test_connecting_takes_the_traffic_that_it_takes_on_a_real_arm(arm):
    robot = make_follower(arm)
    robot.connect()
    state = arm.ask("state")
    assert state["requests"] == {"PING": 6, "READ": 42, "WRITE": 69}
    assert state["torque_on"] == ALL_ON
    robot.disconnect()
    assert arm.ask("state")["torque_on"] == ALL_OFF


def test_observation_and_action_are_one_request_each(arm, follower):
    before = arm.ask("state")["requests"]
    follower.send_action(ACTION)
    follower.get_observation()
    after = arm.ask("state")["requests"]
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == {
        "SYNC_READ": 1,
        "SYNC_WRITE": 1,
    }


def test_lerobots_units_are_mujocos_joints(arm, follower):
    for _ in range(100):
        follower.send_action(ACTION)
    observed = np.array([follower.get_observation()[f"{name}.pos"] for name in JOINT_NAMES])
    np.testing.assert_allclose(observed, list(POSE.values()), atol=0.25)
    np.testing.assert_allclose(observed, true_joints(arm), atol=0.15)


def test_a_relative_target_limits_the_step(arm):
    robot = make_follower(arm, max_relative_target=5.0)
    robot.connect()
    sent = robot.send_action(ACTION | {"shoulder_pan.pos": 90.0})
    assert sent["shoulder_pan.pos"] == pytest.approx(5.0, abs=0.1)
    robot.disconnect()


def test_only_the_servos_own_limits_stop_a_wild_goal_in_degrees(arm, follower):
    for _ in range(150):
        follower.send_action(ACTION | {"shoulder_pan.pos": 400.0})
    follower.get_observation()
    pan = arm.ask("state")["servos"][0]
    limit = arm.ask("register", servo=1, name="Max_Position_Limit")["value"]
    assert pan["Goal_Position"] == 6597
    assert abs(pan["Present_Position"] - limit) <= 2


def test_the_grippers_torque_limit_is_lerobots_only_after_a_power_cycle(arm, follower):
    def gripper(name: str) -> int:
        return arm.ask("register", servo=6, name=name)["value"]

    assert (gripper("Max_Torque_Limit"), gripper("Torque_Limit")) == (500, 1000)
    arm.ask("power_cycle")
    assert gripper("Torque_Limit") == 500


def test_a_leader_is_read_while_a_hand_moves_it(start_arm: StartArm):
    arm = start_arm("leader", ArmOptions(timing=Timing(wire=False)))
    leader = make_leader(arm)
    leader.connect()
    assert arm.ask("state")["torque_on"] == ALL_OFF
    arm.ask("hand", move="to", joints_rad={name: 0.3 for name in JOINT_NAMES}, speed_rad_s=3.0)
    arm.wait_for_hand()
    wanted = joints_to_lerobot([0.3] * 6)
    action = np.array([leader.get_action()[f"{name}.pos"] for name in JOINT_NAMES])
    np.testing.assert_allclose(action, wanted, atol=2.0)  # degrees: a hand holds it, in real time
    leader.send_feedback(dict(zip([f"{name}.pos" for name in JOINT_NAMES], action, strict=True)))
    arm.ask("state")
    assert arm.ask("state")["torque_on"] == ALL_ON  # a trap: feedback switches the torque on
    leader.disconnect()


def test_a_factory_new_arm_is_not_calibrated_until_the_file_is_written(start_arm, monkeypatch):
    arm = start_arm(arm=ArmOptions(lock_step_hz=50.0, timing=Timing(wire=False), calibrated=False))
    robot = make_follower(arm)
    robot.bus.connect()
    assert not robot.is_calibrated
    robot.bus.disconnect()

    from hilserl.virtual_arm.calibration import mountings, write_lerobot_calibration
    from hilserl.virtual_arm.plant import Plant

    plant = Plant()
    write_lerobot_calibration(mountings(plant.lower_rad, plant.upper_rad, seed=0), arm.calibration)
    robot = make_follower(arm)
    monkeypatch.setattr(builtins, "input", lambda _: "")  # ENTER: use the file
    robot.connect()
    assert robot.is_calibrated
    observed = np.array([robot.get_observation()[f"{name}.pos"] for name in JOINT_NAMES])
    np.testing.assert_allclose(observed, true_joints(arm), atol=0.15)
    robot.disconnect()


@pytest.mark.slow
def test_the_whole_interactive_calibration_finds_what_the_arm_is(start_arm, monkeypatch):
    """With a hand that does what the prompts ask for; the file is within a tick or two of the true one."""
    arm = start_arm(arm=ArmOptions(timing=Timing(wire=False), calibrated=False))
    robot = make_follower(arm)
    moved = threading.Event()

    def answer(prompt: str) -> str:
        if "middle" in prompt:
            state = arm.ask("state")
            assert state["torque_on"] == ALL_OFF
            lower_upper = {
                "shoulder_pan": 0.0,
                "shoulder_lift": 0.0,
                "elbow_flex": 0.0,
                "wrist_flex": 0.0,
                "wrist_roll": 0.0,
                "gripper": 0.78535,
            }
            arm.ask("hand", move="to", joints_rad=lower_upper)
            arm.wait_for_hand()
        return ""

    def pressed() -> bool:
        if not moved.is_set():
            moved.set()
            arm.ask("hand", move="sweep", speed_rad_s=2.0)
        return not arm.ask("state")["moved_by_hand"]

    monkeypatch.setattr(builtins, "input", answer)
    monkeypatch.setattr("lerobot.motors.motors_bus.enter_pressed", pressed)
    robot.bus.connect()
    robot.calibrate()

    from hilserl.virtual_arm.calibration import lerobot_calibration, mountings
    from hilserl.virtual_arm.plant import Plant

    plant = Plant()
    true = lerobot_calibration(mountings(plant.lower_rad, plant.upper_rad, seed=0))
    blocked = {"elbow_flex": 20}  # MuJoCo's forearm touches the shoulder 16 ticks before the stop
    for name, found in robot.calibration.items():
        assert found.homing_offset == pytest.approx(true[name]["homing_offset"], abs=2), name
        assert found.range_min == pytest.approx(true[name]["range_min"], abs=14), name  # stops give way a little
        assert found.range_max == pytest.approx(true[name]["range_max"], abs=blocked.get(name, 14)), name
    assert arm.ask("register", servo=1, name="Homing_Offset")["value"] == robot.calibration["shoulder_pan"].homing_offset
    robot.bus.disconnect()


def test_setting_up_a_new_motor_gives_it_its_id(arm):
    for servo in range(2, 7):
        arm.ask("servo", servo=servo, ailments={"silent": True})  # one motor at a time on the board
    bus = FeetechMotorsBus(str(arm.port), {"gripper": Motor(6, "sts3215", MotorNormMode.RANGE_0_100)})
    wait_longer(bus)
    bus.setup_motor("gripper", initial_baudrate=1_000_000)
    assert bus.ping("gripper") == 777
    assert arm.ask("register", servo=1, name="ID")["value"] == 6
    bus.disconnect()


@pytest.mark.slow
def test_scanning_the_port_finds_every_motor_at_its_baud_rate(arm, monkeypatch):
    arm.ask("register", servo=2, name="Baud_Rate", value=3)  # 128000: no constant of termios, as 250000
    arm.ask("register", servo=3, name="Baud_Rate", value=4)
    set_up = FeetechMotorsBus.__init__

    def patient(self, *arguments, **named):
        set_up(self, *arguments, **named)
        wait_longer(self)

    monkeypatch.setattr(FeetechMotorsBus, "__init__", patient)
    assert FeetechMotorsBus.scan_port(str(arm.port)) == {115_200: [3], 128_000: [2], 1_000_000: [1, 4, 5, 6]}


def test_lock_step_repeats_bit_for_bit(arm):
    def play() -> list[tuple[float, ...]]:
        arm.ask("reset")
        robot = make_follower(arm)
        robot.connect()
        seen = []
        for step in range(60):
            seen.append(tuple(robot.get_observation().values()))
            robot.send_action({name: value * np.sin(step / 10.0) for name, value in ACTION.items()})
        robot.get_observation()  # the answer says that the last action has been carried out
        seen.append(tuple(arm.ask("state")["joint_pos_rad"]))
        robot.disconnect()
        return seen

    assert play() == play()


# Feetech's SDK by itself


@pytest.fixture
def sdk(arm):
    port = scservo_sdk.PortHandler(str(arm.port))
    port.openPort()

    def patient(packet_length: int) -> None:
        port.setPacketTimeoutMillis(2000.0)

    port.setPacketTimeout = patient
    yield port, scservo_sdk.PacketHandler(0)
    port.closePort()


def test_the_sdk_pings_reads_and_writes(sdk):
    port, handler = sdk
    assert handler.ping(port, 3) == (777, scservo_sdk.COMM_SUCCESS, 0)
    assert handler.write1ByteTxRx(port, 3, 41, 50) == (scservo_sdk.COMM_SUCCESS, 0)
    assert handler.read1ByteTxRx(port, 3, 41) == (50, scservo_sdk.COMM_SUCCESS, 0)


def test_the_sdk_moves_several_at_once(arm, sdk):
    port, handler = sdk
    for servo in (1, 2):
        assert handler.regWriteTxRx(port, servo, 42, 2, [0x34, 0x08]) == (scservo_sdk.COMM_SUCCESS, 0)
    assert arm.ask("register", servo=1, name="Goal_Position")["value"] == 0
    handler.action(port, scservo_sdk.BROADCAST_ID)
    assert handler.read2ByteTxRx(port, 2, 42) == (2100, scservo_sdk.COMM_SUCCESS, 0)


def test_the_sdk_reads_a_block_of_every_servo(arm, sdk):
    port, handler = sdk
    reader = scservo_sdk.GroupSyncRead(port, handler, 56, 15)  # position to current, in one request
    for servo in range(1, 7):
        reader.addParam(servo)
    assert reader.txRxPacket() == scservo_sdk.COMM_SUCCESS
    for servo, known in zip(range(1, 7), arm.ask("state")["servos"], strict=True):
        assert reader.getData(servo, 56, 2) == known["Present_Position"]
        assert 110 <= reader.getData(servo, 62, 1) <= 120
        assert reader.getData(servo, 63, 1) == 27
