"""The control table of the Feetech STS3215: every register by LeRobot's name, with its factory value.

Addresses and names: LeRobot 0.6.1 `motors/feetech/tables.py`. Initial values, units and meaning: Feetech's
"Magnetic encoder STS servo memory table", and a published dump of a 7.4 V servo (Phase 12, unloading mask 44).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TICKS_PER_TURN = 4096
TABLE_SIZE = 128
EEPROM_END = 40
"""Addresses below are kept in EEPROM: written to it while `Lock` is 0, else only until the power goes."""

MODEL_STS3215 = 777
BAUD_RATES = (1_000_000, 500_000, 250_000, 128_000, 115_200, 57_600, 38_400, 19_200)
"""By the value of `Baud_Rate`, as LeRobot has them; Feetech's table has 76,800 at 5."""


class Access(Enum):
    """Who may change a register."""

    READ_ONLY = "ro"
    WRITABLE = "rw"


@dataclass(frozen=True)
class Register:
    """One entry of the control table.

    Attributes:
        name: LeRobot's name.
        address: First byte.
        size: Bytes, little-endian.
        default: What it holds after a factory reset (EEPROM) or at power-up (SRAM).
        access: Whether the bus may write it.
        sign_bit: Bit that holds the sign of a sign-magnitude value; None: unsigned.
    """

    name: str
    address: int
    size: int
    default: int = 0
    access: Access = Access.WRITABLE
    sign_bit: int | None = None

    def encode(self, value: int) -> int:
        """Return the raw value of a signed one.

        Raises:
            ValueError: It does not fit.
        """
        limit = (1 << (self.sign_bit if self.sign_bit is not None else 8 * self.size)) - 1
        if abs(value) > limit or (value < 0 and self.sign_bit is None):
            raise ValueError(f"{self.name}: {value} does not fit, it holds {-limit if self.sign_bit is not None else 0} to {limit}.")
        return value if value >= 0 or self.sign_bit is None else -value | 1 << self.sign_bit

    def decode(self, raw: int) -> int:
        """Return the signed value of a raw one."""
        if self.sign_bit is None:
            return raw
        magnitude = raw & ((1 << self.sign_bit) - 1)
        return -magnitude if raw >> self.sign_bit & 1 else magnitude


_RO = Access.READ_ONLY

REGISTERS = (
    # EEPROM
    Register("Firmware_Major_Version", 0, 1, 3, _RO),
    Register("Firmware_Minor_Version", 1, 1, 10, _RO),
    Register("Endianness", 2, 1, 0, _RO),
    Register("Model_Number", 3, 2, MODEL_STS3215, _RO),
    Register("ID", 5, 1, 1),
    Register("Baud_Rate", 6, 1, 0),
    Register("Return_Delay_Time", 7, 1, 250),  # 2 us
    Register("Response_Status_Level", 8, 1, 1),  # 0: answer only PING and READ
    Register("Min_Position_Limit", 9, 2, 0),
    Register("Max_Position_Limit", 11, 2, 4095),
    Register("Max_Temperature_Limit", 13, 1, 70),  # deg C
    Register("Max_Voltage_Limit", 14, 1, 80),  # 0.1 V
    Register("Min_Voltage_Limit", 15, 1, 40),
    Register("Max_Torque_Limit", 16, 2, 1000),  # 0.1 %
    Register("Phase", 18, 1, 12),
    Register("Unloading_Condition", 19, 1, 44),
    Register("LED_Alarm_Condition", 20, 1, 47),
    Register("P_Coefficient", 21, 1, 32),
    Register("D_Coefficient", 22, 1, 32),
    Register("I_Coefficient", 23, 1, 0),
    Register("Minimum_Startup_Force", 24, 2, 16),
    Register("CW_Dead_Zone", 26, 1, 1),
    Register("CCW_Dead_Zone", 27, 1, 1),
    Register("Protection_Current", 28, 2, 500),  # 6.5 mA
    Register("Angular_Resolution", 30, 1, 1),
    Register("Homing_Offset", 31, 2, 0, sign_bit=11),
    Register("Operating_Mode", 33, 1, 0),
    Register("Protective_Torque", 34, 1, 20),  # %
    Register("Protection_Time", 35, 1, 200),  # 10 ms
    Register("Overload_Torque", 36, 1, 80),  # %
    Register("Velocity_closed_loop_P_proportional_coefficient", 37, 1, 10),
    Register("Over_Current_Protection_Time", 38, 1, 200),  # 10 ms
    Register("Velocity_closed_loop_I_integral_coefficient", 39, 1, 10),
    # SRAM
    Register("Torque_Enable", 40, 1, 0),
    Register("Acceleration", 41, 1, 0),  # 100 steps/s^2
    Register("Goal_Position", 42, 2, 0, sign_bit=15),
    Register("Goal_Time", 44, 2, 0),
    Register("Goal_Velocity", 46, 2, 0, sign_bit=15),  # steps/s with Phase bit 4 (0.0146 RPM)
    Register("Torque_Limit", 48, 2, 1000),  # loaded from Max_Torque_Limit at power-up, and only then
    Register("Lock", 55, 1, 1),
    Register("Present_Position", 56, 2, 0, _RO, 15),
    Register("Present_Velocity", 58, 2, 0, _RO, 15),
    Register("Present_Load", 60, 2, 0, _RO, 10),  # 0.1 % duty
    Register("Present_Voltage", 62, 1, 0, _RO),
    Register("Present_Temperature", 63, 1, 0, _RO),
    Register("Async_Write_Flag", 64, 1, 0, _RO),
    Register("Status", 65, 1, 0, _RO),
    Register("Moving", 66, 1, 0, _RO),
    Register("Present_Current", 69, 2, 0, _RO),  # 6.5 mA
    Register("Goal_Position_2", 71, 2, 0, _RO, 15),
    # Factory
    Register("Moving_Velocity_Threshold", 80, 1, 20),
    Register("DTs", 81, 1, 1),
    Register("Velocity_Unit_factor", 82, 1, 1),
    Register("Hts", 83, 1, 0),
    Register("Maximum_Velocity_Limit", 84, 1, 66),  # 50 steps/s
    Register("Maximum_Acceleration", 85, 1, 254),  # 100 steps/s^2
    Register("Acceleration_Multiplier", 86, 1, 0),
)
BY_NAME = {register.name: register for register in REGISTERS}

WRITABLE_BYTES = frozenset(
    address
    for register in REGISTERS
    if register.access is Access.WRITABLE
    for address in range(register.address, register.address + register.size)
)


def find_register(name: str) -> Register:
    """Return a register by LeRobot's name.

    Raises:
        ValueError: There is none of this name; says which there are.
    """
    if name not in BY_NAME:
        raise ValueError(f"register {name!r} is unknown. There are: {', '.join(BY_NAME)}.")
    return BY_NAME[name]
