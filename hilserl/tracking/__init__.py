"""MLflow, and the only place that knows it; imported when a run starts, not before."""

from hilserl.tracking.store import close_run, run_url, tracking_uri, ui_argv, ui_command
from hilserl.tracking.tracker import MlflowTracker, NullTracker, Tracker, TrackingSummary, start_tracking

__all__ = [
    "MlflowTracker",
    "NullTracker",
    "Tracker",
    "TrackingSummary",
    "close_run",
    "run_url",
    "start_tracking",
    "tracking_uri",
    "ui_argv",
    "ui_command",
]
