"""A process that trains and tracks, for the tests that kill it.

python tracking_process.py FOLDER URI FIRST COUNT PERIOD_S    logs COUNT steps from FIRST on; prints each once it is logged
"""

import sys
import time
from pathlib import Path

from hilserl.config.models import TrackingConfig
from hilserl.tracking import MlflowTracker

EXPERIMENT = "spool-tests"


def main() -> None:
    folder, uri, first, count, period_s = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    config = TrackingConfig(uri=uri, experiment=EXPERIMENT)
    tracker = MlflowTracker(config, "run", {"host": "a"}, {"seed": 1}, folder=folder, flush_period_s=0.05)
    for step in range(first, first + count):
        tracker.log_metrics({"loss": step / 2, "q": -float(step)}, step)
        print(step, flush=True)
        time.sleep(period_s)
    summary = tracker.finish(timeout_s=60)
    print("finished", summary.waiting_metrics, summary.lost_metrics, flush=True)


if __name__ == "__main__":
    main()
