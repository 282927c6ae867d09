"""A SO-101 on a servo bus as a Gymnasium environment: the same interface, actions and observations as the simulation's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import RobotError
from hilserl.robot.arm import Arm, ArmState
from hilserl.robot.cameras import Cameras, Image
from hilserl.robot.codec import ActionCodec, JointTarget
from hilserl.robot.kinematics import HOME_RAD, Kinematics
from hilserl.robot.state import assemble_state, joint_velocity
from hilserl.robot.units import GRIPPER, gripper_to_rad
from hilserl.robot.way_back import WayBack
from hilserl.schema import IMAGE_PREFIX, STATE_KEY, state_components

Array = NDArray[np.floating[Any]]
Observation = dict[str, NDArray[Any]]

_REACHABLE_M = 0.005
_CHANGED_RAD = 1e-6
_MAX_TURN_RAD_S = 1.0  # 0.1 rad from rest to rest takes a servo 0.1 s at its greatest `Acceleration`, 25,400 ticks/s^2
_PRESSES, _STILL_RAD_S = 0.6, 0.15
_MAX_SAG_RAD = 0.12  # servos that hang lower than this are not held up any further


@dataclass(frozen=True)
class Judgement:
    """What there is to say about the task at one moment.

    Attributes:
        succeeds: Its condition holds.
        potential: How near it is to being done, -1 (far) to 0, for `task.reward: shaped`.
        cube_pos_m: Where the cube is, base frame [m], shape (3,); None: nobody knows.
    """

    succeeds: bool
    potential: float = 0.0
    cube_pos_m: Array | None = None


class Referee(Protocol):
    """Arranges the scene for an episode and judges it: a success classifier, or a virtual arm's own truth."""

    def begin(self, generator: np.random.Generator) -> None:
        """Arrange the scene; the arm is where an episode begins."""

    def judge(self, joint_pos_rad: Array, images: dict[str, Image]) -> Judgement:
        """Look at the arm [rad], shape (6,), and at the native frames by camera."""


