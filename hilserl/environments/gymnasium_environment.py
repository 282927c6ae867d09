"""Any Gymnasium environment with vectors or images and continuous actions, as the policy sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from hilserl.config.gymnasium_spaces import NO_STATE, make_gymnasium, part_name, read_spaces
from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError, SimulationError
from hilserl.schema import IMAGE_PREFIX, STATE_KEY

Observation = dict[str, NDArray[Any]]


class GymnasiumEnvironment(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Names its observation's parts as the schema does, and takes actions in [-1, 1].

    `observation.state` (S,) float32 holds the chosen vectors one after the other, as they come (scaling is the
    policy's affair); `observation.images.<name>` is uint8 (H, W, 3), gray images three times the same channel.
    An action is clipped to [-1, 1] and scaled to the bounds of the environment. Rewards stay as they are.

    Every step's `info` holds `executed_action` (A,) as clipped, and `is_success`: the entry `env.success_key` of
    the environment's info, False where none is configured.
    """

    def __init__(self, config: TrainConfig, *, render_mode: str | None = None) -> None:
        """Make the environment of `config.env`.

        Args:
            config: With the environment's spaces in it (`load_config`, `resolve_environment`).
            render_mode: None or `rgb_array`.

        Raises:
            ConfigError: It cannot be made, or has other spaces here than those that the configuration was made with.
        """
        assert config.env is not None and config.env.spaces is not None, "resolve_environment comes first"
        self.render_mode = render_mode
        self._env = make_gymnasium(config.env, render_mode)
        self._id, self._success_key, self._spaces = config.env.id, config.env.success_key, config.env.spaces
        found = read_spaces(self._env.observation_space, self._env.action_space, f"`{self._id}`")
        if found != self._spaces:
            self._env.close()
            raise ConfigError(
                f"`{self._id}` has other spaces on this machine than the configuration says: {found} here, {self._spaces} there. "
                "Install the same version of the environment on every host."
            )
        self.metadata = {**self._env.metadata, "render_modes": ["rgb_array"]}
        self._vectors, self._images = config.observation.state, tuple(config.observation.images)
        self._low, self._high = np.array(self._spaces.action_low), np.array(self._spaces.action_high)
        self._action_dtype = self._env.action_space.dtype
        self._running = False
        low = np.array([_or(bound, -np.inf) for name in self._vectors for bound in self._spaces.vectors[name].low], np.float32)
        high = np.array([_or(bound, np.inf) for name in self._vectors for bound in self._spaces.vectors[name].high], np.float32)
        spaces: dict[str, gymnasium.Space[Any]] = {STATE_KEY: gymnasium.spaces.Box(low, high, dtype=np.float32)}
        for name in self._images:
            spaces[IMAGE_PREFIX + name] = gymnasium.spaces.Box(0, 255, (*self._spaces.images[name][:2], 3), np.uint8)
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, self._low.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; `seed` makes it and the following ones repeatable."""
        super().reset(seed=seed)
        observation, info = self._env.reset(seed=seed, options=options)
        self._running = True
        return self._observe(observation), {**info, "is_success": False}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Do one step.

        Args:
            action: Policy action, shape (A,), clipped to [-1, 1].

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            SimulationError: The episode has ended, the action is not finite or of another shape, the reward is not
                finite, or an episode ended without a word on its success.
        """
        if not self._running:
            raise SimulationError("step() was called after the end of the episode. Call reset() first.")
        wanted = np.asarray(action, np.float32)
        if wanted.shape != self._low.shape or not np.isfinite(wanted).all():
            raise SimulationError(f"`{self._id}` acts in {self._low.shape} finite numbers, got {wanted.tolist()}.")
        executed = np.clip(wanted, -1.0, 1.0)
        native = np.clip(self._low + (executed + 1.0) / 2.0 * (self._high - self._low), self._low, self._high)
        observation, reward, terminated, truncated, info = self._env.step(native.astype(self._action_dtype))
        if not np.isfinite(float(reward)):
            raise SimulationError(f"`{self._id}` gave the reward {reward}: it must be finite. Fix it in the environment or a wrapper.")
        self._running = not (terminated or truncated)
        judged = {"executed_action": executed, "is_success": self._succeeded(info), "judged_by": "environment"}
        return self._observe(observation), float(reward), bool(terminated), bool(truncated), {**info, **judged}

    def render(self) -> Any:
        """Draw a picture, (H, W, 3) uint8, as the environment does."""
        return self._env.render()

    def close(self) -> None:
        """Free what the environment holds."""
        self._env.close()

    def _succeeded(self, info: Mapping[str, Any]) -> bool:
        if self._success_key is None:
            return False
        if self._success_key not in info and not self._running:
            raise SimulationError(
                f"`{self._id}` ended an episode without `{self._success_key}` (env.success_key) in its info; it has {sorted(info)}. "
                "Name one of these, or leave `env.success_key` out to judge policies by their return."
            )
        return bool(info.get(self._success_key, False))

    def _observe(self, observation: Any) -> Observation:
        parts = dict(_parts(observation, ())) if isinstance(observation, Mapping) else {self._only_part(): observation}
        if NO_STATE in self._spaces.vectors:
            parts.setdefault(NO_STATE, np.zeros(1))
        seen: Observation = {STATE_KEY: np.concatenate([np.asarray(parts[name], np.float32).ravel() for name in self._vectors])}
        for name in self._images:
            image = np.asarray(parts[name])
            height, width = image.shape[:2]
            seen[IMAGE_PREFIX + name] = np.array(np.broadcast_to(image.reshape(height, width, -1), (height, width, 3)))
        return seen

    def _only_part(self) -> str:
        return next(iter([*self._spaces.images, *self._spaces.vectors]))


def _parts(observation: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, Any]]:
    found = []
    for key, value in observation.items():
        inside = (*path, str(key))
        found += _parts(value, inside) if isinstance(value, Mapping) else [(part_name(inside), value)]
    return found


def _or(bound: float | None, otherwise: float) -> float:
    return otherwise if bound is None else bound
