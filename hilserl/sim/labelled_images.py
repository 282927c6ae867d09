"""Pictures with known cube positions, for pretraining the vision encoder in simulation.

Half of them show random reachable poses, half come from noisy rollouts of the scripted expert, so
that both the whole workspace and the states of the task are covered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.errors import SimulationError
from hilserl.progress import Progress, publish
from hilserl.robot.kinematics import HOME_RAD, euler
from hilserl.robot.units import GRIPPER, gripper_to_rad
from hilserl.sim.env import So101Env
from hilserl.sim.expert import ScriptedExpert
from hilserl.sim.scene import CUBE_HALF_M, simulated_camera

LABEL_NAMES = ("cube_in_tool.x", "cube_in_tool.y", "cube_in_tool.z", "cube_yaw4.cos", "cube_yaw4.sin", "cube_visible")
"""Cube's centre in the tool frame [m]; cosine and sine of four times its yaw relative to the tool's
(a quarter turn looks the same); 1 where its centre falls into the wrist camera's picture (without one, the first camera's)."""

STAGE = "pretrain-encoder"

_ROLLOUT_SHARE = 0.5
_ROLLOUT_NOISE = 0.4
_NEAR_CUBE_SHARE = 0.5
_NEAR_CUBE_M = 0.04
_HELD_SHARE = 0.2
_CUBE_MARGIN_M = 0.02
_REACHED_M = 0.005
_REPORT_EVERY = 50


@dataclass(frozen=True)
class LabelledImages:
    """Pictures and what they show.

    Attributes:
        images: Per camera, shape (N, H, W, 3), uint8, RGB, the camera's native size.
        labels: Shape (N, L), float32.
        label_names: Names of the L labels.
    """

    images: dict[str, NDArray[np.uint8]]
    labels: NDArray[np.float32]
    label_names: tuple[str, ...]


def sample_labelled_images(config: TrainConfig, count: int, seed: int) -> LabelledImages:
    """Render labelled pictures of the configured task, for every camera that the policy uses.

    Args:
        config: The run's configuration.
        count: How many pictures of each camera.
        seed: Equal seeds give equal pictures on one machine.

    Raises:
        SimulationError: The policy uses no camera.
    """
    cameras = {name: config.robot.cameras[name] for name in config.observation.images}
    if not cameras:
        raise SimulationError(
            "observation.images is empty: there is nothing to render for the encoder. Name a camera, such as `wrist: {}`."
        )
    on_wrist = [name for name, camera in cameras.items() if simulated_camera(name, camera) == "wrist"]
    labelled = on_wrist[0] if on_wrist else next(iter(cameras))
    images = {name: np.empty((count, camera.height, camera.width, 3), np.uint8) for name, camera in cameras.items()}
    labels = np.empty((count, len(LABEL_NAMES)), np.float32)
    rng = np.random.default_rng(seed)
    env = So101Env(config)
    try:
        rollouts, poses = _rollout_scenes(env, rng), _random_scenes(env, rng)
        env.reset(seed=seed)
        rollout_count = round(count * _ROLLOUT_SHARE)
        for index in range(count):
            pictures = next(rollouts if index < rollout_count else poses)
            for name, picture in pictures.items():
                images[name][index] = picture
            labels[index] = _label(env, labelled)
            if index % _REPORT_EVERY == 0 or index == count - 1:
                publish(Progress(STAGE, index + 1, count, "images", "render labelled pictures"))
    finally:
        env.close()
    order = rng.permutation(count)
    return LabelledImages({name: stack[order] for name, stack in images.items()}, labels[order], LABEL_NAMES)


def _rollout_scenes(env: So101Env, rng: np.random.Generator) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Let the noisy expert work, and yield the pictures of every step."""
    expert = ScriptedExpert(env.config)
    while True:
        observation, _ = env.reset()
        expert.reset()
        running = True
        while running:
            yield {name: observation[f"observation.images.{name}"] for name in env.config.observation.images}
            action = expert.action(env.privileged_state)
            noisy = np.clip(action + rng.normal(0.0, _ROLLOUT_NOISE, action.shape), -1.0, 1.0).astype(np.float32)
            observation, _, terminated, truncated, _ = env.step(noisy)
            running = not (terminated or truncated)


def _random_scenes(env: So101Env, rng: np.random.Generator) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Put arm and cube at random, and yield the pictures."""
    robot, task = env.config.robot, env.config.task
    low, high = np.array(robot.workspace_min_m), np.array(robot.workspace_max_m)
    cube_low = np.array([task.cube_x_m[0] - _CUBE_MARGIN_M, task.cube_y_m[0] - _CUBE_MARGIN_M, CUBE_HALF_M])
    cube_high = np.array([task.cube_x_m[1] + _CUBE_MARGIN_M, task.cube_y_m[1] + _CUBE_MARGIN_M, CUBE_HALF_M])
    start = env.kinematics.inverse(np.array(HOME_RAD), robot.reset_ee_pos_m)
    while True:
        cube = rng.uniform(cube_low, cube_high)
        if rng.random() < _NEAR_CUBE_SHARE:
            tool = np.clip(cube + rng.normal(0.0, _NEAR_CUBE_M, 3) * (1, 1, 0) + (0, 0, abs(rng.normal(0.0, 2 * _NEAR_CUBE_M))), low, high)
        else:
            tool = rng.uniform(low, high)
        joints, residual_m = env.kinematics.inverse_with_residual(start, tool, max_turn_rad=rng.uniform(0.0, 1.0))
        if residual_m > _REACHED_M:
            continue
        joints[GRIPPER] = gripper_to_rad(_random_gripper_pct(env.config, rng))
        if task.type == "lift" and rng.random() < _HELD_SHARE:
            joints[GRIPPER] = gripper_to_rad(rng.uniform(10.0, 25.0))
            position, rotation = env.kinematics.forward(joints)
            cube = position + rotation @ rng.uniform((-0.002, -0.006, -0.008), (0.010, 0.006, 0.006))
        env.arrange(joints, cube, rng.uniform(-math.pi, math.pi))
        yield env.pictures()


def _random_gripper_pct(config: TrainConfig, rng: np.random.Generator) -> float:
    if config.task.type == "reach":  # the gripper is held
        return config.robot.reset_gripper_pct
    return float(rng.uniform(0.0, 100.0))


def _label(env: So101Env, camera: str) -> NDArray[np.floating[Any]]:
    """Compute the labels of the present scene, shape (L,)."""
    state = env.privileged_state
    _, rotation = env.kinematics.forward(state.joint_pos_rad)
    cube_in_tool = rotation.T @ (state.cube_pos_m - state.tool_pos_m)
    turn = 4 * (state.cube_yaw_rad - float(euler(rotation)[2]))
    return np.array([*cube_in_tool, math.cos(turn), math.sin(turn), float(env.sees_cube(camera))])
