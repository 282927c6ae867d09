"""Where runs are kept: addresses, the local UI, the client, and what fits into MLflow's fields."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from hilserl.config.models import TrackingConfig
from hilserl.errors import ServiceError
from hilserl.files import file_lock, home
from hilserl.telemetry import SWITCHES, disable_telemetry

# Limits of MLflow's REST API (mlflow/utils/validation.py), which its SQL store enforces too.
MAX_METRICS_PER_BATCH = 1_000
MAX_PARAMS_PER_BATCH = 100
MAX_PARAM_CHARS = 6_000
MAX_TAG_CHARS = 8_000
MAX_KEY_CHARS = 250

# Asks the UI for runs and charts; it opens on chat traces otherwise, and says that there is no data.
TRAINING_VIEW = "workflowType=machine_learning"

# Whoever calls tries again by itself; MLflow's own seven retries of two minutes each would hold it up.
_REQUESTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "15", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
_QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


def tracking_uri(config: TrackingConfig) -> str:
    """Return the store's address; by default SQLite under HILSERL_HOME, as an absolute path."""
    return config.uri or f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}"


def artifact_location(config: TrackingConfig) -> str | None:
    """Return where a new experiment keeps files; None leaves it to the server of `tracking.uri`."""
    return None if config.uri else (home() / "mlflow" / "artifacts").as_uri()


def shown_uri(config: TrackingConfig) -> str:
    """Return the address without the password that it may hold."""
    return re.sub(r"://[^/@]*@", "://***@", tracking_uri(config))


def ui_argv(config: TrackingConfig, port: int = 5000) -> list[str]:
    """Return the arguments that serve the MLflow UI on this machine: one worker, loopback only."""
    argv = ["mlflow", "ui", "--backend-store-uri", tracking_uri(config), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    location = artifact_location(config)
    return argv + (["--default-artifact-root", location] if location else [])


def ui_command(config: TrackingConfig, port: int = 5000) -> str | None:
    """Return the line to type for the MLflow UI on these runs; None where a server already shows them."""
    if tracking_uri(config).startswith(("http://", "https://")):
        return None
    switches = [f"{name}={SWITCHES[name]}" for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION")]
    return " ".join([*switches, "uv run", shlex.join(ui_argv(config, port))])


def run_url(config: TrackingConfig, experiment_id: str, run_id: str, port: int = 5000) -> str:
    """Return the page of a run, on the server of `tracking.uri` or on a local `ui_command`."""
    uri = shown_uri(config)
    base = uri.rstrip("/") if uri.startswith(("http://", "https://")) else f"http://127.0.0.1:{port}"
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}?{TRAINING_VIEW}"


def open_client(config: TrackingConfig) -> Any:
    """Return MLflow's client for the store, which is created if it is ours and missing.

    Slow the first time in a process (the import) and in a folder (the database).
    """
    disable_telemetry()
    for name, value in (_REQUESTS | _QUIET).items():
        os.environ.setdefault(name, value)
    # It prints a traceback of ninety lines for every statement that fails; whoever called gets the error, and tells it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with _quiet("alembic", "mlflow.tracking", "mlflow.utils.autologging_utils"):
        from mlflow.tracking import MlflowClient

        if config.uri:
            return MlflowClient(tracking_uri=config.uri)
        folder = home() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / ".create.lock", timeout_s=120.0):  # two processes must not both create the tables
            client = MlflowClient(tracking_uri=tracking_uri(config))
            client.search_experiments(max_results=1)
            return client


def close_run(config: TrackingConfig, run_id: str, status: RunStatus) -> None:
    """Close a run whose process died without `finish`, which otherwise shows as running for ever."""
    open_client(config).set_terminated(run_id, status)


def find_experiment(client: Any, config: TrackingConfig) -> str:
    """Return the id of the configured experiment, made if it is missing.

    Raises:
        ServiceError: It was deleted in MLflow, or cannot be made.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(2):
        found = client.get_experiment_by_name(config.experiment)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                raise ServiceError(
                    f"the experiment `{config.experiment}` was deleted in MLflow. Restore it there, or give "
                    "`tracking.experiment` another name."
                )
            return str(found.experiment_id)
        location = artifact_location(config)
        try:
            return str(client.create_experiment(config.experiment, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
    raise ServiceError(f"the experiment `{config.experiment}` can be neither found nor created.")


def log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    """Store parameters, in batches of the size that MLflow accepts."""
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(items), MAX_PARAMS_PER_BATCH):
        client.log_batch(run_id, params=items[start : start + MAX_PARAMS_PER_BATCH])


def system_metrics(config: TrackingConfig, run_id: str | None) -> AbstractContextManager[None]:
    """Sample CPU, memory, disk, network and GPU while the block runs, if the configuration asks for it."""
    if not config.system_metrics:
        return nullcontext()
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=10, resume_logging=True, tracking_uri=tracking_uri(config))

    @contextmanager
    def sampling() -> Iterator[None]:
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    return sampling()


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Keep a first start from printing forty database migrations."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.WARNING)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested parameters into `{"policy.utd_ratio": "4"}`, within MLflow's limits."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = metric_key(f"{prefix}{key}")
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = shorten(str(list(value) if isinstance(value, tuple) else value), MAX_PARAM_CHARS)
    return flat


def metric_key(key: str) -> str:
    """Replace what MLflow does not allow in a name."""
    return re.sub(r"[^\w\-./ :]", "_", key)[:MAX_KEY_CHARS]


def shorten(text: str, limit: int) -> str:
    """Cut a text that is too long, visibly."""
    if len(text) <= limit:
        return text
    ending = f" … [cut: {len(text)} characters]"
    return text[: limit - len(ending)] + ending
