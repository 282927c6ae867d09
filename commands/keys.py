"""`hilserl keys`: the keys of this terminal, for an actor that has none of its own."""

from __future__ import annotations

import time

from hilserl.errors import RobotError

_LOOK_S = 0.02


def run_keys(robot: str | None) -> None:
    """Send keys until Ctrl-C or escape.

    Raises:
        RobotError: There is no such actor, or several.
    """
    from hilserl.teleop.keyboard import HELP
    from hilserl.teleop.remote_keys import listening_robots, send_key
    from hilserl.teleop.terminal_keys import TerminalKeys

    there = listening_robots()
    if robot is None:
        if len(there) != 1:
            raise RobotError(f"say which robot with `--robot`: {', '.join(there) or 'no actor listens for keys on this host'}.")
        robot = there[0]
    send_key(robot, "")  # nothing: is it there?
    print(f"Keys go to the actor of `{robot}`. {HELP}. Escape ends.", flush=True)
    with TerminalKeys() as keys:
        try:
            while True:
                for key in keys.pressed():
                    if key == "escape":
                        return
                    send_key(robot, key)
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            print()
