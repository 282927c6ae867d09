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
from prefect.states import Cancelled, Failed, State  # noqa: E402

from hilserl.config import TrainConfig  # noqa: E402
from hilserl.errors import LearnerAwayError  # noqa: E402
from tasks.deployed_actor import LEARNER_AWAY, TOO_LATE  # noqa: E402
from tasks.drive_robot import drive_robot, import_ahead, too_late  # noqa: E402
from tasks.preflight import needs_preflight, preflight  # noqa: E402
from tasks.run_watch import RunWatch  # noqa: E402
from tasks.server import wait_for_server  # noqa: E402

_CANCELLED = 3  # exit code
_SAID_S = 5.0


@flow(name="actor", retries=0, persist_result=False)
def actor(config: TrainConfig, address: str, run_id: str) -> Any:
    """Drive the robot of `config` for the learner at `address`; never retried, since it moves hardware."""
    if reason := too_late():
        return Cancelled(name=TOO_LATE, message=reason)
    try:
        if needs_preflight(config):
            preflight(config)
        result = drive_robot(config, address, run_id)
        ending: Any = Cancelled(message=result["reason"]) if result["cancelled"] else result
    except LearnerAwayError as error:
        # A training that is cancelled says so on the link first, and to Prefect a moment later.
        cancelled = RunWatch().is_cancelled(within_s=_SAID_S)
        ending = Cancelled(message=str(error)) if cancelled else Failed(name=LEARNER_AWAY, message=str(error))
    except Exception:
        wait_for_server("The end of the actor's run")
        raise
    wait_for_server("The end of the actor's run")  # the arm is at rest; only the truth is still to be told
    return ending


def main(parameter_file: Path) -> int:
    """Run the flow as a process of its own, as soon as the JSON file with its parameters is there."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    import_ahead()
    while not parameter_file.exists():
        time.sleep(0.05)
    parameters = json.loads(parameter_file.read_text())
    state: State = actor(TrainConfig.model_validate(parameters["config"]), parameters["address"], parameters["run_id"], return_state=True)  # type: ignore[assignment]
    if state.is_completed():
        return 0
    print(state.message, file=sys.stderr)
    return _CANCELLED if state.is_cancelled() else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
