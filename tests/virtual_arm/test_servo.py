import pytest
from servo_testing import STEP_S, Bench

from hilserl.virtual_arm.motor import MOTORS
from hilserl.virtual_arm.protection import Status
from hilserl.virtual_arm.servo import ServoOptions


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Memory and power


def test_a_new_servo_is_as_from_the_factory(bench):
    assert [bench.servo.get(name) for name in ("Model_Number", "ID", "Baud_Rate", "Phase", "Unloading_Condition")] == [777, 1, 0, 12, 44]
    assert [bench.servo.get(name) for name in ("Torque_Enable", "Torque_Limit", "Lock", "Acceleration")] == [0, 1000, 1, 0]


@pytest.mark.parametrize(("lock", "after_power_cut"), [(0, 7), (1, 0)])
def test_lock_decides_whether_eeprom_survives_a_power_cut(bench, lock, after_power_cut):
    bench.write("Lock", lock)
    bench.write("I_Coefficient", 7)
    assert bench.servo.get("I_Coefficient") == 7
    bench.power_cycle()
    assert bench.servo.get("I_Coefficient") == after_power_cut


def test_sram_is_lost_in_a_power_cut(bench):
    bench.write("Lock", 0)
    for name, value in (("Torque_Enable", 1), ("Acceleration", 254), ("Goal_Position", 2100), ("Torque_Limit", 300)):
        bench.write(name, value)
    bench.power_cycle()
    assert [bench.servo.get(name) for name in ("Torque_Enable", "Acceleration", "Torque_Limit", "Lock")] == [0, 0, 1000, 1]
    assert bench.servo.power_ups == 2


def test_the_torque_limit_follows_its_maximum_only_at_power_up(bench):
    bench.write("Lock", 0)
    bench.write("Max_Torque_Limit", 500)
    assert bench.servo.get("Torque_Limit") == 1000
    bench.power_cycle()
    assert bench.servo.get("Torque_Limit") == 500


def test_read_only_registers_do_not_change(bench):
    before = bench.servo.read(0, 5), bench.servo.read(56, 15)
    bench.servo.write(0, b"\x01" * 5)
    bench.servo.write(56, b"\x01" * 15)
    assert (bench.servo.read(0, 5), bench.servo.read(56, 15)) == before


def test_a_read_beyond_the_table_is_zeros(bench):
    assert bench.servo.read(120, 20) == bytes(20)


def test_a_write_may_span_registers(bench):
    bench.servo.write(41, bytes([50, 0x34, 0x08, 0, 0, 0x64, 0]))  # acceleration, goal, time, velocity, as Feetech's own driver does
    assert [bench.servo.get(name) for name in ("Acceleration", "Goal_Position", "Goal_Velocity")] == [50, 2100, 100]


def test_a_buffered_write_waits_for_the_action(bench):
    bench.servo.write_later(42, (2100).to_bytes(2, "little"))
    assert (bench.servo.get("Goal_Position"), bench.servo.get("Async_Write_Flag")) == (0, 1)
    bench.servo.act()
    assert (bench.servo.get("Goal_Position"), bench.servo.get("Async_Write_Flag")) == (2100, 0)
    bench.servo.act()


def test_factory_reset_keeps_the_id(bench):
    bench.write("Lock", 0)
    bench.write("ID", 4)
    bench.write("Min_Position_Limit", 900)
    bench.servo.reset_to_factory()
    assert (bench.servo.servo_id, bench.servo.get("Min_Position_Limit")) == (4, 0)


# Position


def test_position_is_what_the_encoder_says_less_the_homing_offset(bench):
    bench.write("Homing_Offset", -47)
    assert bench.servo.get("Present_Position") == 2047


def test_position_wraps_within_one_turn_and_not_beyond_with_the_phase_bit():
    bench = Bench(encoder=100.0)
    bench.write("Homing_Offset", 300)
    assert bench.servo.get("Present_Position") == 3896
    bench.write("Phase", 12 | 0x10)
    assert bench.servo.get("Present_Position") == -200


def test_writing_128_calls_the_present_position_2048_for_good(bench):
    bench.write("Torque_Enable", 128)
    assert (bench.servo.get("Present_Position"), bench.servo.get("Torque_Enable")) == (2048, 0)
    bench.power_cycle()
    assert bench.servo.get("Present_Position") == 2048


