"""`hilserl ui`: one user interface in the foreground."""

from __future__ import annotations

import time

from hilserl.services.mlflow_ui import MlflowUi
from hilserl.services.prefect_server import PrefectServer, find_running
from hilserl.services.rest import call

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
        _serve(server)
    except KeyboardInterrupt:
        print("Ended.")
    finally:
        server.stop()


def _serve(server: PrefectServer | MlflowUi) -> None:
    """Serve until Ctrl-C; while runs use the server, until the second."""
    warned = False
    while True:
        try:
            server.check()
            time.sleep(_WATCH_S)
        except KeyboardInterrupt:
            if warned or not isinstance(server, PrefectServer) or not (running := _unfinished_runs(server)):
                raise
            warned = True
            print(f"\n{running} unfinished run(s) use this server and fail without it. Ctrl-C once more ends it all the same.", flush=True)


def _unfinished_runs(server: PrefectServer) -> int:
    states = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}}}
    return int(call("POST", f"{server.api_url}/flow_runs/count", states))
