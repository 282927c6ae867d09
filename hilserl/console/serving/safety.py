"""Stopping and releasing the arm from a page, without the actor's help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hilserl.config.safety import SafetyConfig
from hilserl.errors import HilserlError
from hilserl.robot.estop import ALL_OFF, stop_robot
from hilserl.robot.latch import latched
from hilserl.robot.rearm import rearm


class Safety:
    """One robot's emergency stop and its release.

    Attributes:
        problem: Why the last release was refused, while the robot stays stopped.
    """

    def __init__(self, robot: str, kind: str, settings: SafetyConfig, log: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            robot: Its id.
            kind: `arm`, `simulation` or `gymnasium`.
            settings: What its servos must say before it is released.
            log: Writes a line down.
        """
        self._robot, self._kind, self._settings, self._log = robot, kind, settings, log
        self.problem = ""

    async def stop(self, who: str) -> tuple[str, str]:
        """Stop the robot; return what is wrong (nothing: "") and what was done."""
        self._log(f"EMERGENCY STOP: {who}")
        if self._kind == "gymnasium":
            return "this environment is no arm: `hold` it, or end the run", ""
        done = await asyncio.to_thread(stop_robot, self._robot, who)
        if self._kind == "simulation" and done == ALL_OFF:
            done = "the simulated arm stands still"
        self._log(f"emergency stop: {done}")
        return "", done

    async def release(self, who: str, named: object, *, actor_waits: bool) -> str:
        """Release the robot, where a person named it and its servos do not object; return what is wrong (nothing: "")."""
        error = ""
        if named != self._robot:
            error = f"robot `{self._robot}` stays stopped: that was not its name"
        elif not actor_waits:
            error = "the actor has not let go of the arm yet" if latched(self._robot) else f"robot `{self._robot}` is not stopped"
        else:
            self._log(f"{who}: re-arm")
            try:
                await asyncio.to_thread(rearm, self._robot, self._settings)
            except HilserlError as reason:
                error = str(reason)
        self.problem = error if latched(self._robot) else ""
        return error
