"""`hilserl estop` and `hilserl rearm`: stop an arm from anywhere on its machine, and release it again."""

from __future__ import annotations

import os
import sys
import termios
import tty

from hilserl.errors import RobotError
from hilserl.files import home


def run_estop(robot: str | None, *, wait_for_key: bool) -> None:
    """Stop one arm, or all of this machine.

    Args:
        robot: Id of the arm; None: all that were ever driven here.
        wait_for_key: Wait for a key first.

    Raises:
        RobotError: There is no arm, or no terminal with keys.
    """
    from hilserl.robot.estop import stop_robot

    source = "`hilserl estop`"
    if wait_for_key:
        source = _wait_for_key(robot)
    stopped = [robot] if robot is not None else _arms()
    for robot_id in stopped:
        print(f"robot `{robot_id}`: {stop_robot(robot_id, source)}", flush=True)
    for robot_id in stopped:
        print(f"Look at the arm, remove the cause, then: hilserl rearm --robot {robot_id}")
    print("After that, start what drove it again: a training goes on where it was.")


def run_rearm(robot: str, port: str | None) -> None:
    """Release one arm, when a person says so.

    Args:
        robot: Id of the arm.
        port: Of the arm; None: the one where it was stopped.

    Raises:
        RobotError: It is not stopped, the cause stands, or nobody confirmed.
    """
    from hilserl.config.safety import SafetyConfig
    from hilserl.robot.latch import latched
    from hilserl.robot.rearm import rearm

    held = latched(robot)
    if held is None:
        raise RobotError(_nothing_to_rearm(robot))
    print(f"robot `{robot}` was stopped ({held.rule}, {held.at}): {held.text}")
    if held.black_box:
        print(f"Its last seconds: {held.black_box}")
    if not sys.stdin.isatty():
        raise RobotError("re-arming needs a person who has looked at the arm: run it in a terminal.")
    print("Nothing moves yet. Is the arm free, and has the cause been removed? Type its id to release it: ", end="", flush=True)
    if sys.stdin.readline().strip() != robot:
        raise RobotError(f"robot `{robot}` stays stopped: that was not its id.")
    rearm(robot, SafetyConfig(), port=port)
    print(f"robot `{robot}` may be driven again.")


def _nothing_to_rearm(robot: str) -> str:
    from hilserl.robot.latch import latched

    known = _driven_here()
    if robot not in known:
        return f"no robot `{robot}` was ever driven here; {home() / 'robots'} knows {', '.join(known) or 'none'}."
    stopped = [other for other in known if latched(other) is not None]
    others = f" Stopped is {', '.join(stopped)}." if stopped else ""
    return f"robot `{robot}` is not stopped, so there is nothing to re-arm.{others}"


def _driven_here() -> list[str]:
    return sorted({path.parent.name for path in (home() / "robots").glob("*/guardian.lock")})


def _arms() -> list[str]:
    """Return the arms that were ever driven on this machine."""
    found = _driven_here()
    if not found:
        raise RobotError(f"no arm was ever driven here ({home() / 'robots'} knows none). Name one with `--robot`.")
    return found


def _wait_for_key(robot: str | None) -> str:
    if not sys.stdin.isatty():
        raise RobotError("`--wait-for-key` needs a terminal.")
    print(f"ANY KEY STOPS {'robot `' + robot + '`' if robot else 'ALL ARMS OF THIS MACHINE'}. Ctrl-C as well.", flush=True)
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)  # keeps a key that came a moment too early
        key = os.read(descriptor, 1).decode(errors="replace")
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    return f"key {key!r}"
