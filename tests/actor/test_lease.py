"""One process at a time drives an arm, whatever the servers say."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hilserl.actor.lease import robot_lease
from hilserl.errors import RobotError

HOLDER = """
import sys, time
from hilserl.actor.lease import robot_lease
with robot_lease("arm"):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def hold(seconds: float) -> "subprocess.Popen[str]":
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.failure("R17")
def test_a_second_process_is_refused_waits_if_it_may_and_a_killed_one_leaves_nothing(own_home: Path) -> None:
    with hold(600) as holder:
        with pytest.raises(RobotError, match=rf"`arm` is already driven by process {holder.pid}"), robot_lease("arm"):
            pass
        holder.kill()
        holder.wait()
        with robot_lease("arm"):
            pass
    with hold(0.5) as holder:
        began = time.monotonic()
        with robot_lease("arm", wait_s=30):
            assert time.monotonic() - began < 30
        holder.wait()
