"""One process at a time drives an arm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hilserl.errors import RobotError
from hilserl.files import file_lock, home


@contextmanager
def robot_lease(robot_id: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the robot until the block ends or the process dies.

    The kernel keeps this lock: it outlives every server, and no process that died.

    Args:
        robot_id: Which one.
        wait_s: Time for a process that is about to let go of it [s].

    Raises:
        RobotError: Another process on this host holds it.
    """
    lock = home() / "robots" / f"{robot_id}.lock"
    holder = home() / "robots" / f"{robot_id}.pid"
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(lock, timeout_s=wait_s))
        except TimeoutError:
            pid = holder.read_text().strip() if holder.exists() else "unknown"
            raise RobotError(
                f"robot `{robot_id}` is already driven by process {pid} on this host. "
                "Stop that run first, or give this one another `robot.id`."
            ) from None
        holder.write_text(str(os.getpid()))
        yield
