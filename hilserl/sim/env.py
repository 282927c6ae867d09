"""The simulated SO-101 as a Gymnasium environment."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import SimulationError
from hilserl.robot.codec import ActionCodec
from hilserl.robot.kinematics import HOME_RAD, Kinematics
from hilserl.robot.mujoco_import import mujoco
from hilserl.robot.state import assemble_state, joint_velocity
from hilserl.robot.units import GRIPPER, gripper_to_pct, gripper_to_rad
from hilserl.schema import IMAGE_PREFIX, STATE_KEY, state_components
from hilserl.sim.appearance import Appearance, sample_appearance
from hilserl.sim.privileged import PrivilegedState, potential, succeeds
from hilserl.sim.render import GlRenderer, Renderer, create_renderer
from hilserl.sim.scene import CUBE_HALF_M, VIDEO_CAMERA, VIDEO_OVERSAMPLING, VIDEO_SIZE, load_scene

Observation = dict[str, NDArray[Any]]

_ARM = slice(0, 6)
_RESET_TOLERANCE_M = 0.005


class So101Env(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One SO-101, one table, one cube, one task.

    Observations hold `observation.state` (float32, named components in the order of
    `schema.state_components`) and one `observation.images.<camera>` (uint8, H x W x 3, RGB, the
    camera's native size) per camera that the policy uses. Actions are decoded by the one
    `ActionCodec`. The reward is 1.0 at success, which ends the episode, else 0.0. With `task.reward: shaped`
    each step adds `discount * potential(next state) - potential(state)`, where the potential is in [-1, 0], and
    0 once the task has ended: that changes no comparison between policies (Ng, Harada and Russell 1999).

    Every step's `info` holds `is_success`, `true_success` (the same, since the simulator judges), `judged_by`,
    `executed_action` (A,) as clipped, `joint_target_rad` (6,) as commanded and `joint_pos_rad` (6,) as measured afterwards.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's contract)

    def __init__(self, config: TrainConfig, *, render_mode: str | None = None) -> None:
        """Build the scene.

        Args:
            config: The run's configuration.
            render_mode: None or `rgb_array`; `render()` draws a front view in both.

        Raises:
            SimulationError: The configuration asks for what the simulation does not have.
        """
        if render_mode not in (None, "rgb_array"):
            raise SimulationError(f"render_mode {render_mode!r} is unknown; valid: None, 'rgb_array'.")
        self.config = config
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": config.robot.control_hz}
        self.kinematics = Kinematics()
        self.codec = ActionCodec(config, self.kinematics)
        self._scene = load_scene(config.robot.cameras, config.robot.control_hz)
        self._model = self._scene.model
        self._data = mujoco.MjData(self._model)
        self._cube = slice(self._scene.cube_qpos, self._scene.cube_qpos + 7)
        self._cameras = {name: config.robot.cameras[name] for name in config.observation.images}
        self._renderer: Renderer | None = None
        self._appearance: Appearance | None = None
        self._worn: Appearance | None = None
        self._joint_pos: NDArray[np.floating[Any]] = np.zeros(6)
        middle = sum(config.task.cube_x_m) / 2, sum(config.task.cube_y_m) / 2, CUBE_HALF_M
        self._place(np.array(HOME_RAD), middle, 0.0)  # to be looked at: an episode begins with reset()
        self._previous: NDArray[np.floating[Any]] | None = None
        self._steps = 0
        self._held_steps = 0
        self._potential = 0.0
        self._running = False
        state_size = sum(len(component.labels) for component in state_components(config))
        spaces: dict[str, gymnasium.Space[Any]] = {STATE_KEY: gymnasium.spaces.Box(-np.inf, np.inf, (state_size,), np.float32)}
        for name, camera in self._cameras.items():
            spaces[IMAGE_PREFIX + name] = gymnasium.spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.codec.size,), np.float32)

    @property
    def joint_pos_rad(self) -> NDArray[np.floating[Any]]:
        """Joint angles measured last [rad], shape (6,)."""
        return self._joint_pos.copy()

    @property
    def privileged_state(self) -> PrivilegedState:
        """The true state of the scene, for the scripted expert and the simulated human."""
        cube = self._data.qpos[self._cube]
        tool, _ = self.kinematics.forward(self._joint_pos)
        yaw = math.atan2(2 * (cube[3] * cube[6] + cube[4] * cube[5]), 1 - 2 * (cube[5] ** 2 + cube[6] ** 2))
        return PrivilegedState(tool, cube[:3].copy(), yaw, self._joint_pos.copy(), gripper_to_pct(float(self._joint_pos[GRIPPER])))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: the arm at its reset pose, the cube at a random place and yaw.

        Args:
            seed: Makes this and the following episodes repeatable.
            options: `cube_m`: where the cube is put, base frame x and y [m]; the seed decides the rest as without it.

        Raises:
            SimulationError: The arm does not reach the configured reset position.
        """
        super().reset(seed=seed)
        robot, task, rng = self.config.robot, self.config.task, self.np_random
        wanted = np.array(robot.reset_ee_pos_m) + rng.uniform(-robot.reset_noise_m, robot.reset_noise_m, 3)
        joints, residual_m = self.kinematics.inverse_with_residual(np.array(HOME_RAD), wanted)
        if residual_m > _RESET_TOLERANCE_M:
            raise SimulationError(
                f"robot.reset_ee_pos_m {robot.reset_ee_pos_m} ± {robot.reset_noise_m} m: the arm ends {residual_m * 1000:.0f} mm away. "
                "Choose a point that it reaches, such as [0.22, 0, 0.12]."
            )
        joints[GRIPPER] = gripper_to_rad(robot.reset_gripper_pct)
        yaw = rng.uniform(-math.pi, math.pi)
        drawn = rng.uniform(*task.cube_x_m), rng.uniform(*task.cube_y_m)
        position = *(options or {}).get("cube_m", drawn), CUBE_HALF_M
        if task.appearance != "fixed":
            self._appearance = sample_appearance(rng, task.appearance)
        self._place(joints, position, yaw)
        self._previous = None
        self._steps = self._held_steps = 0
        self._potential = potential(task, self.privileged_state)
        self._running = True
        start = {"joint_pos_rad": self._joint_pos.copy(), "cube_pos_m": self._data.qpos[self._cube][:3].copy()}
        return self._observe(), {"is_success": False, **start}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action for one control period.

        Args:
            action: Policy action, shape (A,), clipped to [-1, 1].

        Returns:
            Observation, reward, terminated (the task was done), truncated (time is up), info.

        Raises:
            SimulationError: The episode has ended, or the physics diverged.
            RobotError: The action is not finite or has the wrong shape.
        """
        if not self._running:
            raise SimulationError("step() was called after the end of the episode. Call reset() first.")
        command = self.codec.decode(action, self._joint_pos)
        self._move(command.joint_target_rad)
        if not math.isfinite(self._data.qpos.sum()):
            self._running = False
            raise SimulationError(
                f"the physics diverged at step {self._steps} of the episode. Call reset(); report it with the seed and the actions."
            )
        self._previous, self._joint_pos = self._joint_pos, self._data.qpos[_ARM].copy()
        self._steps += 1
        self._held_steps = self._held_steps + 1 if succeeds(self.config.task, self.privileged_state) else 0
        terminated = self._held_steps >= self.config.task.success_hold_steps
        truncated = not terminated and self._steps >= self.config.episode_steps
        self._running = not (terminated or truncated)
        info = {
            "is_success": terminated,
            "judged_by": "simulator",
            "true_success": terminated,
            "executed_action": command.executed_action,
            "joint_target_rad": command.joint_target_rad,
            "joint_pos_rad": self._joint_pos.copy(),
        }
        return self._observe(), self._reward(terminated), terminated, truncated, info

    def _reward(self, terminated: bool) -> float:
        if self.config.task.reward == "sparse":
            return float(terminated)
        before, self._potential = self._potential, 0.0 if terminated else potential(self.config.task, self.privileged_state)
        return float(terminated) + self.config.policy.discount * self._potential - before

    def arrange(self, joint_pos_rad: ArrayLike, cube_pos_m: ArrayLike, cube_yaw_rad: float) -> None:
        """Put arm and cube somewhere without any physics, to take pictures; `reset` comes before `step`.

        Args:
            joint_pos_rad: Joint angles [rad], shape (6,).
            cube_pos_m: Centre of the cube, base frame [m], shape (3,).
            cube_yaw_rad: Direction of the cube around the vertical [rad].
        """
        self._running = False
        self._data.qpos[_ARM] = joint_pos_rad
        self._data.qpos[self._cube] = _cube_pose(cube_pos_m, cube_yaw_rad)
        self._joint_pos = self._data.qpos[_ARM].copy()
        mujoco.mj_kinematics(self._model, self._data)

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """Draw what the policy's cameras see now: (H, W, 3), uint8, RGB, by camera."""
        if not self._cameras:
            return {}
        renderer = self._drawing()
        return {name: renderer.render(self._data, name, camera.height, camera.width) for name, camera in self._cameras.items()}

    def sees_cube(self, camera: str) -> bool:
        """Tell whether the cube's centre falls into the picture of one of the policy's cameras."""
        self._place_cameras()
        index = self._model.camera(camera).id
        offset = self._data.qpos[self._cube][:3] - self._data.cam_xpos[index]
        x, y, z = offset @ self._data.cam_xmat[index].reshape(3, 3)
        half = -z * math.tan(math.radians(self._model.cam_fovy[index]) / 2)
        return bool(z < 0 and abs(y) < half and abs(x) < half * self._cameras[camera].width / self._cameras[camera].height)

    def render(self) -> NDArray[np.uint8]:
        """Draw the front view for videos, shape (256, 256, 3), uint8, RGB."""
        renderer = self._drawing()
        factor = VIDEO_OVERSAMPLING if isinstance(renderer, GlRenderer) else 1
        large = renderer.render(self._data, VIDEO_CAMERA, VIDEO_SIZE * factor, VIDEO_SIZE * factor)
        if factor == 1:
            return large
        blocks = large.reshape(VIDEO_SIZE, factor, VIDEO_SIZE, factor, 3)
        return blocks.mean(axis=(1, 3)).astype(np.uint8)

    def observe(self) -> Observation:
        """Look again, without moving; in a simulation, nothing has changed."""
        return self._observe()

    def close(self) -> None:
        """Free the graphics memory; safe to call twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _place(self, joints_rad: NDArray[np.floating[Any]], cube_m: tuple[float, ...], yaw_rad: float) -> None:
        """Put arm and cube where they are at rest."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[_ARM] = joints_rad
        self._data.qpos[self._cube] = _cube_pose(cube_m, yaw_rad)
        self._data.ctrl[:] = joints_rad
        mujoco.mj_forward(self._model, self._data)
        self._joint_pos = self._data.qpos[_ARM].copy()

    def _move(self, joint_target_rad: NDArray[np.floating[Any]]) -> None:
        """Advance one control period while the command glides to the target, as a servo's speed limit makes it.

        A jump of the command saturates the servos, and the tool overshoots by a tenth to two fifths.
        Gliding, the tool's motion along the command is 1.02 of it (median; 0.88 to 1.03).
        """
        data, start = self._data, self._data.ctrl.copy()
        step = (joint_target_rad - start) / self._scene.substeps
        for count in range(1, self._scene.substeps):
            data.ctrl[:] = start + step * count
            mujoco.mj_step(self._model, data)
        data.ctrl[:] = joint_target_rad
        mujoco.mj_step(self._model, data)
        mujoco.mj_kinematics(self._model, data)  # mj_step leaves positions one physics step behind

    def _observe(self) -> Observation:
        velocity = joint_velocity(self._joint_pos, self._previous, self.config.robot.control_hz)
        cube = self._data.qpos[self._cube][:3]
        state = assemble_state(self.config, self.kinematics, self._joint_pos, velocity, cube)
        return {STATE_KEY: state} | {IMAGE_PREFIX + name: picture for name, picture in self.pictures().items()}

    def _drawing(self) -> Renderer:
        if self._renderer is None:
            self._renderer = create_renderer(self._scene)
        if self._appearance is not None and self._appearance is not self._worn:
            self._renderer.dress(self._appearance)
            self._worn = self._appearance
        self._place_cameras()
        return self._renderer

    def _place_cameras(self) -> None:
        mujoco.mj_comPos(self._model, self._data)  # cameras and lights follow the bodies
        mujoco.mj_camlight(self._model, self._data)


def _cube_pose(position_m: ArrayLike, yaw_rad: float) -> NDArray[np.floating[Any]]:
    """Compute position and quaternion, shape (7,), of an upright cube."""
    return np.array([*np.asarray(position_m), math.cos(yaw_rad / 2), 0.0, 0.0, math.sin(yaw_rad / 2)])
