"""A process that drives an arm and has a guardian, for tests to kill: `python guarded_owner.py PORT SAFETY_AS_JSON LOCK_STEP`.

It says `driving GUARDIAN_PID` when it does. Lines on its input: `hang`, `exit`, `good-bye`, `take over`; it says how it ended.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time

from hilserl.config.safety import SafetyConfig
from hilserl.errors import HilserlError
from hilserl.robot.estop import EStop
from hilserl.robot.feetech import ServoBus
from hilserl.robot.guardian import Guardian

TICK_S = 0.02


def main() -> None:
    port, safety, lock_step = sys.argv[1], SafetyConfig(**json.loads(sys.argv[2])), sys.argv[3] == "True"
    guardian = Guardian(port, robot_id="arm", safety=safety, lock_step=lock_step).start()
    bus = ServoBus(port, timeout_s=2.0)
    goals = bus.read_state().position_ticks
    estop = EStop("arm")
    estop.start()
    guardian.beat()
    bus.write_goals(goals)
    print("driving", guardian.pid, flush=True)
    try:
        while True:
            guardian.beat()
            if estop.reason is not None:
                estop.confirm(all(bus.stop_all().values()))
                guardian.good_bye()
                estop.close()
                print(f"stopped: {estop.reason}", flush=True)
                return
            bus.write_goals(goals)
            bus.read_state()
            if select.select([sys.stdin], [], [], TICK_S)[0] and _obey(sys.stdin.readline().strip(), guardian, bus):
                return
    except HilserlError as error:
        bus.stop_all()
        print(f"error: {error}", flush=True)
        guardian.leave()


def _obey(line: str, guardian: Guardian, bus: ServoBus) -> bool:
    match line:
        case "hang":
            time.sleep(3600)
        case "exit":
            os._exit(0)
        case "good-bye":
            guardian.good_bye()
            print("ended", flush=True)
            return True
        case "take over":
            bus.close()
            guardian.take_over("a test asked for it")
            report = guardian.wait_for_report(60.0)
            print(f"report: {report.reason if report else None}", flush=True)
            return True
    return False


if __name__ == "__main__":
    main()
