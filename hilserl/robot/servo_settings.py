"""What every servo must be and hold before the arm is driven: looked at, and written, on every connect.

`Torque_Limit` and the rest of SRAM are lost with the power; EEPROM is written only where it differs.
"""

from __future__ import annotations

import logging

from hilserl.errors import RobotError
from hilserl.robot.calibration import Calibration
from hilserl.robot.feetech import SERVOS, ServoBus
from hilserl.robot.registers import MODEL_STS3215
from hilserl.robot.trips import RUNNING_ACCELERATION
from hilserl.schema import JOINT_NAMES

logger = logging.getLogger(__name__)

_GRIPPER_SERVO = 6
_REPORTED = 4 | 8 | 32  # heat, current, overload: these must take the torque away
_MANY_TURNS = 0x10  # of Phase
_EEPROM = {  # as LeRobot 0.6.1 configures an SO-101, and the factory's protections
    "Return_Delay_Time": 0,
    "Operating_Mode": 0,
    "P_Coefficient": 16,
    "I_Coefficient": 0,
    "D_Coefficient": 32,
    "Max_Temperature_Limit": 70,
    "Protective_Torque": 20,
    "Protection_Time": 200,
    "Overload_Torque": 80,
    "Over_Current_Protection_Time": 200,
}
# LeRobot's overload of 25 % is below its torque limit of 50 %: a jaw that opens and closes for 2 s, as one does that explores, would
# be called overloaded. Here the rule `grip` sees what the jaw holds after 0.3 s, and weakens it.
_GRIPPER_EEPROM = {"Max_Torque_Limit": 500, "Protection_Current": 250, "Overload_Torque": 60}
_SRAM = {"Maximum_Acceleration": 254, "Acceleration": RUNNING_ACCELERATION, "Goal_Time": 0, "Goal_Velocity": 0, "Lock": 1}


def require_an_so101(bus: ServoBus) -> None:
    """Look whether the six servos of an SO-101 are on the bus.

    Raises:
        RobotError: One is missing, another model, or has another firmware or an error.
    """
    missing = [servo for servo in SERVOS if not bus.ping(servo)]
    if len(missing) == len(SERVOS):
        raise RobotError(
            f"{bus.port}: no servo answers. Switch the arm's power supply on, and check that this is its port: `lerobot-find-port`."
        )
    if missing:
        names = ", ".join(f"{servo} ({JOINT_NAMES[servo - 1]})" for servo in missing)
        raise RobotError(
            f"{bus.port}: no STS3215 (model {MODEL_STS3215}) answers as servo {names}. Check the cable to it; a new servo gets its id with "
            "`lerobot-setup-motors`."
        )
    versions = {servo: (bus.read(servo, "Firmware_Major_Version"), bus.read(servo, "Firmware_Minor_Version")) for servo in SERVOS}
    if len(set(versions.values())) > 1:
        shown = ", ".join(f"{servo}: {major}.{minor}" for servo, (major, minor) in versions.items())
        raise RobotError(f"{bus.port}: the servos have different firmware ({shown}). Bring them to one version with Feetech's FD program.")
    for servo in SERVOS:
        if bus.read(servo, "Phase") & _MANY_TURNS:
            raise RobotError(
                f"{bus.port}: servo {servo} counts more than one turn (`Phase` bit 4), so its angle is not known. Set `Phase` to 12."
            )
    state = bus.read_state()
    if state.error.any():
        shown = ", ".join(
            f"{servo} ({JOINT_NAMES[servo - 1]}): {error}" for servo, error in zip(SERVOS, state.error.tolist(), strict=True) if error
        )
        raise RobotError(
            f"{bus.port}: servos report errors ({shown}; 1 voltage, 2 encoder, 4 heat, 8 current, 32 overload). Free what blocks them, let "
            "them cool, check the supply, then switch the arm's power off and on."
        )


def write_settings(bus: ServoBus, calibration: Calibration) -> None:
    """Write what the servos must hold, and read it back.

    Raises:
        RobotError: The calibration is not that of these servos, or a setting does not stay.
    """
    calibration.require_same_in_servos(bus.read)
    for servo in SERVOS:
        wanted = _EEPROM | (_GRIPPER_EEPROM if servo == _GRIPPER_SERVO else {})
        wanted["Unloading_Condition"] = bus.read(servo, "Unloading_Condition") | _REPORTED
        different = {name: value for name, value in wanted.items() if bus.read(servo, name) != value}
        if different:
            logger.info("Servo %d (%s): setting %s", servo, JOINT_NAMES[servo - 1], different)
            bus.write(servo, "Lock", 0)
        for name, value in (different | _SRAM).items():  # ends with Lock = 1
            bus.write(servo, name, value)
            if (held := bus.read(servo, name)) != value:
                raise RobotError(
                    f"{bus.port}: servo {servo} ({JOINT_NAMES[servo - 1]}) holds `{name}` {held} after {value} was written. "
                    "Switch the arm's power off and on; if it stays so, replace the servo."
                )
