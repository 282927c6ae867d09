import pytest
from lerobot.motors.feetech.tables import (
    MODEL_NUMBER_TABLE,
    STS_SMS_SERIES_BAUDRATE_TABLE,
    STS_SMS_SERIES_CONTROL_TABLE,
    STS_SMS_SERIES_ENCODINGS_TABLE,
)

from hilserl.robot.registers import BAUD_RATES, BY_NAME, MODEL_STS3215, REGISTERS, find_register


def test_every_register_of_lerobot_is_here_at_the_same_place():
    ours = {(register.address, register.size) for register in REGISTERS}
    for name, place in STS_SMS_SERIES_CONTROL_TABLE.items():
        assert place in ours, name
        if name in BY_NAME:
            assert (BY_NAME[name].address, BY_NAME[name].size) == place, name


def test_signs_are_where_lerobot_looks_for_them():
    for name, bit in STS_SMS_SERIES_ENCODINGS_TABLE.items():
        if name in BY_NAME:
            assert BY_NAME[name].sign_bit == bit, name


def test_model_and_baud_rates_are_those_of_lerobot():
    assert MODEL_NUMBER_TABLE["sts3215"] == MODEL_STS3215
    assert {rate: index for index, rate in enumerate(BAUD_RATES)} == STS_SMS_SERIES_BAUDRATE_TABLE


def test_no_two_registers_overlap():
    used = [address for register in REGISTERS for address in range(register.address, register.address + register.size)]
    assert len(used) == len(set(used))


@pytest.mark.parametrize(
    ("name", "value", "raw"), [("Homing_Offset", -85, 0x855), ("Goal_Position", -1, 0x8001), ("Present_Load", -200, 0x4C8)]
)
def test_sign_magnitude_by_hand(name, value, raw):
    assert BY_NAME[name].encode(value) == raw
    assert BY_NAME[name].decode(raw) == value


@pytest.mark.parametrize(("name", "value"), [("Homing_Offset", 2048), ("Homing_Offset", -2048), ("ID", 256), ("ID", -1)])
def test_what_does_not_fit_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: {value} does not fit"):
        BY_NAME[name].encode(value)


def test_an_unknown_register_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"'Goal_Pos' is unknown\. There are: .*Goal_Position"):
        find_register("Goal_Pos")