def test_a_stuck_encoder_bit_is_seen_in_the_position(bench):
    bench.servo.ailments.encoder_set = 1 << 11  # 2000 = 0b011111010000
    assert bench.servo.get("Present_Position") == 2000 + 2048
    bench.servo.ailments.encoder_set, bench.servo.ailments.encoder_clear = 0, 1 << 10
    assert bench.servo.get("Present_Position") == 2000 - 1024


# Motion


def test_it_goes_to_its_goal_and_stops_there(bench):
    bench.write("Goal_Position", 2600)
    bench.run(1.0)
    assert bench.servo.get("Present_Position") == 2600
    assert bench.servo.get("Moving") == 0


def test_the_goal_is_clipped_to_the_limits(bench):
    bench.write("Max_Position_Limit", 2300)
    bench.write("Goal_Position", 6597)
    bench.run(1.0)
    assert bench.servo.get("Present_Position") == 2300


def test_speed_and_acceleration_are_kept(bench):
    bench.write("Acceleration", 10)  # 1000 ticks/s^2
    bench.write("Goal_Velocity", 500)
    bench.write("Goal_Position", 3000)
    bench.run(0.25)
    assert bench.servo.get("Present_Velocity") == pytest.approx(250, abs=6)
    bench.run(0.5)
    assert bench.servo.get("Present_Velocity") == 500
    bench.run(1.75 - STEP_S)  # 1000 ticks = 125 up, 750 at speed, 125 down: 2.5 s
    assert 2995 <= bench.servo.get("Present_Position") <= 3000
    bench.run(0.1)
    assert (bench.servo.get("Present_Position"), bench.servo.get("Moving")) == (3000, 0)


def test_a_new_servo_is_as_fast_as_its_speed_limit(bench):
    bench.write("Goal_Position", 4000)
    bench.run(0.1)
    assert bench.servo.get("Present_Velocity") == 3300


def test_a_goal_write_switches_the_torque_on(bench):
    bench.write("Goal_Position", 2100)
    assert bench.servo.torque_on
    quiet = Bench(ServoOptions(goal_enables_torque=False))
    quiet.write("Goal_Position", 2100)
    quiet.run(0.5)
    assert not quiet.servo.torque_on
    assert quiet.servo.get("Present_Position") == 2000


@pytest.mark.parametrize(("option", "ends_at"), [("present", 2000), ("register", 2500)])
def test_where_it_goes_when_torque_comes_on(option, ends_at):
    bench = Bench(ServoOptions(torque_on_goal=option))
    bench.write("Goal_Position", 2500)
    bench.write("Torque_Enable", 0)
    bench.run(0.1)
    bench.write("Torque_Enable", 1)
    bench.run(1.0)
    assert bench.servo.get("Present_Position") == ends_at


def test_without_torque_it_drives_nothing(bench):
    bench.write("Goal_Position", 2100)
    bench.write("Torque_Enable", 0)
    bench.run(0.5)
    assert bench.servo.drive(STEP_S).error is None
    assert bench.servo.get("Present_Position") == 2000


def test_velocity_mode_turns_on_and_on(bench):
    bench.write("Operating_Mode", 1)
    bench.write("Torque_Enable", 1)
    bench.write("Goal_Velocity", -1000)
    bench.run(3.0)
    assert bench.encoder == pytest.approx(-1000, abs=10)
    assert bench.servo.get("Present_Velocity") == -1000
    assert bench.servo.get("Present_Position") == round(bench.encoder) % 4096


def test_the_torque_limit_bounds_the_duty(bench):
    bench.wall = 2050.0
    bench.write("Torque_Limit", 300)
    bench.write("Goal_Position", 2600)
    bench.run(0.5)
    assert bench.servo.get("Present_Load") == 300
    assert bench.servo.get("Present_Current") == round(0.3 * MOTORS["12V"].stall_current_a / 0.0065)


# Protections


