"""What waits for MLflow: nothing is lost, nothing is stored twice, nothing waits for the store."""

import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tracking_process import EXPERIMENT

from hilserl.config.models import TrackingConfig
from hilserl.errors import ServiceError
from hilserl.telemetry import SWITCHES
from hilserl.tracking import MlflowTracker, delivery
from hilserl.tracking.delivery import Delivery, deliver_waiting
from hilserl.tracking.spool import Spool
from hilserl.tracking.store import open_client

# SQLAlchemy 2.1 deprecates what MLflow 3.17's SQL store uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SCRIPT = Path(__file__).with_name("tracking_process.py")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrackingConfig:
    """A real store, made once: that takes seconds."""
    config = TrackingConfig(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", experiment=EXPERIMENT)
    open_client(config).search_experiments(max_results=1)
    return config


@pytest.fixture
def client(store):
    return open_client(store)


def nobody() -> TrackingConfig:
    """A store that is away."""
    return TrackingConfig(uri=f"http://127.0.0.1:{free_port()}", experiment=EXPERIMENT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def history(client, run_id, key):
    return [(metric.step, metric.value) for metric in sorted(client.get_metric_history(run_id, key), key=lambda m: (m.timestamp, m.step))]


def start(config, folder, **options) -> MlflowTracker:
    return MlflowTracker(config, "run", {}, {}, folder=folder, flush_period_s=0.02, **options)


def spooled(folder: Path, records: list[dict], *, begin: str = "b1") -> Spool:
    """A spool as a process leaves it that was killed before it reached the store."""
    spool = Spool(folder)
    spool.append({"begin": {"id": begin, "name": "run", "resume": None, "params": {"seed": "1"}, "tags": {"host": "a"}}})
    for record in records:
        spool.append(record)
    return spool


def metric(step: int, ms: int | None = None, **values: float) -> dict:
    return {"metrics": values or {"loss": float(step)}, "ms": 10_000 + step if ms is None else ms, "step": step}


def wait_until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def run_id_of(folder: Path) -> str:
    return json.loads((folder / "state.json").read_text())["run_id"]


class Like:
    """The real client, but for some calls."""

    def __init__(self, client, **calls):
        self._client = client
        vars(self).update(calls)

    def __getattr__(self, name):
        return getattr(self._client, name)


class Killed(Exception):
    """Stands for SIGKILL at this place."""


@pytest.mark.failure("L14")
@pytest.mark.parametrize("seed", range(3))
def test_exactly_once_wherever_the_deliverer_is_killed(store, client, tmp_path, seed) -> None:
    """Before the request, between the answer and the note, and after the note; again and again."""
    random_ = random.Random(seed)
    spooled(tmp_path / "0", [metric(step // 3, 10_000 + step, loss=float(step), q=1.0) for step in range(4000)], begin=f"b{seed}").close()
    folder, kills = tmp_path / "0", 0
    while True:
        spool = Spool(folder)
        real_log, real_commit = client.log_batch, spool.commit

        def maybe_killed(function, *args, _random=random_, **kwargs):
            if _random.random() < 0.15:
                raise Killed
            result = function(*args, **kwargs)
            if _random.random() < 0.15:
                raise Killed
            return result

        def killed_log(*args, _real=real_log, **kwargs):
            return maybe_killed(_real, *args, **kwargs)

        def killed_commit(*args, _real=real_commit, **kwargs):
            return maybe_killed(_real, *args, **kwargs)

        spool.commit = killed_commit
        deliver = Delivery(store, spool, lambda problem, error: pytest.fail(problem))
        deliver._client = type(
            "Client", (), {"__getattr__": lambda self, name: getattr(client, name), "log_batch": staticmethod(killed_log)}
        )()
        try:
            deliver.run()
            run_id = spool.state.run_id
            spool.close()
            break
        except Killed:
            kills += 1
            following = tmp_path / str(kills)
            shutil.copytree(folder, following)  # as it lies on the disk at this moment
            spool.close()
            folder = following
    assert kills > 2
    assert history(client, run_id, "loss") == [(step // 3, float(step)) for step in range(4000)]
    assert len(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id], f"tags.`hilserl.begin` = 'b{seed}'")) == 1
    assert sum(file.stat().st_size for file in folder.glob("*.journal")) == 0


@pytest.mark.failure("L14")
def test_a_process_killed_while_mlflow_is_away_loses_nothing_and_the_next_one_delivers(store, client, tmp_path) -> None:
    away = nobody().uri
    arguments = [sys.executable, str(SCRIPT), str(tmp_path), away, "0", "10000", "0.001"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        logged = -1
        for line in child.stdout:
            logged = int(line)
            if logged == 300:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    second = start(store, tmp_path)
    assert second._spool.waiting >= 2 * (logged + 1)
    for step in range(200, logged + 50):  # the checkpoint was at step 200
        second.log_metrics({"loss": step / 2, "q": -float(step)}, step)
    summary = second.finish()
    assert (summary.lost_metrics, summary.waiting_metrics) == (0, 0)
    steps = [step for step, _ in history(client, summary.run_id, "loss")]
    assert steps == list(range(logged + 50))
    assert [value for _, value in history(client, summary.run_id, "q")] == [-float(step) for step in range(logged + 50)]
    run = client.get_run(summary.run_id)
    assert (run.info.status, run.data.tags["host"], run.data.params["seed"]) == ("FINISHED", "a", "1")


def test_the_command_delivers_what_waits_in_all_runs(store, client, tmp_path, own_home, capsys) -> None:
    from pipeline_testing import make_tiny_config

    from commands.deliver import run_deliver
    from hilserl.runs import RunFolder

    run, _ = RunFolder.open(make_tiny_config(tracking__uri=store.uri, tracking__experiment=EXPERIMENT))
    spool = spooled(run.tracking, [metric(step) for step in range(7)], begin="command")
    with pytest.raises(ServiceError, match="in use by another process"):  # the run is training
        run_deliver(None, None)
    spool.close()
    with pytest.raises(ServiceError, match=r"does not take the 7 values in .*tracking"):
        run_deliver(None, nobody().uri)
    run_deliver(None, None)
    assert "7 metric values delivered" in capsys.readouterr().out
    run_id = run_id_of(run.tracking)
    assert [step for step, _ in history(client, run_id, "loss")] == list(range(7))
    assert client.get_run(run_id).info.status == "KILLED"  # nobody is left who could say how it ended


def test_a_refused_metric_costs_itself_alone(store, client, tmp_path) -> None:
    spooled(tmp_path, [metric(step, **{"loss": float(step), "../escape": 1.0}) for step in range(3)], begin="refused").close()
    problems: list[str] = []
    assert deliver_waiting(store, tmp_path, problems.append) == 3
    assert len(problems) == 3 and all("refuses a metric" in problem for problem in problems)
    assert len(history(client, run_id_of(tmp_path), "loss")) == 3


def test_a_run_deleted_in_mlflow_keeps_its_values_until_it_is_restored(store, client, tmp_path) -> None:
    run = start(store, tmp_path)
    run.log_metrics({"loss": 1.0}, 1)
    run_id = run.wait_ready()
    wait_until(lambda: not run._spool.waiting)
    client.delete_run(run_id)
    run.log_metrics({"loss": 2.0}, 2)
    summary = run.finish()
    assert (summary.lost_metrics, summary.waiting_metrics) == (0, 1) and "was deleted in MLflow. Restore it" in summary.problem
    client.restore_run(run_id)
    assert deliver_waiting(store, tmp_path) == 1
    assert history(client, run_id, "loss") == [(1, 1.0), (2, 2.0)]


def test_what_is_delivered_is_trimmed(store, tmp_path) -> None:
    run = start(store, tmp_path)
    sizes = []
    for step in range(30_000):
        run.log_metrics({f"metric/{index}": float(step) for index in range(5)}, step)
        if step % 3000 == 2999:
            wait_until(lambda: not run._spool.waiting)
            sizes.append(sum(file.stat().st_size for file in tmp_path.glob("*.journal")))
    assert run.finish().waiting_metrics == 0
    assert max(sizes) < 2 << 20
    assert sum(file.stat().st_size for file in tmp_path.glob("*.journal")) == 0


def test_a_wall_clock_that_jumps_neither_loses_nor_reorders(store, client, tmp_path, monkeypatch) -> None:
    """An hour forth and back within a process, and between two."""
    jump_s, real = [0.0], time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + int(jump_s[0] * 1e9))
    monkeypatch.setattr(time, "time", lambda: real() / 1e9 + jump_s[0])
    step = 0
    for jumps in ([0, 3600, 0, -3600], [3600, 0], [-3600, -3600, 7200], [0]):
        jump_s[0] = jumps[0]
        run = start(store, tmp_path)
        for jump in jumps:
            jump_s[0] = jump
            for _ in range(10):
                step += 1
                run.log_metrics({"loss": float(step), "constant": 1.0}, step)
                run.log_metrics({"idle": 0.0}, 0)  # the same value at the same step, again and again
        summary = run.finish()
        assert (summary.lost_metrics, summary.waiting_metrics) == (0, 0)
    metrics = client.get_metric_history(summary.run_id, "loss")
    assert [m.step for m in sorted(metrics, key=lambda m: m.timestamp)] == list(range(1, step + 1))
    assert len({m.timestamp for m in metrics}) == step
    assert len(history(client, summary.run_id, "constant")) == step
    assert len(history(client, summary.run_id, "idle")) == 40  # of the first process; later ones repeat a step that is there


def test_a_full_disk_keeps_the_newest_in_memory_and_writes_them_when_there_is_room(store, client, tmp_path, monkeypatch, caplog) -> None:
    run = start(store, tmp_path, max_memory_records=100)
    run_id = run.wait_ready()
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", lambda descriptor, parts: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        for step in range(150):
            run.log_metrics({"loss": float(step)}, step)
        assert caplog.text.count("so metrics wait in memory") == 1
    wait_until(lambda: not run._spool.waiting)
    summary = run.finish()
    assert summary.lost_metrics == 50 and "can be written again" in caplog.text
    assert [step for step, _ in history(client, run_id, "loss")] == list(range(50, 150))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4), cut=st.integers(0, 300))
def test_a_damaged_spool_delivers_what_is_whole(tmp_path, damage, cut) -> None:
    folder = Path(tmp_path / os.urandom(8).hex())
    spooled(folder, [metric(step) for step in range(50)]).close()
    (segment,) = folder.glob("*.journal")
    data = bytearray(segment.read_bytes())
    for place, bits in damage:
        data[int(place * len(data))] ^= bits
    segment.write_bytes(data[: len(data) - cut])
    spool = Spool(folder)
    found = []
    while (entry := spool.next()) is not None:
        found.append(entry[1])
        spool.commit(1)
    written = [json.loads(json.dumps(metric(step))) for step in range(50)]
    steps = [record["step"] for record in found if "step" in record]
    assert all(record in written for record in found if "step" in record) and steps == sorted(set(steps))
    assert len(steps) >= 50 - len(damage) - cut // 50 - 1
    spool.close()
    shutil.rmtree(folder)


def test_a_lost_state_sends_again_and_stores_once(store, client, tmp_path) -> None:
    spool = spooled(tmp_path, [metric(step) for step in range(20)], begin="state")
    Delivery(store, spool, lambda problem, error: pytest.fail(problem)).run()
    run_id = spool.state.run_id
    spool._is_closed = True  # killed
    spool._journal.close()
    (tmp_path / "state.json").write_text('{"through": 3, "nonsense": 1}')
    assert deliver_waiting(store, tmp_path) == 20
    assert run_id_of(tmp_path) == run_id
    assert len(history(client, run_id, "loss")) == 20


def test_a_file_that_fails_does_not_hold_up_the_metrics_and_is_tried_again(store, client, tmp_path, monkeypatch) -> None:
    failures = [3]

    def log_artifact(*args):
        if failures[0]:
            failures[0] -= 1
            raise ConnectionError("the artefact store is away")
        return client.log_artifact(*args)

    monkeypatch.setattr(delivery, "open_client", lambda config: Like(client, log_artifact=log_artifact))
    run = start(store, tmp_path / "spool")
    run.log_text("report", "texts/report.md")
    run.log_metrics({"loss": 1.0}, 1)
    wait_until(lambda: not run._spool.waiting)
    wait_until(lambda: not failures[0])
    summary = run.finish()
    assert history(client, summary.run_id, "loss") == [(1, 1.0)]
    assert [item.path for item in client.list_artifacts(summary.run_id, "texts")] == ["texts/report.md"]
    assert not list((tmp_path / "spool" / "files").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.failure("L14")
def test_a_server_killed_and_started_again_in_mid_run(tmp_path) -> None:
    """The real server, killed twice with SIGKILL while a real process logs; every value is there, once."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    log = (tmp_path / "server.log").open("wb")

    def serve() -> subprocess.Popen:
        return subprocess.Popen(command, env=os.environ | SWITCHES, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def kill(server: subprocess.Popen) -> None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    server = serve()
    try:
        wait_until(is_up, 300)
        arguments = [sys.executable, str(SCRIPT), str(tmp_path / "spool"), uri, "0", "1000000", "0.05"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
            state = tmp_path / "spool" / "state.json"
            wait_until(lambda: state.exists() and json.loads(state.read_text())["recorded"].get("loss", 0) > 20, 300)
            kill(server)
            time.sleep(3)
            server = serve()
            wait_until(is_up, 300)
            stored = json.loads(state.read_text())["recorded"]["loss"]
            wait_until(lambda: json.loads(state.read_text())["recorded"]["loss"] > stored + 30, 300)
            kill(server)
            time.sleep(1)
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.read().split()
        logged = int(lines[-1])
        server = serve()
        wait_until(is_up, 300)
        config = TrackingConfig(uri=uri, experiment=EXPERIMENT)
        deliver_waiting(config, tmp_path / "spool")
        client = open_client(config)
        run_id = run_id_of(tmp_path / "spool")
        for key, factor in (("loss", 0.5), ("q", -1.0)):
            found = client.get_metric_history(run_id, key)
            values = sorted((m.step, m.value) for m in found)
            assert values[: logged + 1] == [(step, factor * step) for step in range(logged + 1)]
            assert len(values) <= logged + 2  # the one that was logged and not printed yet
            assert [m.step for m in sorted(found, key=lambda m: m.timestamp)] == [step for step, _ in values]
    finally:
        kill(server)
        log.close()
