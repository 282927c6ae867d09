"""A person re-arms a stopped arm; refused while its servos say that the cause still stands."""

from __future__ import annotations

import numpy as np

from hilserl.config.safety import SafetyConfig
from hilserl.errors import BusError, RobotError
from hilserl.files import file_lock
from hilserl.robot.feetech import SERVOS, BusState, ServoBus
from hilserl.robot.latch import Latch, latched, release, robot_folder
from hilserl.schema import JOINT_NAMES

_LATCHED_ERRORS = 4 | 8 | 32  # a servo keeps these until its torque is switched on again, or its power off
_NAMES = {1: "voltage", 2: "encoder", 4: "overheated", 8: "over-current", 32: "overload"}


def rearm(robot_id: str, settings: SafetyConfig, *, port: str | None = None) -> Latch:
    """Release a stopped arm. Nothing moves: the torque stays off.

    Args:
        robot_id: Which arm.
        settings: What counts as too warm.
        port: Of the arm; None: the one where it was stopped.

    Returns:
        Why it was stopped.

    Raises:
        RobotError: It is not stopped, is still driven, or the cause still stands.
    """
    held = latched(robot_id)
    if held is None:
        raise RobotError(f"robot `{robot_id}` is not stopped, so there is nothing to re-arm.")
    try:
        with file_lock(robot_folder(robot_id) / "guardian.lock", timeout_s=0.0):
            if (where := port or held.port) is not None:
                _ask_servos(robot_id, where, settings)
            release(robot_id)
    except TimeoutError:
        raise RobotError(f"a process still drives robot `{robot_id}`, or its guardian takes it down. Stop that process first.") from None
    return held


def _ask_servos(robot_id: str, port: str, settings: SafetyConfig) -> None:
    try:
        bus = ServoBus(port)
        try:
            state = _cleared(bus, bus.read_state())
        finally:
            bus.close()
    except BusError as error:
        raise RobotError(f"robot `{robot_id}` stays stopped: {error}") from None
    if causes := standing_causes(state, settings):
        raise RobotError(f"robot `{robot_id}` stays stopped: {'; '.join(causes)}.")


def standing_causes(state: BusState, settings: SafetyConfig) -> list[str]:
    """Say what is still wrong with servos at rest, one text each."""
    causes = []
    for index, servo in enumerate(SERVOS):
        name = f"servo {servo} ({JOINT_NAMES[index]})"
        if not state.answered[index]:
            causes.append(f"{name} does not answer: check power and cables")
        elif error := int(state.error[index]):
            said = ", ".join(text for bit, text in _NAMES.items() if error & bit)
            causes.append(f"{name} reports {said}: let it cool, check the supply, or switch the arm's power off and on")
        elif state.temperature_c[index] >= settings.warm_c:
            causes.append(f"{name} is at {state.temperature_c[index]:.0f} deg C: wait until it is below {settings.warm_c:.0f}")
        elif state.torque_on[index]:
            causes.append(f"{name} has its torque on: switch the arm's power off and on")
    return causes


def _cleared(bus: ServoBus, state: BusState) -> BusState:
    """Clear the errors that servos keep: switch torque on, with none to give, and off again."""
    kept = [servo for servo, error in zip(SERVOS, state.error.tolist(), strict=True) if error & _LATCHED_ERRORS]
    if not kept or state.torque_on.any():
        return state
    bus.write_torque_limits(np.zeros(len(SERVOS)))
    try:
        for servo in kept:
            if bus.read(servo, "Torque_Limit") == 0:
                bus.write(servo, "Torque_Enable", 1)
    finally:
        bus.stop_all()
    return bus.read_state()
