"""The servos of a leader arm: soft while it mirrors, free while it is led; its angles come through the follower's own conversion."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.config.environment import RobotConfig
from hilserl.config.intervention import LeaderConfig
from hilserl.config.safety import SafetyConfig
from hilserl.errors import BusError, RobotError
from hilserl.robot.calibration import Calibration
from hilserl.robot.feetech import SERVOS, ServoBus
from hilserl.robot.guardian import Guardian
from hilserl.robot.latch import release
from hilserl.robot.registers import TICKS_PER_TURN
from hilserl.robot.servo_settings import require_an_so101, write_settings

logger = logging.getLogger(__name__)

Array = NDArray[np.floating[Any]]

LEROBOT_LEADER = "so_leader"
_SILENT_LOOKS = 5
_TICKS_PER_RAD = TICKS_PER_TURN / (2.0 * math.pi)
_GENTLE = 200  # of `Acceleration`: 20000 ticks/s^2, 31 rad/s^2


def leader_calibration_folder() -> Path:
    """Return where LeRobot keeps the calibrations of its leader arms."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    lerobot = Path(os.environ.get("HF_LEROBOT_HOME", home / "lerobot"))
    return Path(os.environ.get("HF_LEROBOT_CALIBRATION", lerobot / "calibration")).expanduser() / "teleoperators" / LEROBOT_LEADER


class LeaderArm:
    """One leader arm.

    Its angles are radians by the same `Calibration` as the follower's, so they are in the same units by construction; whether that
    calibration is this arm's is checked at connect (FAILURES R07).

    Attributes:
        joint_pos_rad: Measured at the last `look` [rad], shape (6,).
        mirrors: Its torque is on, and it goes where `mirror` says.
    """

    def __init__(self, settings: LeaderConfig, port: str, lower_rad: ArrayLike, upper_rad: ArrayLike) -> None:
        """Connect it; its torque is off.

        Args:
            settings: Its configuration.
            port: Its serial port.
            lower_rad: Lower joint limits of the model [rad], shape (6,).
            upper_rad: Upper joint limits [rad], shape (6,).

        Raises:
            RobotError: It is not there, no SO-101, not calibrated, or its calibration is another arm's.
        """
        folder = settings.calibration_dir or leader_calibration_folder()
        robot = RobotConfig(type="so101_follower", id=settings.id, port=port, calibration_dir=folder)
        self._torque_permille = settings.torque_limit_pct * 10.0
        self._command_rad: Array = np.zeros(len(SERVOS))
        self._push_rad: Array = np.zeros(len(SERVOS))
        self._silent = 0
        guarded_as = f"leader-{settings.id}"
        release(guarded_as)  # what stopped it last time left it off
        # In lock step as far as the guardian knows: it is there for our death, not for our pauses.
        self._guardian = Guardian(port, robot_id=guarded_as, safety=SafetyConfig(), lock_step=True)
        self._guarded = False
        self.mirrors = False
        self._bus = ServoBus(port, timeout_s=settings.timeout_s)
        try:
            require_an_so101(self._bus)
            self._calibration = Calibration.load(robot, lower_rad, upper_rad)
            write_settings(self._bus, self._calibration)
            for servo in SERVOS:  # it glides to each goal: a jump would jerk in the hand
                self._bus.write(servo, "Goal_Velocity", round(settings.mirror_speed_rad_s * _TICKS_PER_RAD))
                self._bus.write(servo, "Acceleration", _GENTLE)
            self.let_go()
            self.joint_pos_rad = self._measured()
        except RobotError as error:
            self._bus.close()
            told = str(error).replace("--robot.type=so101_follower", "--teleop.type=so101_leader").replace("--robot.", "--teleop.")
            raise RobotError(f"leader arm `{settings.id}`: {told}") from None
        except BaseException:
            self._bus.close()
            raise

    def look(self) -> Array:
        """Measure where it is [rad], shape (6,).

        Raises:
            RobotError: It has not answered for several looks.
        """
        before, self.joint_pos_rad = self.joint_pos_rad, self._measured()
        if self.mirrors:
            away = np.abs(self._command_rad - self.joint_pos_rad) - np.abs(self._command_rad - before)
            self._push_rad = np.maximum(self._push_rad + away, 0.0)
        return self.joint_pos_rad

    def pushed_rad(self) -> float:
        """Return how far a hand has pushed the joint that is pushed farthest off its way [rad]; 0 while the arm is free.

        Only motion away from what it was told counts: to lag behind a command, or to come too late, is not a hand.
        """
        return float(self._push_rad.max()) if self.mirrors else 0.0

    def behind_rad(self) -> float:
        """Return how far the joint that is farthest behind its command is [rad]: a hand may hold it fast; 0 while the arm is free."""
        return float(np.abs(self._command_rad - self.joint_pos_rad).max()) if self.mirrors else 0.0

    def mirror(self, target_rad: ArrayLike, step_rad: float) -> None:
        """Go towards a pose, softly, by at most `step_rad` a joint; the first time, torque comes on where the arm is.

        Args:
            target_rad: Joint angles [rad], shape (6,).
            step_rad: The most that its command changes now [rad].

        Raises:
            RobotError: The arm is gone, or its guardian is.
        """
        if not self.mirrors:
            self._hold_here()
        self._send(self._command_rad + np.clip(np.asarray(target_rad) - self._command_rad, -step_rad, step_rad))

    def let_go(self) -> None:
        """Switch its torque off: it is in somebody's hand.

        Raises:
            RobotError: A servo does not say that its torque is off.
        """
        self.mirrors = False
        for servo in SERVOS:
            self._bus.write(servo, "Torque_Enable", 0)

    def close(self) -> None:
        """Switch its torque off and hang up; safe to call twice, never raises."""
        if self._guarded and all(self._bus.stop_all().values()):
            self._guarded = False
            self._guardian.good_bye()
        self._bus.close()
        if self._guarded:  # the guardian goes on trying
            self._guarded = False
            self._guardian.take_over("the leader arm did not say that its torque is off")

    def _hold_here(self) -> None:
        if not self._guarded:
            self._guardian.start()
            self._guarded = True
        self._command_rad = here = self._measured()
        self._push_rad = np.zeros(len(SERVOS))
        self._bus.write_torque_limits(np.full(len(SERVOS), self._torque_permille))
        self._send(here)
        for servo in SERVOS:
            self._bus.write(servo, "Torque_Enable", 1)
        self.mirrors = True

    def _send(self, command_rad: Array) -> None:
        ticks = self._calibration.to_ticks(command_rad)
        self._command_rad = self._calibration.to_rad(ticks)
        self._bus.write_goals(ticks)

    def _measured(self) -> Array:
        state = self._bus.read_state()
        if state.answered.all():
            self._silent = 0
            return self._calibration.to_rad(state.position_ticks)
        self._silent += 1
        if self._silent >= _SILENT_LOOKS or not hasattr(self, "joint_pos_rad"):
            missing = [servo for servo, answered in zip(SERVOS, state.answered.tolist(), strict=True) if not answered]
            raise BusError(
                f"{self._bus.port}: servos {missing} of the leader arm do not answer. Check its power supply and cables; start again."
            )
        return self.joint_pos_rad