def test_overload_trips_after_its_time_and_leaves_the_protective_torque(bench):
    bench.wall = 2050.0
    bench.write("Goal_Position", 2600)
    bench.run(2.0)
    assert not bench.servo.status
    bench.run(0.2)
    assert bench.servo.status == Status.OVERLOAD
    bench.run(0.1)
    assert bench.servo.get("Present_Load") == 200
    bench.write("Torque_Enable", 0)
    assert bench.servo.status == Status.OVERLOAD  # so the answer to this write still carries the error
    bench.write("Torque_Enable", 1)
    assert not bench.servo.status


def test_overload_may_need_a_power_cycle():
    bench = Bench(ServoOptions(clears="power"))
    bench.wall = 2050.0
    bench.write("Goal_Position", 2600)
    bench.run(2.5)
    bench.write("Torque_Enable", 0)
    bench.write("Torque_Enable", 1)
    assert bench.servo.status == Status.OVERLOAD
    bench.power_cycle()
    assert not bench.servo.status


def test_a_masked_overload_is_reported_but_does_not_act(bench):
    bench.write("Unloading_Condition", 44 & ~32)
    bench.wall = 2050.0
    bench.write("Goal_Position", 2600)
    bench.run(3.0)
    assert bench.servo.status == Status.OVERLOAD
    assert bench.servo.get("Present_Load") == 1000


def test_over_current_takes_the_torque_away(bench):
    bench.write("Protection_Current", 250)  # 1.6 A, what LeRobot gives the gripper
    bench.write("Overload_Torque", 100)
    bench.wall = 2050.0
    bench.write("Goal_Position", 2600)
    bench.run(2.5)
    assert bench.servo.status == Status.OVERCURRENT
    assert bench.servo.get("Present_Load") == 0


def test_no_protection_current_means_no_over_current(bench):
    bench.write("Protection_Current", 0)
    bench.write("Overload_Torque", 0)
    bench.wall = 2050.0
    bench.write("Goal_Position", 2600)
    bench.run(3.0)
    assert not bench.servo.status


def test_overheating_takes_the_torque_away_and_stays_until_it_is_cool_and_switched_on(bench):
    bench.write("Goal_Position", 2600)
    bench.servo.ailments.temperature_c = 80.0
    bench.run(0.1)
    assert bench.servo.status == Status.OVERHEAT
    assert bench.servo.drive(STEP_S).error is None
    assert bench.servo.get("Torque_Enable") == 1  # the register does not say so
    bench.servo.ailments.temperature_c = 40.0
    bench.run(0.1)
    assert bench.servo.status == Status.OVERHEAT
    bench.write("Torque_Enable", 0)
    bench.write("Torque_Enable", 1)
    bench.run(0.1)
    assert not bench.servo.status


@pytest.mark.parametrize(("volts", "wrong"), [(3.6, True), (12.0, False), (14.5, True)])
def test_a_wrong_voltage_is_reported_while_it_lasts_and_does_not_act(bench, volts, wrong):
    bench.write("Goal_Position", 2600)
    bench.voltage_v = volts
    bench.run(0.1)
    assert bool(bench.servo.status & Status.VOLTAGE) is wrong
    assert bench.servo.drive(STEP_S).error is not None
    bench.voltage_v = 12.0
    bench.run(0.1)
    assert not bench.servo.status


def test_a_stalled_motor_heats_up_and_cools_again(bench):
    bench.write("Unloading_Condition", 0)
    bench.wall = 2050.0
    bench.write("Goal_Position", 2600)
    bench.run(60.0)
    hot = bench.servo.get("Present_Temperature")
    assert 55 < hot < 70
    bench.write("Torque_Enable", 0)
    bench.run(60.0)
    assert bench.servo.get("Present_Temperature") < hot - 5


def test_a_lost_magnet_is_reported(bench):
    bench.servo.ailments.encoder_lost = True
    bench.run(0.1)
    assert bench.servo.get("Status") == Status.ENCODER


@pytest.mark.parametrize("ailment", ["dead", "silent"])
def test_a_dead_servo_lets_go_and_a_silent_one_goes_on_holding(bench, ailment):
    bench.write("Goal_Position", 2100)
    setattr(bench.servo.ailments, ailment, True)
    assert not bench.servo.hears
    assert bench.servo.torque_on is (ailment == "silent")
