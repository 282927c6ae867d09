"""From the spool to MLflow, in order, each value once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilserl.config.models import TrackingConfig
from hilserl.errors import ServiceError
from hilserl.tracking.spool import Record, Spool
from hilserl.tracking.store import (
    MAX_KEY_CHARS,
    MAX_METRICS_PER_BATCH,
    MAX_TAG_CHARS,
    find_experiment,
    log_params,
    metric_key,
    open_client,
    shorten,
    shown_uri,
)

log = logging.getLogger(__name__)

FILE_ATTEMPTS = 10
_BEGIN_TAG = "hilserl.begin"


class Later(Exception):
    """Something was not stored this time and will be tried again."""


class Delivery:
    """Takes records off a spool and stores them in MLflow.

    The order of a kill and the answer does not matter: a batch whose answer was not noted is sent again as it was, and MLflow's
    SQL store keeps equal (metric, step, timestamp, value) once.

    Args:
        config: Which store.
        spool: Whose records.
        report: Called with what went wrong for good.
        on_run: Called with the run's id whenever it becomes known.
    """

    def __init__(
        self,
        config: TrackingConfig,
        spool: Spool,
        report: Callable[[str, Exception | None], None],
        on_run: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        self.refused = 0
        self._config = config
        self._spool = spool
        self._state = spool.state
        self._report = report
        self._on_run = on_run
        self._client: Any = None

    def run(self) -> None:
        """Deliver everything that waits.

        Raises:
            Exception: Whatever the store failed of; what is not delivered still waits.
        """
        if self._client is None:
            self._client = open_client(self._config)
        while (entry := self._spool.next()) is not None:
            if "metrics" in entry[1]:
                self._deliver_metrics()
            else:
                self._deliver_other(entry[1])

    def close_run(self, status: str) -> None:
        """Give a run whose process died a status; nothing where it has one."""
        if self._state.run_id is not None and self._state.is_open:
            self._client.set_terminated(self._state.run_id, status)
            self._state.is_open = False
            self._spool.save()

    # -- metrics ----------------------------------------------------------------------------------

    def _deliver_metrics(self) -> None:
        """Send the next records of metrics, as many as fit into one request."""
        from mlflow.entities import Metric

        metrics: list[Metric] = []
        recorded: dict[str, int] = {}
        count, last_ms = 0, self._state.last_ms
        while (entry := self._spool.peek(count)) is not None:
            record = entry[1]
            if "metrics" not in record or (count and len(metrics) + len(record["metrics"]) > MAX_METRICS_PER_BATCH):
                break
            count += 1
            step, last_ms = record["step"], max(last_ms, record["ms"])
            for name, value in record["metrics"].items():
                key = metric_key(name)
                if step > self._state.floor.get(key, -1):
                    metrics.append(Metric(key, value, record["ms"], step))
                    recorded[key] = max(step, recorded.get(key, step))
        for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            self._send(metrics[start : start + MAX_METRICS_PER_BATCH])
        self._state.last_ms = last_ms
        _raise_to(self._state.recorded, recorded)
        self._spool.commit(count)

    def _send(self, metrics: Sequence[Any]) -> None:
        try:
            self._client.log_batch(self._state.run_id, metrics=metrics)
        except Exception as error:
            if getattr(error, "error_code", None) != "INVALID_PARAMETER_VALUE":
                raise
            self._require_active()  # a deleted run refuses everything
            if len(metrics) == 1:  # trying again cannot help
                self.refused += 1
                self._report(f"MLflow refuses a metric: {error}", error)
                return
            middle = len(metrics) // 2
            self._send(metrics[:middle])
            self._send(metrics[middle:])

    # -- everything else --------------------------------------------------------------------------

    def _deliver_other(self, record: Record) -> None:
        again: Exception | None = None
        if "begin" in record:
            self._begin(record["begin"])
        elif "tags" in record:
            for key, value in record["tags"].items():
                self._client.set_tag(self._state.run_id, key, value)
        elif "file" in record:
            again = self._store_file(record)
        elif "status" in record:
            self._client.set_terminated(self._state.run_id, record["status"])
            self._state.is_open = False
        self._spool.commit(1)
        if again is not None:
            raise Later(str(again)) from again

    def _begin(self, begin: Mapping[str, Any]) -> None:
        """Create the run, or go on with it."""
        state, client = self._state, self._client
        experiment_id = find_experiment(client, self._config)
        run = self._find_run(state.run_id or begin["resume"])
        if run is None:
            found = client.search_runs([experiment_id], f"tags.`{_BEGIN_TAG}` = '{begin['id']}'")  # created, and the answer lost
            run = found[0] if found else client.create_run(experiment_id, run_name=begin["name"], tags={_BEGIN_TAG: begin["id"]})
            state.recorded, state.floor = {}, {}
        else:
            if not state.recorded:
                # The store's latest value of each metric, with its step, in one query; public calls
                # give either the value without the step or the whole history, metric by metric.
                state.recorded = {metric.key: metric.step for metric in run.data._metric_objs}
            _raise_to(state.floor, state.recorded)
            client.update_run(run.info.run_id, status="RUNNING")
        state.run_id, state.experiment_id, state.is_open = run.info.run_id, run.info.experiment_id, True
        self._spool.save()
        self._on_run(run.info.run_id)
        params, tags = _split_params(begin["params"], dict(run.data.params))
        log_params(client, run.info.run_id, params)
        for key, value in (begin["tags"] | tags).items():
            client.set_tag(run.info.run_id, key, shorten(value, MAX_TAG_CHARS))

    def _find_run(self, run_id: str | None) -> Any:
        """Return the run to continue; None if there is none, or if it is gone from the store."""
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._report(f"MLflow run {run_id} is no longer in {shown_uri(self._config)}: a new one is begun", error)
            return None
        _require_active(run)
        return run

    def _require_active(self) -> None:
        _require_active(self._client.get_run(self._state.run_id))

    def _store_file(self, record: Record) -> Exception | None:
        """Store a file or a folder; returns why it is to be tried again."""
        path, folder = Path(record["file"]), record["folder"]
        if not path.exists():
            self._report(f"{path} was not stored in MLflow: it is no longer there", None)
            return None
        upload = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        try:
            upload(self._state.run_id, str(path), folder)
        except Exception as error:
            self._client.get_run(self._state.run_id)  # raises if it is not the file, but the store that is away
            if record["attempt"] < FILE_ATTEMPTS:
                self._spool.append(record | {"attempt": record["attempt"] + 1})
                return error
            self._report(f"{path.name} was not stored in MLflow: {error}", error)
        self._spool.unstage(path)
        return None


def _require_active(run: Any) -> None:
    if run.info.lifecycle_stage == "deleted":
        raise ServiceError(f"the run {run.info.run_id} was deleted in MLflow. Restore it there; its metrics wait in the run's folder.")


def _raise_to(steps: dict[str, int], others: Mapping[str, int]) -> None:
    for key, step in others.items():
        steps[key] = max(step, steps.get(key, step))


def _split_params(params: Mapping[str, str], recorded: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Separate what can be a parameter from what a resume changed: parameters are immutable."""
    new = {key: value for key, value in params.items() if key not in recorded}
    changed = {f"resumed_with.{key}"[:MAX_KEY_CHARS]: value for key, value in params.items() if recorded.get(key, value) != value}
    return new, changed


def deliver_waiting(config: TrackingConfig, folder: Path, report: Callable[[str], None] = log.warning) -> int:
    """Deliver what earlier processes of a run left in its spool, and close the run in MLflow if they died.

    Args:
        config: Which store.
        folder: The spool.
        report: Called with what could not be stored for good.

    Returns:
        How many metric values were delivered.

    Raises:
        TransportError: A process of the run is alive.
        ServiceError: MLflow does not take them; they still wait.
    """
    spool = Spool(folder)
    try:
        waiting = spool.waiting
        delivery = Delivery(config, spool, lambda problem, _: report(problem))
        for _ in range(FILE_ATTEMPTS):
            try:
                delivery.run()
                break
            except Later:
                continue
        delivery.close_run("KILLED")
        return waiting - spool.waiting - delivery.refused
    except Exception as error:
        if isinstance(error, ServiceError):
            raise
        raise ServiceError(f"MLflow at {shown_uri(config)} does not take the {spool.waiting:,} values in {folder}: {error}") from error
    finally:
        spool.close()
