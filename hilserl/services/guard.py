"""The process between us and a service: it outlives nobody, and nobody outlives it.

Run by path, so that it starts in about 20 ms: `python guard.py PARENT_PID GRACE_S COMMAND...`.
It starts COMMAND, then ends the whole tree below it, also processes in sessions of their own
(a Prefect worker's flow runs), when

- the parent dies, even by SIGKILL;
- COMMAND ends: what it left behind is ended;
- it gets SIGUSR1. (SIGTERM is handed on to COMMAND alone, which may drain.)

The order matters: everything below COMMAND gets SIGTERM first, so that a flow's `finally` makes the
arm safe, and COMMAND only when they are gone or GRACE_S is over; then SIGKILL. A Prefect worker that
is told to stop while its server is gone kills its flow runs with SIGKILL, no `finally` (3.8.8).
An arm's guardian (hilserl/robot/guardian_process.py) is left alone: it ends by itself, when the arm that it guards has no torque.

Why not only `PR_SET_PDEATHSIG` in the child: it fires when the parent's *thread* ends, reaches no
grandchildren, never escalates to SIGKILL, and a Prefect worker answers SIGTERM by waiting for its
flow runs. Only the guard's own child has it, for the case that the guard itself is killed.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.25
_STEP_S = 0.03
_GUARDIAN = "hilserl.robot.guardian_process"
_CHILD_GRACE_S = 10.0  # a worker or server without anything below it ends in a second


def main(argv: list[str]) -> int:
    """Run a command below this process; return its exit code (128 + n for signal n)."""
    parent, grace_s, command = int(argv[0]), float(argv[1]), argv[2:]
    wakeups, received = _listen()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans below us become our children
    if os.getppid() != parent:
        return 1
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: libc and libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )
    except OSError as error:
        print(f"hilserl: {command[0]} cannot be started: {error}", flush=True)
        return 127
    code: int | None = None
    told = False
    while code is None and signal.SIGUSR1 not in received:
        if os.getppid() != parent:
            print(f"hilserl: process {parent}, which started this service, is gone; stopping it", flush=True)
            break
        if received and not told:
            told = True
            os.kill(child.pid, signal.SIGTERM)  # not reaped yet, so the pid is still its own
        _wait(wakeups)
        code = _reap(child.pid)
    if code is None:
        code = _end_tree(child.pid, grace_s, told)
    else:
        _end_below(grace_s)
    return code if code >= 0 else 128 - code


def _listen() -> tuple[int, list[int]]:
    """Turn signals into bytes on a pipe, and collect the requests to stop."""
    received: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: received.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader, received


def _wait(wakeups: int) -> None:
    if select.select([wakeups], [], [], _POLL_S)[0]:
        os.read(wakeups, 4096)


def _reap(child: int | None) -> int | None:
    """Collect every process that ended; return the code of `child` if it was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def _end_tree(child: int, grace_s: float, told: bool) -> int:
    """End all below `child`, then `child`; return its exit code.

    A child that was `told` already gets no second SIGTERM: a Prefect worker answers that with suicide.
    """
    code = _end_below(grace_s, keep=child)
    if code is None and not told:
        os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + min(grace_s, _CHILD_GRACE_S)
    while code is None:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(_STEP_S)
        code = _reap(child)
    _end_below(0)  # what it started while it ended
    return code


def _end_below(grace_s: float, keep: int | None = None) -> int | None:
    """SIGTERM to all processes below this one, SIGKILL to what is left after the grace.

    Args:
        grace_s: Time for their clean-up [s].
        keep: One of them that is left alone.

    Returns:
        The exit code of `keep` if it ended meanwhile.
    """
    import psutil

    def below() -> list[psutil.Process]:
        return [p for p in psutil.Process().children(recursive=True) if p.pid != keep and not _is_zombie(p) and not _guards_an_arm(p)]

    code = None
    deadline = time.monotonic() + grace_s
    for process in below():  # once: what a worker starts from now on, a cancellation hook, may finish
        _send(process, signal.SIGTERM)
    while left := below():
        if time.monotonic() > deadline:
            for process in left:
                _send(process, signal.SIGKILL)
        time.sleep(_STEP_S)
        ended = _reap(keep)
        code = ended if ended is not None else code
    return code


def _is_zombie(process: object) -> bool:
    """Whether it is dead, and only its parent has not noticed."""
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _guards_an_arm(process: object) -> bool:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        return _GUARDIAN in process.cmdline()
    except psutil.Error:
        return False  # it has ended


def _send(process: object, number: int) -> None:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it ended by itself in the meantime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
