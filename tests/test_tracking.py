"""Tracking against a real MLflow store (SQLite), and against one that fails."""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hilserl.config.models import TrackingConfig, TrainConfig
from hilserl.errors import ServiceError
from hilserl.progress import subscribed
from hilserl.telemetry import SWITCHES, disable_telemetry
from hilserl.tracking import (
    MlflowTracker,
    NullTracker,
    Tracker,
    close_run,
    delivery,
    run_url,
    start_tracking,
    tracking_uri,
    ui_argv,
    ui_command,
)
from hilserl.tracking.store import MAX_PARAM_CHARS, flatten, open_client, shorten, shown_uri

# SQLAlchemy 2.1 deprecates what MLflow 3.17's SQL store uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

CONFIG = TrackingConfig(experiment="tests")
PERIOD_S = 0.02


@pytest.fixture(scope="module")
def store_home(tmp_path_factory):
    """One database for the module: creating it takes seconds."""
    return tmp_path_factory.mktemp("home with space")


@pytest.fixture(autouse=True)
def hilserl_home(store_home, monkeypatch):
    monkeypatch.setenv("HILSERL_HOME", str(store_home))


@pytest.fixture
def client():
    return open_client(CONFIG)


@pytest.fixture
def start():
    """Start trackers that flush fast and are finished at the end of the test."""
    started = []

    def start(config=CONFIG, tags=None, params=None, resume_run_id=None, **options):
        found = MlflowTracker(config, "run", tags or {}, params or {}, resume_run_id, **{"flush_period_s": PERIOD_S} | options)
        started.append(found)
        return found

    yield start
    for found in started:
        found.finish(timeout_s=20)


class FlakyClient:
    """The real client behind a switch: while `down`, every write fails like a dead server."""

    def __init__(self, client):
        self.client = client
        self.down = False
        self.refused = 0
        self.steps_refused = []

    def __getattr__(self, name):
        method = getattr(self.client, name)
        if not name.startswith(("log_", "set_")):
            return method

        def call(*args, **kwargs):
            if self.down:
                self.refused += 1
                self.steps_refused.append([metric.step for metric in kwargs.get("metrics", [])])
                raise ConnectionError("connection refused")
            return method(*args, **kwargs)

        return call


@pytest.fixture
def flaky(monkeypatch, client):
    """Put the switch into every tracker that the test starts."""
    flaky = FlakyClient(client)
    monkeypatch.setattr(delivery, "open_client", lambda config: flaky)
    return flaky


def history(client, run_id, key):
    return [(metric.step, metric.value) for metric in sorted(client.get_metric_history(run_id, key), key=lambda metric: metric.step)]


def wait_until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def test_metrics_arrive_with_their_steps(start, client):
    run = start()
    for step in range(2500):  # more than two of MLflow's batches
        run.log_metrics({"loss/critic": step / 2, "q": 1.0}, step)
    summary = run.finish()
    assert summary.problem is None
    assert (summary.lost_metrics, summary.run_id) == (0, run.run_id)
    assert history(client, run.run_id, "loss/critic") == [(step, step / 2) for step in range(2500)]
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_start_does_not_wait_for_the_store_and_metrics_queue_up_until_it_is_there(start, monkeypatch, client):
    slow = threading.Event()

    def open_slowly(config):
        slow.wait(20)
        return client

    monkeypatch.setattr(delivery, "open_client", open_slowly)
    run = start()
    run.log_metrics({"loss": 3.0}, 1)
    assert run.run_id is None
    with pytest.raises(ServiceError, match="did not answer in 0 s"):
        run.wait_ready(timeout_s=0.01)
    slow.set()
    run_id = run.wait_ready()
    run.finish()
    assert history(client, run_id, "loss") == [(1, 3.0)]


def test_a_store_that_is_down_loses_nothing_and_says_so_once(start, flaky, client, caplog):
    seen = []
    with subscribed(seen.append), caplog.at_level(logging.WARNING):
        run = start()
        run.wait_ready()
        flaky.down = True
        for step in range(50):
            run.log_metrics({"loss": float(step)}, step)
        run.log_text("report", "report.md")
        wait_until(lambda: flaky.refused > 10)
        assert history(client, run.run_id, "loss") == []
        flaky.down = False
        summary = run.finish()
    assert all(steps == sorted(steps) for steps in flaky.steps_refused)  # put back in order
    assert history(client, run.run_id, "loss") == [(step, float(step)) for step in range(50)]
    assert summary.lost_metrics == 0
    warnings = [record.message for record in caplog.records if record.name.startswith("hilserl.tracking")]
    assert len(warnings) == len(seen) == 1
    assert "does not take metrics" in warnings[0] == summary.problem


