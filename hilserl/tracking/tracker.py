"""One run's metrics, figures and files on their way to MLflow.

A training loop must never wait for a database: everything is queued and delivered by one thread,
which also does the slow start (importing MLflow takes seconds, so does creating its database).
A store that is down costs metrics beyond `MAX_QUEUED_METRICS`, and says so, but never the run.
"""

from __future__ import annotations

import io
import logging
import math
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hilserl.config.models import TrackingConfig
from hilserl.errors import ServiceError
from hilserl.progress import Progress, publish
from hilserl.tracking.store import (
    MAX_KEY_CHARS,
    MAX_METRICS_PER_BATCH,
    MAX_TAG_CHARS,
    RunStatus,
    find_experiment,
    flatten,
    log_params,
    metric_key,
    open_client,
    run_url,
    shorten,
    shown_uri,
    system_metrics,
)

log = logging.getLogger(__name__)

FLUSH_PERIOD_S = 2.0
MAX_QUEUED_METRICS = 200_000  # about 100 MB of Python objects
MAX_QUEUED_JOBS = 1_000
_ATTEMPTS = 3


@dataclass(frozen=True)
class TrackingSummary:
    """What became of a run's tracking.

    Attributes:
        run_id: MLflow's id of the run; None if there is none.
        run_url: Where the MLflow UI shows it; None if there is none.
        lost_metrics: Values that could not be delivered.
        nonfinite: Values that were NaN or infinite, by metric.
        problem: The first thing that went wrong, in words; None if nothing did.
    """

    run_id: str | None = None
    run_url: str | None = None
    lost_metrics: int = 0
    nonfinite: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None


class Figure(Protocol):
    """What `log_figure` needs of a matplotlib figure."""

    def savefig(self, target: Any, **options: Any) -> None:
        """Render into a file object."""


class Tracker:
    """What a loop may say about its run; this base class tracks nothing.

    Attributes:
        run_id: The run's id once it exists (`wait_ready`).
        problem: The first thing that went wrong, in words.
    """

    run_id: str | None = None
    problem: str | None = None

    def wait_ready(self, timeout_s: float = 60.0) -> str | None:
        """Return None: there is no run."""
        return None

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Forget the values."""

    def log_figure(self, figure: Figure, name: str) -> None:
        """Forget the figure."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Forget the file."""

    def log_text(self, text: str, name: str) -> None:
        """Forget the text."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Forget the tags."""

    def finish(self, status: RunStatus = "FINISHED", timeout_s: float = 30.0) -> TrackingSummary:
        """Return an empty summary."""
        return TrackingSummary()


class NullTracker(Tracker):
    """Tracks nothing: for `tracking.enable: false`, notebooks and tests."""


