"""Make the environment of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilserl.config.models import TrainConfig

if TYPE_CHECKING:
    from hilserl.environments.gymnasium_environment import GymnasiumEnvironment
    from hilserl.environments.judged import JudgedEnvironment
    from hilserl.robot.environment import So101Arm
    from hilserl.sim.env import So101Env


def make_environment(
    config: TrainConfig, *, render_mode: str | None = None
) -> So101Env | So101Arm | GymnasiumEnvironment | JudgedEnvironment:
    """Build the SO-101, simulated, virtual or real, or the Gymnasium environment in its place; with who says success (`task.success`).

    Args:
        config: The run's configuration, as `load_config` returns it.
        render_mode: None, or `rgb_array` to draw pictures for a video.

    Raises:
        ConfigError: There is no such environment, it has changed since the configuration was loaded, or the success classifier looks
            at something else.
        SimulationError: The configuration asks for what the simulation does not have.
        RobotError: The arm or a camera is missing, or may not be used.
        CheckpointError: The success classifier is missing or damaged.
    """
    if config.env is not None:
        from hilserl.environments.gymnasium_environment import GymnasiumEnvironment

        return GymnasiumEnvironment(config, render_mode=render_mode)
    if config.success_by == "simulator":
        return _so101(config, render_mode)
    from hilserl.environments.judged import JudgedEnvironment, disagreements_of, open_judge, unjudged

    judge = open_judge(config)  # first: an arm that nobody could judge is not connected
    return JudgedEnvironment(_so101(unjudged(config, judge), render_mode), config, judge, disagreements_of(config, judge))


def _so101(config: TrainConfig, render_mode: str | None) -> So101Env | So101Arm:
    if config.robot.virtual is not None:
        from hilserl.environments.virtual_arm import VirtualSo101Arm

        return VirtualSo101Arm(config, render_mode=render_mode)
    if config.robot.is_real:
        from hilserl.environments.real_arm import make_real_arm

        return make_real_arm(config)
    from hilserl.sim.env import So101Env

    return So101Env(config, render_mode=render_mode)
