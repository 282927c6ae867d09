"""A service cannot die unnoticed, and cannot outlive us."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hilserl.errors import ServiceError
from hilserl.services.processes import ManagedProcess, free_port, require_free_port

# Starts a grandchild in a session of its own, as a Prefect worker does with flow runs, and writes both pids.
TREE = """
import os, pathlib, signal, subprocess, sys, time
if sys.argv[2] == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
file = pathlib.Path(sys.argv[1]); part = file.with_suffix(".part")
part.write_text(f"{os.getpid()} {grandchild.pid}"); part.rename(file)
time.sleep(600 if sys.argv[2] != "dies" else 0)
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILSERL_HOME", str(tmp_path / "home"))


def tree(tmp_path: Path, kind: str = "normal") -> list[str]:
    return [sys.executable, "-c", TREE, str(tmp_path / "pids"), kind]


def pids(tmp_path: Path) -> list[int]:
    eventually(lambda: (tmp_path / "pids").exists())
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_death_is_reported_with_the_end_of_the_log() -> None:
    process = ManagedProcess("Frail service", [sys.executable, "-c", "print('disk on fire'); raise SystemExit(3)"])
    process.start()
    eventually(lambda: not process.is_alive)
    with pytest.raises(ServiceError, match=r"(?s)Frail service ended unexpectedly with code 3.*disk on fire.*frail-service\.log"):
        process.check()


def test_death_by_signal_is_not_a_success() -> None:
    process = ManagedProcess("Killed", [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
    process.start()
    eventually(lambda: not process.is_alive)
    assert process.exit_code == 128 + signal.SIGKILL


def test_a_missing_program_is_an_error() -> None:
    process = ManagedProcess("Absent", ["/no/such/program"])
    process.start()
    eventually(lambda: not process.is_alive)
    with pytest.raises(ServiceError, match=r"code 127.*\n.*\n.*/no/such/program cannot be started"):
        process.check()


def test_a_stopped_service_is_not_reported_as_dead() -> None:
    process = ManagedProcess("Calm", [sys.executable, "-c", "import time; time.sleep(600)"])
    process.start()
    process.check()
    process.stop()
    process.check()
    process.stop()
    assert not process.is_alive


def test_stop_ends_grandchildren_in_their_own_session(tmp_path: Path) -> None:
    process = ManagedProcess("Tree", tree(tmp_path))
    process.start()
    family = pids(tmp_path)
    process.stop()
    assert all(map(gone, family))


def test_a_deaf_service_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    process = ManagedProcess("Deaf", tree(tmp_path, "deaf"), grace_s=0.3)
    process.start()
    family = pids(tmp_path)
    process.stop(timeout_s=0.1)
    assert all(map(gone, family))


def test_the_first_request_lets_a_service_drain(tmp_path: Path) -> None:
    process = ManagedProcess("Drain", tree(tmp_path, "deaf"), grace_s=0.3)
    process.start()
    _, grandchild = pids(tmp_path)
    process.request_stop()
    time.sleep(0.5)
    assert process.is_alive and not gone(grandchild)
    process.stop()
    assert gone(grandchild)


def test_what_a_dead_service_left_behind_is_ended(tmp_path: Path) -> None:
    process = ManagedProcess("Dies", tree(tmp_path, "dies"))
    process.start()
    eventually(lambda: not process.is_alive)
    assert all(map(gone, pids(tmp_path)))


@pytest.mark.parametrize("kind", ["normal", "deaf"])
def test_nothing_survives_a_killed_parent(tmp_path: Path, kind: str) -> None:
    program = f"""
import sys, time
from hilserl.services.processes import ManagedProcess
ManagedProcess("Tree", {tree(tmp_path, kind)!r}, grace_s=0.5).start()
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        family = pids(tmp_path)
        assert not any(map(gone, family))
    finally:
        parent.kill()
        parent.wait()
    eventually(lambda: all(map(gone, family)))


def test_a_service_ends_with_its_guard(tmp_path: Path) -> None:
    process = ManagedProcess("Unguarded", tree(tmp_path))
    process.start()
    child, grandchild = pids(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    try:
        eventually(lambda: gone(child))
        with pytest.raises(ServiceError, match="ended unexpectedly"):
            eventually(lambda: not process.is_alive)
            process.check()
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_passed_lock_is_held_as_long_as_the_service_lives(tmp_path: Path) -> None:
    def is_free() -> bool:
        with (tmp_path / "lock").open("a") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    process = ManagedProcess("Holder", [sys.executable, "-c", "import time; time.sleep(600)"])
    with (tmp_path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process.start(pass_fds=[lock.fileno()])
    assert not is_free()
    process.stop()
    assert is_free()


def test_the_previous_log_is_kept(tmp_path: Path) -> None:
    def run(word: str) -> ManagedProcess:
        process = ManagedProcess("Log", [sys.executable, "-c", f"print('{word}')"])
        process.start()
        eventually(lambda: not process.is_alive)
        return process

    run("first")
    process = run("second")
    assert process.log.read_text() == "second\n"
    assert process.log.with_suffix(".log.old").read_text() == "first\n"


def test_a_taken_port_is_named_with_its_holder_and_the_remedy() -> None:
    port = free_port()
    require_free_port(port, "test server", "Take another.")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(ServiceError, match=rf"Port {port} for the test server is in use by process {os.getpid()}.* Take another\."):
            require_free_port(port, "test server", "Take another.")


WORKER = """
import os, pathlib, signal, subprocess, sys, time
flow = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], start_new_session=True)
def like_a_worker_without_its_server(*_):
    flow.kill()
    sys.exit(0)
signal.signal(signal.SIGTERM, like_a_worker_without_its_server)
time.sleep(600)
"""
FLOW = """
import pathlib, signal, sys, time
mark = pathlib.Path(sys.argv[1])
def stop(*_): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
try:
    mark.with_suffix(".started").touch()
    time.sleep(600)
finally:
    time.sleep(0.3)
    mark.with_suffix(".safe").touch()
"""


@pytest.mark.failure("R09")
def test_flow_runs_clean_up_before_their_worker_is_told(tmp_path: Path) -> None:
    process = ManagedProcess("Worker", [sys.executable, "-c", WORKER, str(tmp_path / "arm"), FLOW])
    process.start()
    eventually((tmp_path / "arm.started").exists)
    process.stop()
    assert (tmp_path / "arm.safe").exists()


@pytest.mark.failure("R09")
def test_flow_runs_clean_up_when_everything_above_is_killed(tmp_path: Path) -> None:
    program = f"""
import time
from hilserl.services.processes import ManagedProcess
ManagedProcess("Worker", {[sys.executable, "-c", WORKER, str(tmp_path / "arm"), FLOW]!r}).start()
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        eventually((tmp_path / "arm.started").exists)
    finally:
        parent.kill()
        parent.wait()
    eventually((tmp_path / "arm.safe").exists)