def test_a_store_that_never_comes_back_does_not_hold_up_the_end_and_loses_nothing(start, flaky, client, tmp_path, caplog):
    run = start(folder=tmp_path)
    run_id = run.wait_ready()
    flaky.down = True
    run.log_metrics({"loss": 1.0}, 1)
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING):
        summary = run.finish("FAILED", timeout_s=10)
    assert time.monotonic() - begin < 10
    assert (summary.lost_metrics, summary.waiting_metrics) == (0, 1)
    assert f"1 metric values (and 2 records in all) wait in {tmp_path}" in caplog.text and "hilserl deliver" in caplog.text
    flaky.down = False
    assert delivery.deliver_waiting(CONFIG, tmp_path) == 1
    assert history(client, run_id, "loss") == [(1, 1.0)]
    assert client.get_run(run_id).info.status == "FAILED"


def test_a_metric_that_mlflow_refuses_does_not_block_the_others(start, client):
    run = start()
    run.wait_ready()
    run.log_metrics({"../escape": 1.0}, 0)
    wait_until(lambda: run.problem)
    run.log_metrics({"loss": 1.0}, 1)
    summary = run.finish()
    assert "refuses a metric" in summary.problem
    assert summary.lost_metrics == 1
    assert history(client, run.run_id, "loss") == [(1, 1.0)]


def test_nan_and_infinity_are_counted_not_stored(start, client):
    run = start()
    for step, value in enumerate([1.0, float("nan"), 2.0, float("inf"), float("-inf")]):
        run.log_metrics({"loss": value}, step)
    summary = run.finish()
    assert history(client, run.run_id, "loss") == [(0, 1.0), (2, 2.0)]
    assert history(client, run.run_id, "nonfinite/loss") == [(1, 1.0), (3, 2.0), (4, 3.0)]
    assert summary.nonfinite == {"loss": 3}


@pytest.mark.failure("L14")
def test_steps_replayed_after_a_resume_are_not_recorded_twice(start, client):
    first = start(params={"policy": {"utd_ratio": 4}}, tags={"host": "a"})
    for step in range(10):
        first.log_metrics({"loss": 1.0, **({"success": 0.5} if step == 5 else {})}, step)
    run_id = first.finish("KILLED").run_id

    second = start(resume_run_id=run_id, params={"policy": {"utd_ratio": 8}, "seed": 1})
    assert second.wait_ready() == run_id
    assert client.get_run(run_id).info.status == "RUNNING"
    for step in range(7, 13):  # the checkpoint was at step 7
        second.log_metrics({"loss": 2.0, **({"success": 0.9} if step == 10 else {})}, step)
    second.finish()

    assert history(client, run_id, "loss") == [(step, 1.0 if step < 10 else 2.0) for step in range(13)]
    assert history(client, run_id, "success") == [(5, 0.5), (10, 0.9)]
    run = client.get_run(run_id)
    assert run.data.params == {"policy.utd_ratio": "4", "seed": "1"}
    assert run.data.tags["resumed_with.policy.utd_ratio"] == "8"
    assert run.data.tags["host"] == "a"


def test_a_resume_of_a_run_that_is_gone_begins_a_new_one_and_says_so(start, client):
    run = start(resume_run_id="0123abcd")
    run.log_metrics({"loss": 1.0}, 3)
    summary = run.finish()
    assert "0123abcd is no longer in" in summary.problem
    assert history(client, summary.run_id, "loss") == [(3, 1.0)]


@pytest.mark.failure("L14")
def test_the_id_is_told_as_soon_as_the_run_exists(client):
    told = []
    run = start_tracking(CONFIG, "run", on_ready=told.append)
    run_id = run.wait_ready()
    assert told == [run_id]
    assert run.finish().problem is None


def test_the_whole_configuration_fits_into_parameters(start, client):
    config = TrainConfig()
    run = start(params=config.model_dump(mode="json"), tags={"prefect.flow_run_id": "f1"})
    run_id = run.wait_ready()
    data = client.get_run(run_id).data
    assert data.params["policy.hidden_dims"] == "[256, 256]"
    assert data.params["observation.images.wrist.resize"] == "[84, 84]"
    assert data.params["dataset.root"] == "None"
    assert len(data.params) > 80  # one batch holds 100
    assert data.tags["prefect.flow_run_id"] == "f1"


def test_long_values_are_cut_visibly():
    text = "x" * 10_000
    cut = flatten({"note": text, "a": {"b": (1, 2), "c": {}}})
    assert cut["a.b"] == "[1, 2]"
    assert cut["a.c"] == "{}"
    assert len(cut["note"]) == MAX_PARAM_CHARS
    assert cut["note"].endswith("[cut: 10000 characters]")
    assert shorten("short", 100) == "short"


def test_files_texts_and_figures_are_stored(start, client, tmp_path, store_home):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    run = start()
    video = tmp_path / "evaluation.mp4"
    video.write_bytes(b"video")
    figure = Figure()
    figure.subplots().plot([1, 2])
    run.log_figure(figure, "plots/curve.png")
    figure.clear()  # the caller may do with it what it likes
    run.log_artifact(video, "videos")
    run.log_text("# Report", "report.md")
    run.set_tags({"best": 3})
    summary = run.finish()
    assert summary.problem is None
    folder = Path(client.get_run(run.run_id).info.artifact_uri.removeprefix("file://").replace("%20", " "))
    assert store_home in folder.parents
    assert (folder / "plots" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "videos" / "evaluation.mp4").read_bytes() == b"video"
    assert (folder / "report.md").read_text() == "# Report"
    assert client.get_run(run.run_id).data.tags["best"] == "3"


