"""The process that drives the arm in `faults.py`: waves until it is stopped, by somebody or by its own driver, and says when.

`python _faulty_arm.py ROBOT_AS_JSON`. It says `driving GUARDIAN_PID`; where the driver stops the arm: `stopped SECONDS REASON`,
seconds of the machine's monotonic clock; where a rule lets the arm hold: `held SECONDS RULE`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time

import numpy as np

from hilserl.config.environment import RobotConfig
from hilserl.errors import RobotError
from hilserl.robot.arm import Arm
from hilserl.robot.kinematics import HOME_RAD

WAVE_RAD = np.array([0.5, 0.25, 0.25, 0.3, 0.4, 0.3])
WAVE_HZ = np.array([0.31, 0.37, 0.41, 0.43, 0.47, 0.53])


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    arm = Arm(RobotConfig.model_validate_json(sys.argv[1]))
    noticed = threading.Event()
    stop = arm.stop

    def timed_stop(reason: str, **how: object) -> None:
        if not noticed.is_set():
            noticed.set()
            print("stopped", time.monotonic(), reason.replace("\n", " "), flush=True)
        stop(reason, **how)  # type: ignore[arg-type]

    arm.stop = timed_stop  # type: ignore[method-assign]
    try:
        arm.connect()
        home = np.array([*HOME_RAD[:5], 0.6])
        arm.move_to(home, 1.5)
        print("driving", arm._guardian.pid, flush=True)
        began = time.monotonic()
        while True:
            target = home + WAVE_RAD * np.sin(2 * np.pi * WAVE_HZ * (time.monotonic() - began + 0.1))
            arm.follow(target, 5)
            if arm.interrupted is not None:
                print("held", time.monotonic(), arm.interrupted.rule, flush=True)
    except RobotError as error:
        print(f"_faulty_arm: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        arm.close()


if __name__ == "__main__":
    main()
