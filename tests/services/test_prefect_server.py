"""One server per database; a taken port and a taken database are said before anything starts."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hilserl.errors import ServiceError
from hilserl.services import rest
from hilserl.services.mlflow_ui import MlflowUi
from hilserl.services.prefect_server import PrefectServer, find_running
from hilserl.services.processes import free_port


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HILSERL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "prefect"


@pytest.fixture
def health() -> Iterator[str]:
    """An API that is healthy, busy for two requests to `/api/busy`, and refuses everything else."""
    busy = [503, 503]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code = 200 if self.path == "/api/health" else 418
            if self.path == "/api/busy":
                code = busy.pop() if busy else 200
            self.send_response(code)
            self.end_headers()
            self.wfile.write(b"true" if code == 200 else b"short and stout")

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    thread.join()
    server.server_close()


def announce(folder: Path, api_url: str, pid: int = 0) -> int:
    """Do what a running server's owner has done; return the lock."""
    folder.mkdir(parents=True)
    (folder / "server.json").write_text(json.dumps({"api_url": api_url, "owner": "hilserl up", "pid": pid or os.getpid()}))
    lock = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_a_port_in_use_stops_the_launch(folder: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        server = PrefectServer(holder.getsockname()[1])
        with pytest.raises(ServiceError, match=rf"Port {server.port} for the Prefect server is in use.*--prefect-port"):
            server.launch()
        server.stop()
    assert not server.is_alive()
    assert find_running() is None
    assert not (folder / "server.json").exists()


def test_the_mlflow_port_in_use_is_named() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        ui = MlflowUi(holder.getsockname()[1])
        with pytest.raises(ServiceError, match=rf"Port {ui.port} for the MLflow UI is in use.*--mlflow-port"):
            ui.launch()
        ui.stop()


def test_one_server_per_database_until_it_is_stopped(folder: Path) -> None:
    with PrefectServer(owner="hilserl demo") as first:
        second = PrefectServer()
        with pytest.raises(ServiceError, match=rf"already run by `hilserl demo` \(process {os.getpid()}\) at {first.ui_url}"):
            second.launch()
        second.stop()
        assert (folder / "server.json").exists(), "a refused server must not withdraw the card of the one that runs"
    third = PrefectServer()
    third.launch()
    third.stop()


def test_a_server_whose_owner_was_killed_is_waited_for_and_not_used(folder: Path, health: str) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    lock = announce(folder, health, ended.pid)
    assert find_running() is None, "it answers, but it ends now"
    threading.Timer(0.5, os.close, [lock]).start()
    server = PrefectServer()
    server.launch()
    server.stop()


def test_launch_fails_early_if_the_server_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with PrefectServer() as server, pytest.raises(ServiceError, match="Prefect server ended unexpectedly"):
        server.wait_ready(30)


def test_find_running_returns_the_healthy_owner(folder: Path, health: str) -> None:
    lock = announce(folder, health)
    found = find_running()
    assert found is not None
    assert (found.api_url, found.owner, found.pid) == (health, "hilserl up", os.getpid())
    assert found.environment()["PREFECT_API_URL"] == health
    assert found.environment()["PREFECT_HOME"] == str(folder)
    os.close(lock)
    assert find_running() is None, "its owner is gone: whatever answers on that port now is not ours"


def test_find_running_does_not_trust_a_dead_address(folder: Path) -> None:
    lock = announce(folder, f"http://127.0.0.1:{free_port()}/api")
    assert find_running() is None
    os.close(lock)


def test_a_refusal_quotes_the_answer(health: str) -> None:
    with pytest.raises(ServiceError, match=r"GET .*/nothing was refused with 418: short and stout"):
        rest.call("GET", f"{health}/nothing")
    assert rest.call("GET", f"{health}/nothing", accept=(418,)) is None


def test_a_busy_database_is_waited_for(health: str) -> None:
    assert rest.call("GET", f"{health}/busy") is True


def test_no_answer_asks_whether_the_server_runs() -> None:
    with pytest.raises(ServiceError, match=r"no answer .*Is the server running\?"):
        rest.call("GET", f"http://127.0.0.1:{free_port()}/api/health")


def test_importing_and_launching_stays_cheap() -> None:
    heavy = ("prefect", "mlflow", "torch", "numpy")
    program = f"import sys, hilserl.services.prefect_server, hilserl.services.up; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