def test_a_file_that_is_not_there_is_the_callers_error(start, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        start().log_artifact(tmp_path / "missing")


def test_an_artifact_that_cannot_be_stored_is_reported(start, flaky, tmp_path):
    run = start()
    run.wait_ready()
    flaky.down = True
    run.log_text("report", "report.md")
    wait_until(lambda: run.problem)
    assert "report.md was not stored" in run.problem


def test_the_status_of_the_end_is_recorded_and_finishing_twice_changes_nothing(start, client):
    run = start()
    summary = run.finish("FAILED")
    assert run.finish("FINISHED") is summary
    assert client.get_run(run.run_id).info.status == "FAILED"


def test_a_run_whose_process_died_can_be_closed(start, client):
    run_id = start().wait_ready()
    close_run(CONFIG, run_id, "KILLED")
    assert client.get_run(run_id).info.status == "KILLED"


def test_a_store_that_cannot_be_opened_is_said_and_training_goes_on(start, tmp_path):
    (tmp_path / "file").write_text("")
    run = start(TrackingConfig(uri=f"sqlite:///{tmp_path}/file/mlflow.db"))
    with pytest.raises(ServiceError, match="cannot be used"):
        run.wait_ready()
    run.log_metrics({"loss": 1.0}, 1)
    run.log_text("report", "report.md")
    summary = run.finish()
    assert (summary.lost_metrics, summary.waiting_metrics) == (0, 1)
    assert summary.run_id is None
    assert "cannot be used" in summary.problem


def test_a_deleted_experiment_is_named_with_the_remedy(start, client):
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(ServiceError, match="was deleted in MLflow"):
        start(TrackingConfig(experiment="deleted")).wait_ready()


def test_system_metrics_are_sampled_only_on_request(start, client):
    plain = start()
    plain.wait_ready()
    before = {thread.name for thread in threading.enumerate()}
    run = start(TrackingConfig(experiment="tests", system_metrics=True))
    run.wait_ready()
    wait_until(lambda: {thread.name for thread in threading.enumerate()} - before - {"mlflow"})
    assert run.finish().problem is None


def test_disabled_tracking_takes_everything_and_does_nothing(tmp_path):
    run = start_tracking(TrackingConfig(enable=False), "run")
    assert type(run) is NullTracker
    run.log_metrics({"loss": 1.0}, 1)
    run.log_artifact(tmp_path / "missing")
    run.set_tags({"a": 1})
    assert run.wait_ready() is None
    assert run.finish().run_id is None


def test_nothing_is_said_to_mlflow_that_the_interface_does_not_have():
    public = {name for name in vars(MlflowTracker) if not name.startswith("_")}
    assert public <= set(vars(Tracker))


def test_where_things_are(store_home, monkeypatch):
    assert tracking_uri(TrackingConfig()) == f"sqlite:///{store_home}/mlflow/mlflow.db"
    argv = ui_argv(TrackingConfig(), 5001)
    assert argv[argv.index("--backend-store-uri") + 1] == tracking_uri(TrackingConfig())
    assert f"'sqlite:///{store_home}/mlflow/mlflow.db'" in ui_command(TrackingConfig())  # a folder with a space
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in ui_command(TrackingConfig())
    assert run_url(TrackingConfig(), "1", "abc") == "http://127.0.0.1:5000/#/experiments/1/runs/abc?workflowType=machine_learning"

    server = TrackingConfig(uri="https://me:secret@lab:5055/")
    assert ui_command(server) is None
    assert run_url(server, "1", "abc") == "https://***@lab:5055/#/experiments/1/runs/abc?workflowType=machine_learning"
    assert "secret" not in shown_uri(server)


def test_importing_the_library_does_not_import_mlflow():
    code = "import hilserl.tracking, sys; assert not [name for name in sys.modules if name.partition('.')[0] in ('mlflow', 'prefect')]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_telemetry_is_off_unless_the_user_wants_it(monkeypatch):
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    disable_telemetry()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert (os.environ["DO_NOT_TRACK"], os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"]) == ("1", "false")


def test_opening_the_store_switches_telemetry_off_first(monkeypatch):
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    open_client(CONFIG)
    assert {name: os.environ.get(name) for name in SWITCHES} == SWITCHES


def test_mlflow_and_prefect_understand_the_switches(client, monkeypatch):
    from mlflow.telemetry import utils
    from prefect._internal.analytics import enabled

    monkeypatch.setattr(utils, "_IS_IN_CI_ENV_OR_TESTING", False)
    monkeypatch.setattr(enabled, "is_ci_environment", lambda: False)
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    assert (utils.is_telemetry_disabled(), enabled.is_telemetry_enabled()) == (False, True)
    disable_telemetry()
    assert (utils.is_telemetry_disabled(), enabled.is_telemetry_enabled()) == (True, False)
