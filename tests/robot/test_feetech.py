"""The host's side of the servo bus, on a virtual one."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from hilserl.errors import BusError
from hilserl.robot.feetech import SERVOS, ServoBus
from hilserl.virtual_arm.client import VirtualArmProcess

PATIENCE_S = 5.0


@pytest.fixture
def bus(virtual_arm: VirtualArmProcess) -> Iterator[ServoBus]:
    bus = ServoBus(str(virtual_arm.port), timeout_s=PATIENCE_S)
    yield bus
    bus.close()


def registers(arm: VirtualArmProcess, name: str) -> list[int]:
    return [arm.ask("register", servo=servo, name=name)["value"] for servo in SERVOS]


def settle(bus: ServoBus, ticks: int = 30) -> None:
    """Let time pass."""
    goals = bus.read_state().position_ticks
    for _ in range(ticks):
        bus.write_goals(goals)


@pytest.mark.failure("R10")
def test_one_read_brings_everything_with_its_error_byte(virtual_arm, bus) -> None:
    settle(bus)
    virtual_arm.ask("servo", servo=2, ailments={"temperature_c": 75.0})
    bus.write_goals(bus.read_state().position_ticks)  # time passes
    before = virtual_arm.ask("state")["requests"]
    state = bus.read_state()
    after = virtual_arm.ask("state")["requests"]
    assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)} == {"SYNC_READ": 1}
    assert state.position_ticks.tolist() == registers(virtual_arm, "Present_Position")
    assert state.velocity_ticks_s.tolist() == registers(virtual_arm, "Present_Velocity")
    np.testing.assert_allclose(state.load * 1000, registers(virtual_arm, "Present_Load"))
    np.testing.assert_allclose(state.voltage_v * 10, registers(virtual_arm, "Present_Voltage"))
    np.testing.assert_allclose(state.current_a / 0.0065, registers(virtual_arm, "Present_Current"))
    assert state.temperature_c.tolist() == registers(virtual_arm, "Present_Temperature")
    assert state.error.tolist() == [0, 4, 0, 0, 0, 0]  # overheated
    assert state.answered.all() and state.torque_on.all()


@pytest.mark.failure("R12")
def test_a_servo_that_started_anew_shows_in_the_next_read(virtual_arm, bus) -> None:
    for servo in SERVOS:
        bus.write(servo, "Acceleration", 254)
    settle(bus, 1)
    virtual_arm.ask("reboot", servo=4)
    state = bus.read_state()
    assert state.acceleration.tolist() == [254, 254, 254, 0, 254, 254]
    assert state.torque_on.tolist() == [True, True, True, False, True, True]


def test_a_servo_that_does_not_answer_raises_nothing_and_is_told(virtual_arm, bus) -> None:
    bus.timeout_s = 0.15
    virtual_arm.ask("servo", servo=3, ailments={"silent": True})
    state = bus.read_state()
    assert state.answered.tolist() == [True, True, False, True, True, True]
    assert np.flatnonzero(np.isnan(state.position_ticks)).tolist() == [2]
    assert not bus.ping(3) and bus.ping(4)
    with pytest.raises(BusError, match=r"servo 3 does not answer, so `Lock` cannot be read\. Check"):
        bus.read(3, "Lock")
    with pytest.raises(BusError, match="servo 3 does not answer"):
        bus.write(3, "Lock", 1)


@pytest.mark.failure("R11")
def test_a_late_answer_is_never_taken_for_a_newer_one(virtual_arm, bus) -> None:
    bus.timeout_s = 0.25
    virtual_arm.ask("wire", faults={"late_next": 1, "late_s": 0.35})
    assert bus.read(1, "Present_Temperature") == 27  # the second try
    assert bus.read(1, "Present_Voltage") == 120  # of the same size as the temperature that may still come
    virtual_arm.ask("wire", faults={"late_next": 1, "late_s": 0.35})
    assert not bus.read_state().answered.any()
    assert bus.read_state().answered.all()
    virtual_arm.ask("wire", faults={"late": 1.0, "late_s": 0.35})
    for _ in range(4):  # each time the answers to the last request come
        assert not bus.read_state().answered.any()
    virtual_arm.ask("wire", faults={})
    time.sleep(0.4)
    assert bus.read_state().answered.all()


def test_an_interface_that_echoes_changes_nothing(virtual_arm, bus) -> None:
    virtual_arm.ask("wire", faults={"echo": True})
    bus.write(2, "Torque_Limit", 300)
    assert bus.read(2, "Torque_Limit") == 300
    assert all(bus.ping(servo) for servo in SERVOS)
    assert bus.read_state().answered.all()


def test_strangers_on_the_wire_and_lost_answers_are_survived(virtual_arm, bus) -> None:
    bus.timeout_s = 0.3
    virtual_arm.ask("wire", faults={"foreign": 1.0, "drop_next": 2})
    bus.write(2, "Torque_Limit", 300)
    assert bus.read(2, "Torque_Limit") == 300
    assert bus.read_state().answered.all()


def test_goals_and_limits_reach_all_servos(virtual_arm, bus) -> None:
    goals = bus.read_state().position_ticks + np.array([5.4, 0, 0, 0, -7.6, 0])
    bus.write_torque_limits([500, 510, 520, 530, 540, 550])
    bus.write_goals(goals)
    assert registers(virtual_arm, "Torque_Limit") == [500, 510, 520, 530, 540, 550]
    assert registers(virtual_arm, "Goal_Position") == np.rint(goals).tolist()
    assert all(virtual_arm.ask("state")["torque_on"])


@pytest.mark.failure("R22")
@pytest.mark.parametrize("goals", [[np.nan] * 6, [2000.0] * 5, [2000, 2000, 4096, 2000, 2000, 2000], [-1.0] * 6])
def test_what_is_no_position_is_not_sent(virtual_arm, bus, goals) -> None:
    with pytest.raises(BusError, match="Nothing was sent"):
        bus.write_goals(goals)
    assert not any(virtual_arm.ask("state")["torque_on"])


@pytest.mark.failure("R08")
def test_stopping_goes_past_errors_and_silent_servos_and_latches(virtual_arm, bus) -> None:
    bus.timeout_s = 0.2
    virtual_arm.ask("servo", servo=1, ailments={"temperature_c": 90.0})
    settle(bus, 2)
    virtual_arm.ask("servo", servo=3, ailments={"silent": True})
    off = bus.stop_all()
    assert off == {1: True, 2: True, 3: False, 4: True, 5: True, 6: True}
    assert virtual_arm.ask("state")["torque_on"] == [False, False, True, False, False, False]  # it does not hear, and says so
    for write in (
        lambda: bus.write_goals([2047] * 6),
        lambda: bus.write(1, "Torque_Enable", 1),
        lambda: bus.write(1, "Goal_Position", 2000),
    ):
        with pytest.raises(BusError, match="was stopped"):
            write()
    virtual_arm.ask("servo", servo=3, ailments={})
    assert bus.stop_all() == dict.fromkeys(SERVOS, True)


@pytest.mark.failure("R08")
def test_an_unplugged_arm_is_told_and_stopping_it_raises_nothing(virtual_arm, bus) -> None:
    virtual_arm.ask("unplug")
    for use in (bus.read_state, lambda: bus.read(1, "Lock"), lambda: bus.write(1, "Lock", 1), lambda: bus.write_goals([2047] * 6)):
        with pytest.raises(BusError, match=r"the serial port is gone .*Plug the cable in again"):
            use()
    assert bus.stop_all() == dict.fromkeys(SERVOS, False)
    bus.close()
    bus.close()


def test_a_port_that_does_not_open_says_what_to_do(tmp_path) -> None:
    with pytest.raises(BusError, match="lerobot-find-port"):
        ServoBus(str(tmp_path / "none"))
