"""The feature schema: what every observation and action *is*, by name.

Dataset, environment, policy and checkpoint each declare one, and every seam compares them by
name, so an anonymous vector of 18 numbers never meets another one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError
from hilserl.files import content_hash

JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
STATE_KEY = "observation.state"
ACTION_KEY = "action"
IMAGE_PREFIX = "observation.images."


@dataclass(frozen=True)
class StateComponent:
    """One named part of `observation.state`.

    Attributes:
        name: Such as `joint_pos`.
        labels: Name of each scalar, without the component's name.
        unit: Physical unit.
        limit: Declared bound of the absolute value, in `unit`; data far outside is in another unit.
        resolution: Smallest range that carries information, in `unit`.
    """

    name: str
    labels: tuple[str, ...]
    unit: str
    limit: float
    resolution: float

    @property
    def scalars(self) -> tuple[str, ...]:
        """Full names of the scalars, such as `joint_pos.elbow_flex`."""
        return tuple(f"{self.name}.{label}" for label in self.labels)


# joint_pos limit: the widest SO-101 joint (wrist_roll ±157.2 deg, TheRobotStudio MJCF) plus margin.
# joint_vel limit: STS3215 no-load speed at 7.4 V is about 52 rpm = 5.4 rad/s.
STATE_COMPONENTS = {
    component.name: component
    for component in (
        StateComponent("joint_pos", JOINT_NAMES, "rad", 3.2, 0.005),
        StateComponent("joint_vel", JOINT_NAMES, "rad/s", 6.0, 0.01),
        StateComponent("ee_pos", ("x", "y", "z"), "m", 0.6, 0.002),
        StateComponent("ee_euler", ("roll", "pitch", "yaw"), "rad", math.pi, 0.005),
        StateComponent("cube_from_tool", ("x", "y", "z"), "m", 0.6, 0.002),  # simulation only
    )
}


@dataclass(frozen=True)
class Feature:
    """One entry of an observation or the action: shape, dtype, unit and names of its scalars."""

    shape: tuple[int, ...]
    dtype: str
    unit: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureSchema:
    """Observation parts and action of one policy."""

    observation: dict[str, Feature]
    action: Feature

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    def hash(self) -> str:
        """Identify the schema: equal schemas have equal hashes."""
        return content_hash(self.to_dict())

    def differences(self, other: FeatureSchema) -> list[str]:
        """Compare by name; one sentence per difference, `self` first. Empty when equal."""
        found = []
        mine, theirs = self.observation | {ACTION_KEY: self.action}, other.observation | {ACTION_KEY: other.action}
        for key in sorted(mine.keys() | theirs.keys()):
            if key not in theirs:
                found.append(f"`{key}` exists only on the first side")
            elif key not in mine:
                found.append(f"`{key}` exists only on the second side")
            elif mine[key] != theirs[key]:
                found.append(f"`{key}` differs: {mine[key]} against {theirs[key]}")
        return found


def state_components(config: TrainConfig) -> tuple[StateComponent, ...]:
    """Return the named components of this run's `observation.state`, in order."""
    if config.env is not None:
        return tuple(_of_environment(name, config) for name in config.observation.state)
    names = config.observation.state + (("cube_from_tool",) if config.observation.privileged else ())
    return tuple(STATE_COMPONENTS[name] for name in names)


def _of_environment(name: str, config: TrainConfig) -> StateComponent:
    """Describe a part of a Gymnasium environment's observation; its unit is the environment's affair."""
    if config.env is None or config.env.spaces is None:
        raise ConfigError("the environment's spaces are not known yet: load the configuration with `load_config` or `resolve_environment`")
    size = len(config.env.spaces.vectors[name].low)
    return StateComponent(name, tuple(str(index) for index in range(size)), "env", math.inf, 0.0)


def policy_schema(config: TrainConfig) -> FeatureSchema:
    """Declare what the policy of `config` sees and does.

    Images are uint8 (H, W, C), 0-255, RGB, after the preprocessor.
    """
    components = state_components(config)
    names = tuple(scalar for component in components for scalar in component.scalars)
    observation = {STATE_KEY: Feature((len(names),), "float32", "+".join(c.unit for c in components), names)}
    for camera, image in config.observation.images.items():
        observation[IMAGE_PREFIX + camera] = Feature((*image.resize, 3), "uint8", "0-255 RGB", ("height", "width", "channel"))
    action = Feature((len(config.action_names),), "float32", "[-1, 1]", config.action_names)
    return FeatureSchema(observation, action)
