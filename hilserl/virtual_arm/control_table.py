"""The memory of one servo: EEPROM, the working copy that the bus sees, the lock between them, and power cuts."""

from __future__ import annotations

from hilserl.robot.registers import BY_NAME, EEPROM_END, REGISTERS, TABLE_SIZE, WRITABLE_BYTES, Access, find_register

_LOCK = BY_NAME["Lock"].address


class ControlTable:
    """The control table of one servo.

    Attributes:
        eeprom: What survives a power cut: the first `EEPROM_END` bytes.
        version: Grows with every change that is not a measurement.
    """

    def __init__(self, eeprom: bytes) -> None:
        self.eeprom = bytearray(eeprom)
        self.version = 0
        self._memory = bytearray(TABLE_SIZE)
        self._memory[:EEPROM_END] = self.eeprom

    def power_up(self, lock: int) -> None:
        """Load EEPROM; everything else is as the factory set it. `Torque_Limit` becomes `Max_Torque_Limit`, here and only here."""
        self.version += 1
        self._memory = bytearray(TABLE_SIZE)
        for register in REGISTERS:
            self._memory[register.address : register.address + register.size] = register.default.to_bytes(register.size, "little")
        self._memory[:EEPROM_END] = self.eeprom
        self._memory[_LOCK] = lock
        self.set("Torque_Limit", self.raw("Max_Torque_Limit"))

    def raw(self, name: str) -> int:
        """Return a register without decoding its sign."""
        register = BY_NAME[name]
        return int.from_bytes(self._memory[register.address : register.address + register.size], "little")

    def get(self, name: str) -> int:
        """Return a register, with its sign.

        Raises:
            ValueError: There is no register of this name.
        """
        return find_register(name).decode(self.raw(name))

    def set(self, name: str, value: float) -> None:
        """Set a register from inside the servo, clipped to what it holds; EEPROM is left alone."""
        register = BY_NAME[name]
        limit = (1 << (register.sign_bit if register.sign_bit is not None else 8 * register.size)) - 1
        lowest = -limit if register.sign_bit is not None else 0
        data = register.encode(max(lowest, min(limit, int(value)))).to_bytes(register.size, "little")
        self._memory[register.address : register.address + register.size] = data
        if register.access is Access.WRITABLE:
            self.version += 1

    def burn(self, name: str, value: int) -> None:
        """Set a register and what EEPROM holds of it, locked or not, read-only or not.

        Raises:
            ValueError: There is no such register, or the value does not fit.
        """
        register = find_register(name)
        data = register.encode(value).to_bytes(register.size, "little")
        self._memory[register.address : register.address + register.size] = data
        if register.address < EEPROM_END:
            self.eeprom[register.address : register.address + register.size] = data
        self.version += 1

    def read(self, address: int, size: int) -> bytes:
        """Return bytes; zeros beyond the end of the table."""
        return bytes(self._memory[address : address + size]).ljust(size, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Write from the bus: read-only bytes stay as they are; EEPROM follows only while `Lock` is 0."""
        unlocked = self._memory[_LOCK] == 0
        for where, value in enumerate(data, address):
            if where in WRITABLE_BYTES:
                self._memory[where] = value
                if where < EEPROM_END and unlocked:
                    self.eeprom[where] = value
        self.version += 1

    def reset_to_factory(self, eeprom: bytes) -> None:
        """Replace EEPROM, and what the bus sees of it."""
        self.eeprom[:] = eeprom
        self._memory[:EEPROM_END] = eeprom
        self.version += 1


def factory_eeprom(servo_id: int, max_voltage_v: float) -> bytes:
    """Return the EEPROM of a new servo."""
    memory = bytearray(EEPROM_END)
    for register in REGISTERS:
        if register.address < EEPROM_END:
            memory[register.address : register.address + register.size] = register.default.to_bytes(register.size, "little")
    memory[BY_NAME["ID"].address] = servo_id
    memory[BY_NAME["Max_Voltage_Limit"].address] = round(max_voltage_v * 10)
    return bytes(memory)
