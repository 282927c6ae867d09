"""The emergency stop of a simulation, which has no arm that would listen to it."""

from __future__ import annotations

from hilserl.errors import RobotError
from hilserl.robot.estop import EStop
from hilserl.robot.latch import release


class SimulatedStop:
    """Listens like that of an arm; the loop asks it before each step."""

    def __init__(self, robot_id: str) -> None:
        """Listen; what an earlier simulation of this id was stopped by does not hold for this one.

        Raises:
            RobotError: The socket cannot be made.
        """
        self._robot_id = robot_id
        release(robot_id)
        self._estop = EStop(robot_id)
        self._estop.start()

    def check(self) -> None:
        """Return if nobody pressed it.

        Raises:
            RobotError: Somebody did; he is told that nothing moves.
        """
        if (pressed := self._estop.reason) is not None:
            self._estop.confirm(True)
            raise RobotError(f"robot `{self._robot_id}` was stopped: the emergency stop was pressed ({pressed}).")

    def confirm(self) -> None:
        """Tell who pressed it that nothing moves, also while the loop is busy."""
        if self._estop.reason is not None:
            self._estop.confirm(True)

    def close(self) -> None:
        """Listen no more."""
        self._estop.close()
