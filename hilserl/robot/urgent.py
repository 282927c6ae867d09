"""Real-time priority for the few threads that an arm waits for, where the system allows it."""

from __future__ import annotations

import os


def run_first(priority: int) -> bool:
    """Ask for SCHED_FIFO for the calling thread, and not for those that it starts; return whether it was given.

    Only for a thread that sleeps in every turn. Most systems give it to nobody but root and users with `rtprio` in
    /etc/security/limits.conf; everything works without, with later reactions on a busy machine.

    Args:
        priority: 1 to 99, as of `sched(7)`.
    """
    if not hasattr(os, "sched_setscheduler"):
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError:
        return False
    return True
