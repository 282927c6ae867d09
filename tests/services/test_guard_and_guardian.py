"""Ending a service tree must not end the guardian of an arm that is still torqued: both would be gone, and the servos would hold."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import hilserl.services.guard

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # hangs, as an actor in a driver call
code = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); sys.stdin.read(); time.sleep(1); open(sys.argv[2], 'w').close()"
kept = subprocess.Popen([sys.executable, "-c", code, "hilserl.robot.guardian_process", sys.argv[1]], stdin=subprocess.PIPE)
print(kept.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.failure("R09")
def test_a_guardian_outlives_the_tree_that_is_ended_by_force(tmp_path: Path) -> None:
    landed = tmp_path / "landed"
    guard = subprocess.Popen(
        [sys.executable, hilserl.services.guard.__file__, str(psutil.Process().pid), "0.3", sys.executable, "-c", STUBBORN, str(landed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert guard.stdout is not None
        guardian = int(guard.stdout.readline())
        guard.send_signal(signal.SIGUSR1)
        guard.wait(60)
        deadline = time.monotonic() + 60
        while not landed.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert landed.exists()  # the end of its owner reached it, and it had the time to do its work
        while psutil.pid_exists(guardian) and psutil.Process(guardian).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        guard.kill()
        guard.wait()
        assert guard.stdout is not None
        guard.stdout.close()
