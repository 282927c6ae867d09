"""The driver of one SO-101: connects it, moves it along safe paths, watches it in every tick, and takes it down.

In real time a thread of the arm runs the ticks, so that it is watched while the policy thinks. In lock step (a virtual arm
whose time passes only with the goals that it is sent) whoever moves it runs them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.config.environment import RobotConfig
from hilserl.errors import BlockedError, BusError, RobotError
from hilserl.robot.black_box import BlackBox
from hilserl.robot.calibration import Calibration
from hilserl.robot.estop import EStop
from hilserl.robot.feetech import SERVOS, BusState, ServoBus
from hilserl.robot.guardian import Guardian
from hilserl.robot.kinematics import Kinematics
from hilserl.robot.landing import soft_land
from hilserl.robot.latch import latch, require_released
from hilserl.robot.limits import Clips, Limits
from hilserl.robot.servo_settings import require_an_so101, write_settings
from hilserl.robot.trips import Action, Trip, TripRules
from hilserl.robot.units import GRIPPER
from hilserl.robot.urgent import run_first
from hilserl.schema import JOINT_NAMES
from hilserl.threads import background_thread

logger = logging.getLogger(__name__)

Array = NDArray[np.floating[Any]]

_LOCK_STEP_TIMEOUT_S = 10.0  # nothing moves meanwhile
_LOW_TORQUE, _RAMP_S = 0.15, 0.5  # when torque comes on
_NOTHING: Array = np.zeros(len(JOINT_NAMES))
_SETTLE_S, _SETTLED_RAD_S = 1.0, 0.02
_WEAK_GRIP = 0.2  # of the torque: what the jaw may hold something with for hours
_LOOSE_RAD = 0.04  # a jaw that is so near its command holds nothing
_LATE_S = 0.1
_HELD_S = 3.0  # a reason to hold still that lasts longer is an error
_END_S = 10.0
_PRIORITY = 15  # SCHED_FIFO, above the control loop's: what watches comes first


@dataclass(frozen=True)
class ArmState:
    """The arm at one tick.

    Attributes:
        joint_pos_rad: Measured [rad], shape (6,); of a servo that did not answer: its last one.
        joint_vel_rad_s: Measured [rad/s], shape (6,).
        command_rad: What the servos were told [rad], shape (6,).
        pose_rad: Where that leads the arm: the command less what holds it up [rad], shape (6,).
        at: When it was measured (time.monotonic()) [s].
        tick: Count of ticks.
        bus: What the servos said.
        clips: How often limits changed a command since the arm was connected.
    """

    joint_pos_rad: Array
    joint_vel_rad_s: Array
    command_rad: Array
    pose_rad: Array
    at: float
    tick: int
    bus: BusState
    clips: Clips


@dataclass(frozen=True)
class _Path:
    """A straight path of the command."""

    start_rad: Array
    target_rad: Array
    ticks: int
    workspace: bool = True

    def at(self, tick: int) -> Array:
        """Return the command of a tick; the target is there one tick early, which is what a servo lags behind."""
        point: Array = self.start_rad + min(1.0, tick / max(1, self.ticks - 1)) * (self.target_rad - self.start_rad)
        return point


class Arm:
    """One arm on a servo bus. One thread moves it; `stop` may come from any.

    Attributes:
        rest_rad: Where it lay when it was connected [rad], shape (6,).
        hold_still: Asked in every tick; a text stops the command where it is until it is None again.
        late_ticks: Ticks that began much too late.
    """

    def __init__(self, robot: RobotConfig, *, lock_step: bool = False) -> None:
        """Prepare; `connect` comes next.

        Args:
            robot: Port, limits, safety settings.
            lock_step: Its time passes only with its goals.
        """
        self.hold_still: Callable[[], str | None] = lambda: None
        self.late_ticks = 0
        self._robot, self._lock_step = robot, lock_step
        self._dt_s = 1.0 / robot.bus_hz
        self._torque = np.array(robot.torque_limit_pct) / 100.0
        self._kinematics = Kinematics()  # its own: they are not thread-safe
        self._rules = TripRules(robot.safety)
        self._guardian = Guardian(str(robot.port), robot_id=robot.id, safety=robot.safety, lock_step=lock_step)
        self._estop = EStop(robot.id)
        self._bus: ServoBus | None = None
        self._box: BlackBox | None = None
        self._changed = threading.Condition(threading.RLock())
        self._path: _Path | None = None
        self._progress = self._tick = 0
        self._interrupted: Trip | None = None
        self._stopped: str | None = None
        self._stopper = 0  # thread that takes it down
        self._safe = threading.Event()  # it has
        self._off = True
        self._held_since: float | None = None
        self._held_why = ""
        self._weak_grip = False
        self._clips = Clips()
        self._held_up: Array = _NOTHING
        self._measured: Array = _NOTHING
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    # Connecting

    def connect(self) -> None:
        """Find the arm, look whether it may be driven, and let it hold itself where it is.

        Raises:
            RobotError: It may not; nothing holds torque then.
        """
        robot = self._robot
        require_released(robot.id)
        self._bus = bus = ServoBus(str(robot.port), timeout_s=_LOCK_STEP_TIMEOUT_S if self._lock_step else robot.bus_timeout_s)
        try:
            self._guardian.start()  # waits for one that still takes the arm down
            require_released(robot.id)
            require_an_so101(bus)
            self._calibration = Calibration.load(robot, self._kinematics.lower_rad, self._kinematics.upper_rad)
            write_settings(bus, self._calibration)
            lower, upper = self._calibration.lower_rad, self._calibration.upper_rad
            self._limits = Limits(robot, self._kinematics, lower_rad=lower, upper_rad=upper)
            self._box = BlackBox(robot.id, seconds=robot.safety.black_box_s, hz=robot.bus_hz)
            self._estop.start()
            self._switch_on(bus)
        except BaseException:
            self.close()
            raise
        if not self._lock_step:
            self._thread = background_thread(self._run, f"arm {robot.id}")
            self._thread.start()

    def _switch_on(self, bus: ServoBus) -> None:
        """Switch torque on, where the joints are, and weak at first."""
        state = bus.read_state()
        if not state.answered.all():
            raise RobotError(f"{bus.port}: a servo stopped to answer while the arm was connected. Check its cable.")
        self.rest_rad = self._told = self._pose = self._wanted = self._measured = self._calibration.to_rad(state.position_ticks)
        self._off = False
        bus.write_torque_limits(1000.0 * _LOW_TORQUE * self._torque)
        bus.write_goals(state.position_ticks)
        for servo in SERVOS:
            bus.write(servo, "Torque_Enable", 1)
        self._rules.begin()
        self._all_answered = True
        steps = max(1, round(_RAMP_S * self._robot.bus_hz))
        for step in range(1, steps + 1):
            bus.write_torque_limits(1000.0 * self._torque * (_LOW_TORQUE + (1.0 - _LOW_TORQUE) * step / steps))
            self._watched_tick()
            self.require_running()
            if not self._lock_step:
                time.sleep(self._dt_s)

    # Moving

    @property
    def estop(self) -> EStop:
        """Its emergency stop, for a key."""
        return self._estop

    @property
    def state(self) -> ArmState:
        """The arm at the last tick."""
        return self._state

    @property
    def limits(self) -> Limits:
        """What commands may be, after `connect`."""
        return self._limits

    @property
    def stopped(self) -> str | None:
        """Why it was taken down; None: it was not."""
        return self._stopped

    @property
    def interrupted(self) -> Trip | None:
        """The rule that broke off the last `follow`; the arm holds where it was."""
        return self._interrupted

    def require_running(self) -> None:
        """Return if it can be moved.

        Raises:
            RobotError: It was stopped, with the reason.
        """
        if self._stopped is not None:
            if self._stopper not in (0, threading.get_ident()):
                self._safe.wait(_END_S)  # first safe, then loud
            raise RobotError(f"robot `{self._robot.id}` was stopped: {self._stopped}")

    def follow(self, target_rad: ArrayLike, ticks: int, *, held_up_rad: Array = _NOTHING, workspace: bool = True) -> ArmState:
        """Move the arm in a straight line to a target, within a number of ticks, inside all limits.

        Args:
            target_rad: Joint angles [rad], shape (6,).
            ticks: At least 1; where a reason to hold still comes between, it takes longer.
            held_up_rad: How far the servos are told to be beyond the pose, because they hang lower by as much [rad], shape (6,).
            workspace: Whether the tool must stay in the workspace.

        Returns:
            The arm at the last of these ticks; or where a rule interrupted it.

        Raises:
            RobotError: The target is not finite, the arm was stopped, or is held still for too long.
        """
        target = np.array(target_rad, dtype=np.float64)
        if target.shape != (len(JOINT_NAMES),) or not np.isfinite(target).all():
            raise RobotError(f"joint target {target_rad!r} rad is not six finite numbers. The arm was not moved.")
        with self._changed:
            self.require_running()
            self._interrupted = None
            self._held_up, self._pose = held_up_rad.copy(), self._told - held_up_rad
            self._path, self._progress = _Path(self._pose, target, max(1, ticks), workspace), 0
        began_s = time.monotonic()
        while self._busy:
            if self._lock_step:
                self._watched_tick()
            else:
                with self._changed:
                    self._changed.wait_for(lambda: not self._busy, timeout=self._dt_s)
            if self._held_since is not None and time.monotonic() - max(self._held_since, began_s) > _HELD_S:
                self._path = None
                raise RobotError(f"robot `{self._robot.id}` was held still for {_HELD_S:.0f} s: {self._held_why}")
        self.require_running()
        return self._state

    def move_to(self, joints_rad: ArrayLike, speed_rad_s: float) -> Array:
        """Move to a pose, the fastest joint at a given speed, and wait until the arm has settled.

        Returns:
            What is left, measured minus wanted [rad], shape (6,).

        Raises:
            BlockedError: Something was in its way.
            RobotError: The arm was stopped.
        """
        target = np.array(joints_rad, dtype=np.float64)
        ticks = math.ceil(float(np.abs(target - self._told).max()) / (speed_rad_s * self._dt_s))
        state = self.follow(target, ticks, workspace=False)
        deadline = state.tick + round(_SETTLE_S / self._dt_s)
        while self._interrupted is None and (np.abs(state.joint_vel_rad_s) > _SETTLED_RAD_S).any() and state.tick < deadline:
            state = self.follow(target, 2, workspace=False)
        if self._interrupted is not None:
            raise BlockedError(f"robot `{self._robot.id}` did not get to where it should: {self._interrupted.text} It holds where it is.")
        left: Array = state.joint_pos_rad - target
        return left

    def hold(self) -> None:
        """Command the joints to where they are."""
        with self._changed:
            self._path = None
            self._let_go()

    # Ending

    def stop(self, reason: str, *, rule: str = "stop", at_once: bool = False) -> None:
        """Take the arm down, and keep it down until a person re-arms it. Idempotent, from any thread, never raises.

        Args:
            reason: For a person.
            rule: What stopped it.
            at_once: Switch torque off now; else let it fall to zero first.
        """
        with self._changed:
            if self._stopped is not None:
                return
            self._stopped, self._stopper = reason, threading.get_ident()
            self._path = None
            self._changed.notify_all()
        logger.error("Robot `%s` is taken down (%s): %s", self._robot.id, rule, reason)
        saved = None
        if self._bus is not None:
            self._bus.latched = True
        self._land(at_once)
        self._dismiss_guardian()  # heartbeats end here, and a disk may be slow
        self._estop.confirm(self._off)
        if self._box is not None:
            with contextlib.suppress(OSError):
                saved = self._box.save({"rule": rule, "text": reason})
        port = str(self._robot.port) if self._robot.is_real else None
        latch(self._robot.id, rule, reason, port=port, black_box=saved)
        self._safe.set()

    def close(self) -> None:
        """Let the torque fall to zero, switch it off, and let go of the port; safe to call twice, never raises."""
        self._ending.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_S)
        self._thread = None
        if self._bus is None:
            return
        if self._stopped is None:
            self._stopped = "it was closed."
        self._land(at_once=False)
        self._dismiss_guardian()
        self._estop.close()
        self._bus.close()
        self._bus = None

    def _dismiss_guardian(self) -> None:
        """Send the guardian home; or leave it an arm that could not be switched off."""
        if self._off:
            self._guardian.good_bye()
        elif self._bus is not None:
            self._bus.close()
            self._guardian.take_over("the torque of a servo could not be switched off")
            self._guardian.leave()

    def _land(self, at_once: bool) -> None:
        if self._bus is None or self._off:
            return
        seconds = 0.0 if at_once or self._lock_step else self._robot.safety.landing_s
        answers = soft_land(self._bus, seconds, self._guardian.beat)
        self._off = all(answers.values())
        if not self._off:
            named = ", ".join(f"{servo} ({JOINT_NAMES[servo - 1]})" for servo, off in answers.items() if not off)
            logger.error("Servos %s did not say that their torque is off: switch the arm's power off before you touch it.", named)

    # Ticks

    def _run(self) -> None:
        run_first(_PRIORITY)
        next_s = time.monotonic()
        while not self._ending.is_set() and self._stopped is None:
            self._watched_tick()
            next_s += self._dt_s
            left_s = next_s - time.monotonic()
            if left_s < -_LATE_S:
                self.late_ticks += 1
                next_s = time.monotonic()
            elif left_s > 0:
                self._ending.wait(left_s)

    def _watched_tick(self) -> None:
        """Do one tick; whatever goes wrong takes the arm down."""
        if self._estop.reason is not None:
            self.stop(f"the emergency stop was pressed ({self._estop.reason}).", rule="estop")
            return
        try:
            with self._changed:
                trip = self._do_tick()
                self._changed.notify_all()
        except BusError as error:
            self.stop(str(error), rule="bus", at_once=True)
        except RobotError as error:
            self.stop(str(error), rule="guardian")
        except Exception as error:
            logger.exception("The driver of robot `%s` failed", self._robot.id)
            self.stop(f"its driver failed: {error}", rule="driver")
        else:
            if trip is not None and trip.stops:
                self.stop(trip.text, rule=trip.rule, at_once=trip.action is Action.OFF)

    def _do_tick(self) -> Trip | None:
        """Command, measure, judge."""
        assert self._bus is not None and self._box is not None
        if self._stopped is not None:
            return None
        self._notice_reasons_to_hold()
        path, holds = self._path, self._held_since is not None
        if path is not None and not holds:
            self._progress += 1
            self._wanted = path.at(self._progress)
        wanted = self._pose if holds else self._wanted
        workspace = path is None or path.workspace
        pose, clips = self._limits.clamp(wanted, self._pose, self._measured, self._dt_s, workspace=workspace)
        told: Array = pose + self._held_up
        if self._all_answered:  # a servo that is away may start anew, and a goal would switch it on without its settings
            self._bus.write_goals(self._calibration.to_ticks(told))
        else:
            pose, told = self._pose, self._told
        bus = self._bus.read_state()
        self._all_answered = bool(bus.answered.all())
        measured = self._calibration.to_rad(bus.position_ticks)
        self._measured = np.where(bus.answered, measured, self._measured)
        self._pose, self._told, self._clips, self._tick = pose, told, self._clips + clips, self._tick + 1
        speed = np.nan_to_num(self._calibration.to_rad_s(bus.velocity_ticks_s))
        trip = self._rules.check(bus, told, measured, self._tick * self._dt_s if self._lock_step else bus.at)
        self._state = ArmState(self._measured.copy(), speed, told.copy(), pose.copy(), bus.at, self._tick, bus, self._clips)
        self._box.record(bus, wanted, told, measured, clips.total)
        self._guardian.beat()
        self._react(trip)
        if path is not None and self._progress >= path.ticks:
            self._path = None
        return trip

    def _notice_reasons_to_hold(self) -> None:
        why = self.hold_still()
        if why is None:
            self._held_since = None
        elif self._held_since is None:
            self._held_since, self._held_why = time.monotonic(), why
            logger.warning("Robot `%s` holds still: %s", self._robot.id, why)

    def _react(self, trip: Trip | None) -> None:
        """Do what a rule asks for and does not end the arm's work."""
        assert self._bus is not None
        if trip is not None and trip.action is Action.HOLD:
            logger.warning("Robot `%s` holds where it is: %s", self._robot.id, trip.text)
            self._interrupted, self._path = trip, None
            self._let_go()
            self._state = replace(self._state, command_rad=self._told.copy(), pose_rad=self._pose.copy())
        loose = abs(self._told[GRIPPER] - self._measured[GRIPPER]) < _LOOSE_RAD
        weak = (self._weak_grip and not loose) or (trip is not None and trip.action is Action.WEAKEN)
        if weak != self._weak_grip:
            self._weak_grip = weak
            limits = self._torque.copy()
            limits[GRIPPER] = min(limits[GRIPPER], _WEAK_GRIP) if weak else limits[GRIPPER]
            self._bus.write_torque_limits(1000.0 * limits)

    def _let_go(self) -> None:
        """Want the joints to be where they are."""
        self._pose = self._told = self._wanted = self._measured.copy()
        self._held_up = _NOTHING

    @property
    def _busy(self) -> bool:
        return self._path is not None and self._stopped is None
