"""Read from a Gymnasium environment what it sees and does, and fit a configuration to it.

A configuration names only the environment's id. What its spaces are is asked once, when the configuration
is loaded, and stands in it from then on (`env.spaces`), so that schema, networks and buffers follow from
the configuration alone, in every process and on every host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import ValidationError

from hilserl.config.environment import CameraConfig, EnvConfig, EnvSpaces, ImageConfig, VectorSpec
from hilserl.config.learning import EncoderConfig
from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError

NO_STATE = "nothing"  # the state of an environment that shows images alone: one zero
MIN_IMAGE_PX = 24  # each way, for `encoder.type: cnn`
_HUGE = 1e6  # a bound this large says nothing: Gymnasium's tasks use the largest float for "none"


def resolve_environment(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the environment's spaces in it, and what follows from them; others as they are.

    The policy sees all vectors and images unless `observation` chooses; images keep their size unless it says
    otherwise, and are encoded by a network trained with the critic. The environment is not paced.

    Raises:
        ConfigError: There is no such environment, or it has spaces that cannot be learned from.
    """
    env = config.env
    if env is None or env.spaces is not None:
        return config
    environment = make_gymnasium(env)
    try:
        steps = env.max_episode_steps or (environment.spec.max_episode_steps if environment.spec else None)
        spaces = read_spaces(environment.observation_space, environment.action_space, f"`{env.id}`")
    finally:
        environment.close()
    if steps is None:
        raise ConfigError(f"`{env.id}` has no time limit, so an episode might never end. Set `env.max_episode_steps`.")
    values = config.model_dump()
    values["env"] |= {"spaces": spaces.model_dump(), "max_episode_steps": steps}
    values["robot"]["cameras"] = {
        name: {**CameraConfig().model_dump(), "height": shape[0], "width": shape[1]} for name, shape in spaces.images.items()
    }
    values["observation"] |= {"images": _images(config, spaces), "state": _vectors(config, spaces)}
    if values["observation"]["images"] and "encoder" not in config.model_fields_set:
        values["encoder"] = EncoderConfig(type="cnn", freeze=False).model_dump()
    if "pace" not in config.actor.model_fields_set:
        values["actor"]["pace"] = "unthrottled"
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors())
        raise ConfigError(f"`env.id: {env.id}`: {problems}.") from None


def make_gymnasium(env: EnvConfig, render_mode: str | None = None) -> Any:
    """Make the environment itself, with its own spaces.

    Raises:
        ConfigError: It is not registered, or something that it needs is not installed.
    """
    import gymnasium

    options: dict[str, Any] = {"max_episode_steps": env.max_episode_steps, "render_mode": render_mode}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        return gymnasium.make(env.id, disable_env_checker=True, **options, **env.kwargs)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
        if isinstance(error, TypeError) and env.kwargs:
            raise ConfigError(f"`env.kwargs: {env.kwargs}` do not suit `{env.id}` ({problem}).") from error
        raise ConfigError(
            f"`env.id: {env.id}` cannot be made ({problem}). An environment of your own is named `module:Id-v0`: "
            "`module` is imported, and registers it."
        ) from error


def read_spaces(observation: Any, action: Any, where: str) -> EnvSpaces:
    """Describe an environment's spaces.

    Args:
        observation: Box, or a Dict (of Dicts) of Box: an image is uint8 (H, W, 3), (H, W, 1) or (H, W), anything else a vector.
        action: Box of one dimension with finite bounds.
        where: Names the environment in an error.

    Raises:
        ConfigError: Says which part cannot be learned from, and what to do.
    """
    vectors: dict[str, VectorSpec] = {}
    images: dict[str, tuple[int, ...]] = {}
    for name, space in observation_parts(observation, where):
        if name in vectors or name in images:
            raise ConfigError(f"{where}: two parts of the observation are called `{name}`. Rename one in a wrapper.")
        if _is_image(space, name, where):
            images[name] = tuple(space.shape)
        else:
            vectors[name] = VectorSpec(low=_bounds(space.low), high=_bounds(space.high))
    if not vectors:
        vectors[NO_STATE] = VectorSpec(low=(None,), high=(None,))
    return EnvSpaces(vectors=vectors, images=images, **_action_bounds(action, where))


def observation_parts(space: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, Box) of an observation's parts: the path of Dict keys joined by `_`; `state` or `image` where there is no Dict."""
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        yield ("image" if space.dtype == np.uint8 and len(space.shape) > 1 else "state"), space
        return
    if not isinstance(space, spaces.Dict):
        raise ConfigError(f"{where} observes a {type(space).__name__}; Box, and Dict of Box, can be learned from. {_WRAP}")
    for path, part in _leaves(space, ()):
        if not isinstance(part, spaces.Box):
            raise ConfigError(f"{where}: `{'.'.join(path)}` of the observation is a {type(part).__name__}, not a Box. {_WRAP}")
        yield part_name(path), part


