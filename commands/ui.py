"""`hilserl ui`: one user interface in the foreground."""

from __future__ import annotations

import time

from hilserl.services.mlflow_ui import MlflowUi
from hilserl.services.prefect_server import PrefectServer, find_running

_WATCH_S = 0.5
_DEFAULT_PORTS = {"prefect": 4200, "mlflow": 5000}


def run_ui(which: str, port: int | None) -> None:
    """Serve the Prefect or the MLflow UI until Ctrl-C.

    Raises:
        ServiceError: The port is in use, or the server died.
    """
    if which == "prefect" and (running := find_running(timeout_s=1.0)):
        print(f"The Prefect UI is already open at {running.ui_url}, run by `{running.owner}` (process {running.pid}).")
        return
    port = port or _DEFAULT_PORTS[which]
    server: PrefectServer | MlflowUi = PrefectServer(port, owner="hilserl ui") if which == "prefect" else MlflowUi(port)
    url = server.ui_url if isinstance(server, PrefectServer) else server.url
    server.launch()
    try:
        print(f"Starting {which} on {url} (10-20 s) ...", flush=True)
        server.wait_ready()
        page = server.runs_url() if isinstance(server, MlflowUi) else url
        print(f"{page} is ready. Ctrl-C ends it.", flush=True)
        while True:
            server.check()
            time.sleep(_WATCH_S)
    except KeyboardInterrupt:
        print("Ended.")
    finally:
        server.stop()
