"""Nothing calls home: the switches of the services that we start or import.

Prefect's server reports to its maker at start and every ten minutes, its client in a terminal, and
MLflow's client and UI at import. A robot bench is often offline, and always the user's own business.
"""

from __future__ import annotations

import os

SWITCHES = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's UI otherwise starts 13 job workers (2 GB) that this project has no use for.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def disable_telemetry() -> None:
    """Set the switches in this process's environment, and so its children's; what the user set stays.

    Call it before Prefect or MLflow is imported: both read them once.
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
