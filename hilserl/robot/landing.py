"""How an arm that shall not go on comes down: its torque falls to zero, and is then switched off, past every error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np

from hilserl.errors import BusError, RobotError
from hilserl.robot.feetech import ServoBus

_RAMP_HZ = 50.0
_UNKNOWN_LIMIT = 0.5  # of a servo that does not answer


def soft_land(bus: ServoBus, seconds: float, beat: Callable[[], None] = lambda: None) -> dict[int, bool]:
    """Let the torque of all servos fall to zero, then switch it off. Never raises.

    Nothing is commanded meanwhile: the servos go on holding their last goal, with less and less torque.

    Args:
        bus: Of the arm.
        seconds: Time for it [s]; 0: at once.
        beat: Called meanwhile, so that the guardian knows that somebody lands the arm.

    Returns:
        Whether each servo said that its torque is off, by id.
    """
    bus.latched = True  # no goal from any thread: it would switch torque on again
    steps = round(seconds * _RAMP_HZ)
    with contextlib.suppress(BusError):  # the port is gone, which `stop_all` finds out as well
        limits = np.nan_to_num(bus.read_state().torque_limit, nan=_UNKNOWN_LIMIT)
        begin_s = time.monotonic()
        for step in range(1, steps):
            bus.write_torque_limits(1000.0 * limits * (1.0 - step / steps))
            with contextlib.suppress(RobotError):  # no guardian any more: one more reason to land
                beat()
            time.sleep(max(0.0, begin_s + step / _RAMP_HZ - time.monotonic()))
    return bus.stop_all()
