"""The MLflow UI of this machine."""

from __future__ import annotations

import os
import sys
import urllib.parse
from collections.abc import Callable
from contextlib import ExitStack

from hilserl.config.models import TrackingConfig
from hilserl.files import file_lock, home
from hilserl.services import rest
from hilserl.services.processes import ManagedProcess, require_free_port
from hilserl.services.rest import answers, wait_until
from hilserl.telemetry import SWITCHES


class MlflowUi:
    """MLflow's UI on the loopback address: one worker, 0.55 GB, up in about 16 s.

    Args:
        port: TCP port.
        tracking: Which store; None is the default one, SQLite and files under HILSERL_HOME.
    """

    def __init__(self, port: int = 5000, tracking: TrackingConfig | None = None) -> None:
        from hilserl.tracking import ui_argv

        self.port = port
        tracking = tracking or TrackingConfig.model_validate({})
        self._experiment = tracking.experiment
        arguments = ui_argv(tracking, port)
        self._process = ManagedProcess("MLflow UI", [sys.executable, "-m", *arguments], env=os.environ | SWITCHES)
        self._creating = ExitStack()

    @property
    def url(self) -> str:
        """Address of the UI."""
        return f"http://127.0.0.1:{self.port}"

    def runs_url(self) -> str:
        """Return the page that lists the runs; the UI must be ready."""
        from hilserl.tracking.store import TRAINING_VIEW

        name = urllib.parse.quote(self._experiment)
        found = rest.call(
            "GET", f"{self.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}", accept=(404,), is_prefect=False
        )
        return f"{self.url}/#/experiments{'/' + found['experiment']['experiment_id'] if found else ''}?{TRAINING_VIEW}"

    def launch(self) -> None:
        """Start it and return without waiting.

        Raises:
            ServiceError: The port is taken.
        """
        require_mlflow_port(self.port)
        self._creating.close()  # of a start that died
        folder = home() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # The UI creates the tables of a new database; a run that starts meanwhile must not do it too.
            self._creating.enter_context(file_lock(folder / ".create.lock", timeout_s=0))
        except TimeoutError:
            self._creating.close()  # a run is creating them now
        self._process.start()

    def is_ready(self) -> bool:
        """Whether the UI answers."""
        ready = answers(f"{self.url}/health")
        if ready:
            self._creating.close()
        return ready

    def wait_ready(self, timeout_s: float = 180.0, check: Callable[[], None] = lambda: None) -> None:
        """Wait until the UI answers.

        Raises:
            ServiceError: It died, or did not answer in time.
        """

        def alive() -> None:
            self.check()
            check()

        wait_until(self.is_ready, timeout_s, f"The MLflow UI did not answer at {self.url} (log: {self._process.log})", alive)

    def check(self) -> None:
        """Do nothing while the UI lives.

        Raises:
            ServiceError: It died.
        """
        self._process.check()

    def request_stop(self) -> None:
        """Ask it to end, and do not wait."""
        self._process.request_stop()

    def stop(self) -> None:
        """End it and wait; harmless before `launch` and when repeated."""
        self._process.stop()
        self._creating.close()


def require_mlflow_port(port: int) -> None:
    """Refuse a taken port early.

    Raises:
        ServiceError: The port is taken.
    """
    require_free_port(port, "MLflow UI", "Stop that program, or take another port: `hilserl up --mlflow-port 5100`.")