def part_name(path: tuple[str, ...]) -> str:
    """Name the part of an observation at a path of Dict keys; no dots, which separate the names of networks."""
    return "_".join(path).replace(".", "_")


_WRAP = "Turn it into numbers in a wrapper of your own (`gymnasium.wrappers.TransformObservation`), such as one-hot for a Discrete."


def _leaves(space: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    from gymnasium import spaces

    for key, part in space.spaces.items():
        if isinstance(part, spaces.Dict):
            yield from _leaves(part, (*path, str(key)))
        else:
            yield (*path, str(key)), part


def _is_image(space: Any, name: str, where: str) -> bool:
    shape = space.shape
    if space.dtype != np.uint8 or len(shape) < 2:
        return False
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        return True
    if len(shape) == 3 and shape[0] in (1, 3):
        raise ConfigError(
            f"{where}: `{name}` is uint8 {shape}, an image with its channels first; images are (height, width, channels). Wrap the "
            "environment: `gymnasium.wrappers.TransformObservation(env, lambda x: x.transpose(1, 2, 0), observation_space)`."
        )
    raise ConfigError(f"{where}: `{name}` is uint8 {shape}; images are (H, W, 3), (H, W, 1) or (H, W), without stacked frames. {_WRAP}")


def _action_bounds(space: Any, where: str) -> dict[str, tuple[float, ...]]:
    from gymnasium import spaces

    if not isinstance(space, spaces.Box):
        raise ConfigError(
            f"{where} acts in a {type(space).__name__}; SAC acts in a Box of real numbers. For discrete actions take an algorithm "
            "made for them, such as DQN."
        )
    if len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise ConfigError(f"{where} acts in a {space.dtype} Box of shape {space.shape}; a floating-point Box of shape (A,) is needed.")
    unbounded = [i for i in range(space.shape[0]) if not (abs(space.low[i]) < _HUGE and abs(space.high[i]) < _HUGE)]
    if unbounded:
        raise ConfigError(
            f"{where}: action {unbounded[0]} is bounded by {space.low[unbounded[0]]} and {space.high[unbounded[0]]}; the policy acts in "
            "[-1, 1], which is scaled to finite bounds. Set them with `gymnasium.wrappers.RescaleAction` or in the environment."
        )
    if not (space.low < space.high).all():
        raise ConfigError(f"{where}: an action's lower bound is not below its upper one: {space.low} and {space.high}.")
    return {"action_low": tuple(map(float, space.low)), "action_high": tuple(map(float, space.high))}


def _bounds(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(float(value) if math.isfinite(value) and abs(value) < _HUGE else None for value in values.ravel())


def _images(config: TrainConfig, spaces: EnvSpaces) -> dict[str, Any]:
    """Return the images that the policy sees: those that the configuration names, or all, at the size it names, or their own."""
    named = config.observation.images if "images" in config.observation.model_fields_set else None
    images = dict.fromkeys(spaces.images, ImageConfig()) if named is None else named
    if unknown := [name for name in images if name not in spaces.images]:
        raise ConfigError(f"observation.images.{unknown[0]}: the environment has no such image; it has {sorted(spaces.images) or 'none'}.")
    sized = {
        name: image.model_dump() | ({} if "resize" in image.model_fields_set else {"resize": _size(spaces.images[name], image)})
        for name, image in images.items()
    }
    for name, image in sized.items():
        if min(image["resize"]) < MIN_IMAGE_PX:
            raise ConfigError(
                f"observation.images.{name}: {image['resize']} (height, width) is less than the {MIN_IMAGE_PX} px that the smallest "
                "encoder needs. Enlarge it in a wrapper, flatten it into a vector there, or leave it out: `observation: {images: {}}`."
            )
    return sized


def _size(shape: tuple[int, ...], image: ImageConfig) -> tuple[int, int]:
    return (shape[0], shape[1]) if image.crop is None else (image.crop[2], image.crop[3])


def _vectors(config: TrainConfig, spaces: EnvSpaces) -> tuple[str, ...]:
    if "state" not in config.observation.model_fields_set:
        return tuple(spaces.vectors)
    if not config.observation.state:
        raise ConfigError(f"observation.state: name at least one of the environment's vectors: {sorted(spaces.vectors)}.")
    if unknown := [name for name in config.observation.state if name not in spaces.vectors]:
        raise ConfigError(f"observation.state: the environment has no vector `{unknown[0]}`; it has {sorted(spaces.vectors) or 'none'}.")
    return config.observation.state