class So101Arm(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One SO-101 on a servo bus.

    A step moves the command to its target over the control period, and reads cameras and joints when that is over, right before it
    returns: the policy acts on what is. It keeps the period by the ticks of the arm: time that the policy takes is not added.

    Every step's `info` holds `is_success`, `executed_action` (A,) after all clipping, in the policy's space; `joint_target_rad` (6,)
    as commanded, `joint_pos_rad` (6,) as measured afterwards; `clips`, how often limits changed the command, by reason;
    `interrupted`, the rule that let the arm hold before the step was over, or None; and the ages when it returned, `frame_age_s` and
    `state_age_s`.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 (Gymnasium's contract)

    def __init__(self, config: TrainConfig, referee: Referee, *, lock_step: bool = False) -> None:
        """Connect cameras and arm; the arm holds where it lies.

        Args:
            config: The run's configuration.
            referee: Judges the task.
            lock_step: The arm's time passes only with its goals.

        Raises:
            RobotError: A camera or the arm is missing, or may not be used.
        """
        self.config = config
        self.metadata = {**self.metadata, "render_fps": config.robot.control_hz}
        self._referee = referee
        self._lock_step = lock_step
        self._ticks = round(config.robot.bus_hz / config.robot.control_hz)
        self._end_tick = 0
        self._previous: Array | None = None
        self._steps = self._held_steps = 0
        self._potential = 0.0
        self._running = False
        cameras = {name: config.robot.cameras[name] for name in config.observation.images}
        state_size = sum(len(component.labels) for component in state_components(config))
        spaces: dict[str, gymnasium.Space[Any]] = {STATE_KEY: gymnasium.spaces.Box(-np.inf, np.inf, (state_size,), np.float32)}
        for name, camera in cameras.items():
            spaces[IMAGE_PREFIX + name] = gymnasium.spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(config.action_names),), np.float32)
        self.cameras = Cameras(cameras)
        self.arm = Arm(config.robot, lock_step=lock_step)
        self.arm.hold_still = self.cameras.stale
        try:
            self.arm.connect()
        except BaseException:
            self.cameras.close()
            raise
        self.kinematics = Kinematics(self.arm.limits.lower_rad, self.arm.limits.upper_rad)
        self._way_back = WayBack(config.robot, self.arm, self.kinematics)
        self.codec = ActionCodec(config, self.kinematics, max_turn_rad_s=_MAX_TURN_RAD_S)
        self._joint_pos = self.arm.state.joint_pos_rad

    @property
    def joint_pos_rad(self) -> Array:
        """Joint angles measured last [rad], shape (6,), for the leader arm."""
        return self._joint_pos.copy()

    def observe(self) -> Observation:
        """Look again, without moving: what is now, after a pause."""
        return self._look()[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Move the arm to where an episode begins (`WayBack`), and start one.

        Args:
            seed: Makes the random numbers of this and the following episodes repeatable.
            options: Not used.

        Raises:
            BlockedError: Something is in its way, also along the way that it came.
            RobotError: The arm was stopped, or misses the start by more than the starts differ from each other.
        """
        super().reset(seed=seed)
        self._running = False
        robot, generator = self.config.robot, self.np_random
        wanted_m = np.array(robot.reset_ee_pos_m) + generator.uniform(-robot.reset_noise_m, robot.reset_noise_m, 3)
        joints, residual_m = self.kinematics.inverse_with_residual(np.array(HOME_RAD), wanted_m)
        if residual_m > _REACHABLE_M:
            raise RobotError(
                f"robot.reset_ee_pos_m {robot.reset_ee_pos_m} ± {robot.reset_noise_m} m: the arm ends {residual_m * 1000:.0f} mm away. "
                "Choose a point that it reaches, such as [0.22, 0, 0.12]."
            )
        joints[GRIPPER] = gripper_to_rad(robot.reset_gripper_pct)
        error_m = self._way_back.go(joints, wanted_m)
        self._referee.begin(generator)
        self._previous = None
        self._steps = self._held_steps = 0
        observation, judgement, _ = self._look()
        self._potential = judgement.potential
        self._end_tick = self.arm.state.tick
        self._running = True
        start = {"joint_pos_rad": self._joint_pos.copy(), "reset_error_m": error_m, "cube_pos_m": judgement.cube_pos_m}
        return observation, {"is_success": False, **start}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action for one control period.

        Args:
            action: Policy action, shape (A,), clipped to [-1, 1].

        Returns:
            Observation, reward, terminated (the task was done), truncated (time is up), info.

        Raises:
            RobotError: The episode has ended, the action is not finite or has the wrong shape, or the arm was stopped.
        """
        if not self._running:
            raise RobotError("step() was called after the end of the episode. Call reset() first.")
        measured, clips_before = self._joint_pos, self.arm.state.clips
        wanted = self.codec.decode(action, measured)
        try:
            state, interrupted = self._move(wanted.joint_target_rad, self._sag_rad())
            target = state.pose_rad
            executed = self._executed(wanted, measured, target)
            self._previous = measured
            observation, judgement, frame_age_s = self._look()
            if interrupted is None:
                self._way_back.came_by(self._joint_pos)
        except RobotError:
            self._running = False
            raise
        self._steps += 1
        self._held_steps = self._held_steps + 1 if judgement.succeeds else 0
        terminated = self._held_steps >= self.config.task.success_hold_steps
        truncated = not terminated and self._steps >= self.config.episode_steps
        self._running = not (terminated or truncated)
        clips = {name: count - clips_before.by_reason[name] for name, count in self.arm.state.clips.by_reason.items()}
        info = {
            "is_success": terminated,
            "executed_action": executed,
            "joint_target_rad": target,
            "joint_pos_rad": self._joint_pos.copy(),
            "clips": clips,
            "interrupted": interrupted,
            "frame_age_s": frame_age_s,
            "state_age_s": 0.0 if self._lock_step else time.monotonic() - self._seen_at,
        }
        return observation, self._reward(terminated, judgement), terminated, truncated, info

    def close(self) -> None:
        """Lay the arm down where it was found, and let go of everything; safe to call twice."""
        self._running = False
        try:
            self._park()
        finally:
            self.arm.close()
            self.cameras.close()

    # Moving

    def _move(self, target_rad: Array, held_up_rad: Array) -> tuple[ArmState, str | None]:
        """Move the arm over the rest of this control period."""
        now = self.arm.state.tick
        ticks = self._end_tick + self._ticks - now
        if not self._ticks // 2 <= ticks <= self._ticks:  # the policy took too long: that is not made up for
            ticks = self._ticks
        self._end_tick = now + ticks
        state = self.arm.follow(target_rad, ticks, held_up_rad=held_up_rad)
        if (trip := self.arm.interrupted) is None:
            return state, None
        if (left := self._end_tick - state.tick) > 0:
            state = self.arm.follow(state.pose_rad, left)
        return state, trip.rule

    def _sag_rad(self) -> Array:
        """Return how far the body joints hang below their command [rad], shape (6,).

        An action is relative to what is measured. A servo gives way under the arm's weight, and commanding it to where it hangs
        would let it sink again, step by step.
        """
        state = self.arm.state
        sag: Array = np.clip(state.command_rad - state.joint_pos_rad, -_MAX_SAG_RAD, _MAX_SAG_RAD)
        presses = (np.abs(state.bus.load) > _PRESSES * state.bus.torque_limit) & (np.abs(state.joint_vel_rad_s) < _STILL_RAD_S)
        sag[presses] = 0.0  # that is no weight: it leans on something
        sag[GRIPPER] = 0.0
        return sag

    def _executed(self, wanted: JointTarget, measured: Array, target: Array) -> NDArray[np.float32]:
        """Return the action that was executed: as decoded, or what limits and rules left of it."""
        if np.abs(target - wanted.joint_target_rad).max() < _CHANGED_RAD:
            return wanted.executed_action
        return self.codec.encode(measured, target)[0]

    def _park(self) -> None:
        """Go back to where the arm lay when it was connected, if it can move; it lands wherever it is otherwise."""
        if self.arm.stopped is not None:
            return
        try:
            self._way_back.rise(self.config.robot.reset_ee_pos_m[2])
            self.arm.move_to(self.arm.rest_rad, self.config.robot.reset_speed_rad_s)
        except RobotError:
            self.arm.hold()

    # Seeing

    def _look(self) -> tuple[Observation, Judgement, float]:
        """Return what is now: the observation, what it means, and the age of its oldest frame [s]."""
        images, frame_age_s = self.cameras.read()
        state = self.arm.state
        self._joint_pos, self._seen_at = state.joint_pos_rad, state.at
        judgement = self._referee.judge(self._joint_pos, images)
        velocity = joint_velocity(self._joint_pos, self._previous, self.config.robot.control_hz)
        vector = assemble_state(self.config, self.kinematics, self._joint_pos, velocity, judgement.cube_pos_m)
        pictures: Observation = {IMAGE_PREFIX + name: image for name, image in images.items()}
        return {STATE_KEY: vector} | pictures, judgement, frame_age_s

    def _reward(self, terminated: bool, judgement: Judgement) -> float:
        if self.config.task.reward == "sparse":
            return float(terminated)
        before, self._potential = self._potential, 0.0 if terminated else judgement.potential
        return float(terminated) + self.config.policy.discount * self._potential - before
