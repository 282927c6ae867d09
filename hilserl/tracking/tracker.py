"""One run's metrics, figures and files on their way to MLflow.

A training loop must never wait for a database, nor lose what the database did not take: everything is first
written to the run's spool on disk, and delivered by one thread, which also does the slow start (importing
MLflow takes seconds, so does creating its database). What is left when the process ends, or is killed, waits
for the next process of the run, or for `hilserl deliver`.
"""

from __future__ import annotations

import io
import logging
import math
import shutil
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hilserl.config.models import TrackingConfig
from hilserl.errors import CacheError, ServiceError, TransportError
from hilserl.progress import Progress, publish
from hilserl.threads import background_thread
from hilserl.tracking.store import MAX_TAG_CHARS, RunStatus, flatten, run_url, shorten, shown_uri, system_metrics

if TYPE_CHECKING:
    from hilserl.tracking.spool import Spool

log = logging.getLogger(__name__)

FLUSH_PERIOD_S = 2.0
_SLOWEST = 15  # periods between two attempts while the store is away
_LOCK_S = 10.0
_LAST_ATTEMPTS = 2  # after the end, while the store is away


@dataclass(frozen=True)
class TrackingSummary:
    """What became of a run's tracking.

    Attributes:
        run_id: MLflow's id of the run; None if there is none yet.
        run_url: Where the MLflow UI shows it; None if there is none.
        lost_metrics: Values that MLflow refused, or that neither disk nor memory had room for.
        waiting_metrics: Values that wait on disk for `hilserl deliver` or the run's next process.
        nonfinite: Values that were NaN or infinite, by metric.
        problem: The first thing that went wrong, in words; None if nothing did.
    """

    run_id: str | None = None
    run_url: str | None = None
    lost_metrics: int = 0
    waiting_metrics: int = 0
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

    @property
    def waiting(self) -> str | None:
        """Say what waits for MLflow, and how it is delivered; None where nothing does."""
        return None

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
    """One MLflow run, written by a background thread. Every method returns at once but the waits.

    Raises:
        ServiceError: Another process delivers what this run has to say.
    """

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        tags: Mapping[str, Any],
        params: Mapping[str, Any],
        resume_run_id: str | None = None,
        on_ready: Callable[[str], None] | None = None,
        *,
        folder: Path | None = None,
        flush_period_s: float = FLUSH_PERIOD_S,
        max_memory_records: int | None = None,
    ) -> None:
        from hilserl.tracking.delivery import Delivery  # gRPC comes with the journal: not for who only wants an address

        self._config = config
        self._on_ready = on_ready
        self._period_s = flush_period_s
        self._is_temporary = folder is None
        self._spool = _open_spool(Path(tempfile.mkdtemp(prefix="hilserl-tracking-")) if folder is None else folder, max_memory_records)
        self.run_id = self._spool.state.run_id
        self._nonfinite: Counter[str] = Counter()
        self._tried, self._stop, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._is_away = False
        self._summary: TrackingSummary | None = None
        begin = {"id": uuid.uuid4().hex, "name": run_name, "resume": resume_run_id, "params": flatten(params)}
        self._spool.append({"begin": begin | {"tags": {key: str(value) for key, value in tags.items()}}})
        self._delivery = Delivery(config, self._spool, self._report, self._know_run)
        self._thread = background_thread(self._deliver, "mlflow")
        self._thread.start()

    @property
    def waiting(self) -> str | None:
        """Say what waits for MLflow, and how it is delivered; None while MLflow takes everything."""
        waiting = self._spool.describe_waiting() if self._is_away else None
        if waiting is None:
            return None
        return f"{waiting} for MLflow at {shown_uri(self._config)}: the run's next process delivers them, or `hilserl deliver`"

    def wait_ready(self, timeout_s: float = 60.0) -> str | None:
        """Wait until the run exists and return its id.

        Raises:
            ServiceError: The store cannot be used, or did not answer in `timeout_s`.
        """
        if not self._tried.wait(timeout_s):
            raise ServiceError(
                f"MLflow at {shown_uri(self._config)} did not answer in {timeout_s:.0f} s. Is its server up? "
                "`tracking.enable: false` runs without it."
            )
        if self.run_id is None:
            raise ServiceError(self.problem or "MLflow did not start.")
        return self.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write values of one step to the spool, tens of microseconds.

        Args:
            metrics: Values by name, such as `loss/critic`.
            step: Environment step that they belong to.

        NaN and infinity are not stored (MLflow turns infinity into 1.8e308, which flattens a plot):
        they are counted, and the count is stored as `nonfinite/<metric>`.
        """
        values: dict[str, float] = {}
        for key, value in metrics.items():
            number = float(value)
            if not math.isfinite(number):
                self._nonfinite[key] += 1
                key, number = f"nonfinite/{key}", float(self._nonfinite[key])
            values[key] = number
        self._spool.append({"metrics": values, "ms": self._spool.now_ms(), "step": int(step)})

    def log_figure(self, figure: Figure, name: str) -> None:
        """Render now (the caller may close the figure), store later, as `name` (`plots/curve.png`)."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format=Path(name).suffix.removeprefix(".") or "png", bbox_inches="tight")
        self._log_bytes(buffer.getvalue(), name)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a folder; it must stay where it is until it is delivered."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(path)
        self._spool.append({"file": str(path.resolve()), "folder": folder, "attempt": 1})

    def log_text(self, text: str, name: str) -> None:
        """Store a text as `name` (`report.md`)."""
        self._log_bytes(text.encode(), name)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run."""
        self._spool.append({"tags": {key: shorten(str(value), MAX_TAG_CHARS) for key, value in tags.items()}})

    def finish(self, status: RunStatus = "FINISHED", timeout_s: float = 30.0) -> TrackingSummary:
        """Deliver what waits, close the run, and say how it went. Calling it again changes nothing.

        What the store does not take in `timeout_s` stays on disk, for the run's next process or `hilserl deliver`.
        """
        if self._summary is None:
            self._spool.append({"status": status})
            self._stop.set()
            self._ended.wait(timeout_s)
            self._is_away |= not self._ended.is_set()
            waiting, lost, state = self._spool.waiting, self._spool.lost + self._delivery.refused, self._spool.state
            if lost:
                self._report(f"{lost} metric values were not recorded")
            if what := self.waiting:
                log.warning("%s", what)
                publish(Progress("tracking", message=what))
                self.problem = self.problem or what
            elif self._ended.is_set() and self._is_temporary:
                shutil.rmtree(self._spool.folder, ignore_errors=True)
            url = run_url(self._config, state.experiment_id, state.run_id) if state.run_id and state.experiment_id else None
            self._summary = TrackingSummary(self.run_id, url, lost, waiting, dict(self._nonfinite), self.problem)
        return self._summary

    # -- the delivery thread -------------------------------------------------------------------

    def _deliver(self) -> None:
        """Deliver every period, more slowly while the store is away; after the end until all is there, or twice in vain."""
        from hilserl.tracking.delivery import Later

        last_attempts, wait_s = 0, 0.0
        with ExitStack() as stack:
            stack.callback(self._ended.set)
            stack.callback(self._spool.close)  # in this thread: what it is about to note must still be possible
            sampling = False
            while True:
                is_stopped = self._stop.wait(wait_s) if wait_s else self._stop.is_set()
                try:
                    self._spool.retry()
                    self._delivery.run()
                except Exception as error:
                    if not isinstance(error, Later):
                        self._report(self._describe(error), error)
                    wait_s, self._is_away = min(2 * max(wait_s, self._period_s), _SLOWEST * self._period_s), True
                    last_attempts += is_stopped
                    if last_attempts >= _LAST_ATTEMPTS:
                        return
                    if is_stopped:
                        time.sleep(min(1.0, self._period_s))
                else:
                    if self._is_away:
                        log.info("MLflow at %s takes metrics again", shown_uri(self._config))
                    wait_s, self._is_away = self._period_s, False
                    if is_stopped:
                        return
                    if not sampling:
                        sampling = True
                        stack.enter_context(system_metrics(self._config, self.run_id))
                finally:
                    self._tried.set()

    def _describe(self, error: Exception) -> str:
        if self.run_id is None:
            return f"MLflow at {shown_uri(self._config)} cannot be used, and is tried again: {error}"
        return f"MLflow does not take metrics (they wait in {self._spool.folder}): {error}"

    def _know_run(self, run_id: str) -> None:
        self.run_id = run_id
        if self._on_ready is not None:
            self._on_ready(run_id)

    # -- helpers --------------------------------------------------------------------------------

    def _log_bytes(self, data: bytes, name: str) -> None:
        parent = Path(name).parent.as_posix()
        try:
            file = self._spool.stage(data, name)
        except (CacheError, OSError) as error:
            self._report(f"{name} is not stored in MLflow: {error}", error)
            return
        self._spool.append({"file": str(file), "folder": None if parent == "." else parent, "attempt": 1})

    def _report(self, problem: str, error: BaseException | None = None) -> None:
        """Surface a problem, the first time only: a store that is down fails every few seconds."""
        if self.problem is None:
            self.problem = problem
            log.warning("%s", problem, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
            publish(Progress("tracking", message=problem))


def _open_spool(folder: Path, max_memory_records: int | None) -> Spool:
    from hilserl.tracking.spool import MAX_MEMORY_RECORDS, Spool

    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            return Spool(folder, max_memory_records=max_memory_records or MAX_MEMORY_RECORDS)
        except TransportError as error:
            if time.monotonic() >= deadline:
                raise ServiceError(
                    f"{folder}: another process delivers this run's metrics to MLflow. Wait for it to end. ({error})"
                ) from error
            time.sleep(0.1)


def start_tracking(
    config: TrackingConfig,
    run_name: str,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    resume_run_id: str | None = None,
    on_ready: Callable[[str], None] | None = None,
    folder: Path | None = None,
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
        folder: The run's spool, where what MLflow does not take waits; None makes one under the system's temporary folder.
    """
    if not config.enable:
        return NullTracker()
    return MlflowTracker(config, run_name, tags or {}, params or {}, resume_run_id, on_ready, folder=folder)
