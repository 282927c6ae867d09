"""The flow `actor`: drives one robot until its learner has finished. Deployed as `actor/<host>` on the host that owns the robot."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hilserl.telemetry import disable_telemetry

disable_telemetry()

from prefect import flow  # noqa: E402
from prefect.states import Cancelled  # noqa: E402

from hilserl.config import TrainConfig  # noqa: E402
from tasks.drive_robot import drive_robot, import_ahead  # noqa: E402


@flow(name="actor", retries=0, persist_result=False)
def actor(config: TrainConfig, address: str, run_id: str) -> Any:
    """Drive the robot of `config` for the learner at `address`; never retried, since it moves hardware."""
    result = drive_robot(config, address, run_id)
    return Cancelled(message=result["reason"]) if result["cancelled"] else result


def main(parameter_file: Path) -> int:
    """Run the flow as a process of its own, as soon as the JSON file with its parameters is there."""
    from hilserl.errors import HilserlError

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    import_ahead()
    while not parameter_file.exists():
        time.sleep(0.05)
    parameters = json.loads(parameter_file.read_text())
    try:
        actor(TrainConfig.model_validate(parameters["config"]), parameters["address"], parameters["run_id"])
    except HilserlError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