class MlflowTracker(Tracker):
    """One MLflow run, written by a background thread. Every method returns at once but the waits."""

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        tags: Mapping[str, Any],
        params: Mapping[str, Any],
        resume_run_id: str | None = None,
        on_ready: Callable[[str], None] | None = None,
        *,
        flush_period_s: float = FLUSH_PERIOD_S,
        max_queued_metrics: int = MAX_QUEUED_METRICS,
    ) -> None:
        self._config = config
        self._run_name = run_name
        self._tags = {key: str(value) for key, value in tags.items()}
        self._params = flatten(params)
        self._resume_run_id = resume_run_id
        self._on_ready = on_ready
        self._flush_period_s = flush_period_s
        self._client: Any = None
        self._lock = threading.Lock()
        self._metrics: deque[tuple[str, float, int, int]] = deque(maxlen=max_queued_metrics)
        self._jobs: deque[tuple[str, Callable[[], None], int]] = deque()
        self._nonfinite: Counter[str] = Counter()
        self._lost = 0
        self._last_step: dict[str, int] = {}
        self._experiment_id: str | None = None
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._status: RunStatus = "FINISHED"
        self._summary: TrackingSummary | None = None
        self._thread = threading.Thread(target=self._deliver, name="mlflow", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout_s: float = 60.0) -> str | None:
        """Wait until the run exists and return its id.

        Raises:
            ServiceError: The store cannot be used, or did not answer in `timeout_s`.
        """
        if not self._ready.wait(timeout_s):
            raise ServiceError(
                f"MLflow at {shown_uri(self._config)} did not answer in {timeout_s:.0f} s. Is its server up? "
                "`tracking.enable: false` runs without it."
            )
        if self._client is None:
            raise ServiceError(self.problem or "MLflow did not start.")
        return self.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue values of one step, about 1 µs each.

        Args:
            metrics: Values by name, such as `loss/critic`.
            step: Environment step that they belong to.

        NaN and infinity are not stored (MLflow turns infinity into 1.8e308, which flattens a plot):
        they are counted, and the count is stored as `nonfinite/<metric>`.
        """
        now_ms = time.time_ns() // 1_000_000
        with self._lock:
            for key, value in metrics.items():
                number = float(value)
                if not math.isfinite(number):
                    self._nonfinite[key] += 1
                    key, number = f"nonfinite/{key}", float(self._nonfinite[key])
                if len(self._metrics) == self._metrics.maxlen:
                    self._lost += 1
                self._metrics.append((key, number, now_ms, int(step)))

    def log_figure(self, figure: Figure, name: str) -> None:
        """Render now (the caller may close the figure), store later, as `name` (`plots/curve.png`)."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format=Path(name).suffix.removeprefix(".") or "png", bbox_inches="tight")
        self._log_bytes(buffer.getvalue(), name)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a folder; it must stay where it is until `finish` returned."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(path)
        upload = "log_artifacts" if path.is_dir() else "log_artifact"
        self._enqueue(str(path), lambda: getattr(self._client, upload)(self.run_id, str(path), folder))

    def log_text(self, text: str, name: str) -> None:
        """Store a text as `name` (`report.md`)."""
        self._log_bytes(text.encode(), name)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run."""
        shown = {key: shorten(str(value), MAX_TAG_CHARS) for key, value in tags.items()}

        def send() -> None:
            for key, value in shown.items():
                self._client.set_tag(self.run_id, key, value)

        self._enqueue(f"tags {', '.join(shown)}", send)

    def finish(self, status: RunStatus = "FINISHED", timeout_s: float = 30.0) -> TrackingSummary:
        """Deliver what is queued, close the run, and say how it went. Calling it again changes nothing."""
        if self._summary is None:
            self._status = status
            self._stop.set()
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._report(f"MLflow at {shown_uri(self._config)} did not take the rest in {timeout_s:.0f} s")
            with self._lock:
                lost = self._lost + len(self._metrics)
            if lost:
                self._report(f"{lost} metric values were not recorded")
            url = run_url(self._config, self._experiment_id, self.run_id) if self.run_id and self._experiment_id else None
            self._summary = TrackingSummary(self.run_id, url, lost, dict(self._nonfinite), self.problem)
        return self._summary

    # -- the delivery thread -------------------------------------------------------------------

    def _deliver(self) -> None:
        try:
            self._open()
        except Exception as error:
            self._report(f"MLflow at {shown_uri(self._config)} cannot be used: {error}", error)
            return
        finally:
            self._ready.set()
        try:
            with system_metrics(self._config, self.run_id):
                while not self._stop.wait(self._flush_period_s):
                    self._flush()
                for attempt in range(_ATTEMPTS):
                    if self._flush():
                        break
                    time.sleep(min(self._flush_period_s, 1.0) * attempt)
            self._client.set_terminated(self.run_id, self._status)
        except Exception as error:
            self._report(f"MLflow run {self.run_id} stays `RUNNING`: {error}", error)

    def _open(self) -> None:
        client = open_client(self._config)
        self._experiment_id = find_experiment(client, self._config)
        run = self._find_resumed(client)
        if run is None:
            run = client.create_run(self._experiment_id, run_name=self._run_name)
        else:
            self._experiment_id = run.info.experiment_id
            client.update_run(run.info.run_id, status="RUNNING")
            # The store's latest value of each metric, with its step, in one query; public calls
            # give either the value without the step or the whole history, metric by metric.
            self._last_step = {metric.key: metric.step for metric in run.data._metric_objs}
        self.run_id = run.info.run_id
        if self._on_ready is not None:
            self._on_ready(run.info.run_id)
        params, tags = self._split_params(dict(run.data.params))
        log_params(client, run.info.run_id, params)
        for key, value in (self._tags | tags).items():
            client.set_tag(run.info.run_id, key, shorten(value, MAX_TAG_CHARS))
        self._client = client

    def _find_resumed(self, client: Any) -> Any:
        """Return the run to continue; None if there is none, or if it is gone from the store."""
        if self._resume_run_id is None:
            return None
        try:
            return client.get_run(self._resume_run_id)
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._report(f"MLflow run {self._resume_run_id} is no longer in {shown_uri(self._config)}: a new one is begun")
            return None

    def _split_params(self, recorded: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Separate what can be a parameter from what a resume changed: parameters are immutable."""
        new = {key: value for key, value in self._params.items() if key not in recorded}
        changed = {f"resumed_with.{key}"[:MAX_KEY_CHARS]: value for key, value in self._params.items() if recorded.get(key, value) != value}
        return new, changed

    def _flush(self) -> bool:
        """Deliver what is queued; True if nothing is left to be tried again."""
        return all([self._flush_metrics(), self._flush_jobs()])

    def _flush_metrics(self) -> bool:
        from mlflow.entities import Metric

        while True:
            with self._lock:
                batch = [self._metrics.popleft() for _ in range(min(MAX_METRICS_PER_BATCH, len(self._metrics)))]
            if not batch:
                return True
            fresh = [Metric(metric_key(key), *rest) for key, *rest in batch if rest[2] > self._last_step.get(metric_key(key), -1)]
            try:
                self._client.log_batch(self.run_id, metrics=fresh)
            except Exception as error:
                if getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":  # trying again cannot help
                    with self._lock:
                        self._lost += len(batch)
                    self._report(f"MLflow refuses a metric: {error}", error)
                    continue
                with self._lock:  # back in order; where the queue is full, the oldest go
                    room = (self._metrics.maxlen or 0) - len(self._metrics)
                    self._lost += max(0, len(batch) - room)
                    self._metrics.extendleft(reversed(batch[max(0, len(batch) - room) :]))
                self._report(f"MLflow does not take metrics (they wait in memory, up to {self._metrics.maxlen}): {error}", error)
                return False

    def _flush_jobs(self) -> bool:
        for _ in range(len(self._jobs)):
            name, job, attempts = self._jobs.popleft()
            try:
                job()
            except Exception as error:
                if attempts < _ATTEMPTS:
                    self._jobs.append((name, job, attempts + 1))
                else:
                    self._report(f"{name} was not stored in MLflow: {error}", error)
        return not self._jobs

    # -- helpers --------------------------------------------------------------------------------

    def _log_bytes(self, data: bytes, name: str) -> None:
        def send() -> None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / Path(name).name
                file.write_bytes(data)
                parent = Path(name).parent.as_posix()
                self._client.log_artifact(self.run_id, str(file), None if parent == "." else parent)

        self._enqueue(name, send)

    def _enqueue(self, name: str, job: Callable[[], None]) -> None:
        if len(self._jobs) >= MAX_QUEUED_JOBS:
            self._report(f"{name} was not stored in MLflow: {MAX_QUEUED_JOBS} artefacts are waiting already")
            return
        self._jobs.append((name, job, 1))

    def _report(self, problem: str, error: BaseException | None = None) -> None:
        """Surface a problem, the first time only: a store that is down fails every two seconds."""
        if self.problem is None:
            self.problem = problem
            log.warning("%s", problem, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
            publish(Progress("tracking", message=problem))


def start_tracking(
    config: TrackingConfig,
    run_name: str,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    resume_run_id: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> Tracker:
    """Begin a run, or go on with one, and return at once; the slow part happens in the background.

    Args:
        config: Where to; with `enable: false` the result tracks nothing.
        run_name: Shown in the MLflow UI.
        tags: Such as the Prefect run's id.
        params: Nested; logged as `policy.utd_ratio`.
        resume_run_id: Run to continue. Its recorded steps are not recorded a second time.
        on_ready: Called with the run's id, from the background, as soon as it is known: write it
            down then, so that a killed process can be resumed into the same run.
    """
    if not config.enable:
        return NullTracker()
    return MlflowTracker(config, run_name, tags or {}, params or {}, resume_run_id, on_ready)
