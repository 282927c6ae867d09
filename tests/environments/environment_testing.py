"""Environments of the tests, registered for `module:Id-v0`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

EPISODE = 12


class Point(gymnasium.Env):
    """A point in the plane is to be brought to the origin; success is being near it, which ends the episode."""

    observation_space: Any = spaces.Box(-2.0, 2.0, (2,), np.float64)
    action_space: Any = spaces.Box(np.array([-3.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.taken = self.np_random.uniform(-1, 1, 2), []
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.taken.append(action)
        self.position = np.clip(self.position + 0.1 * action, -2, 2)
        near = bool(np.abs(self.position).max() < 0.2)
        return self.observe(), -float(np.abs(self.position).sum()), near, False, {"is_success": near, "position": self.position.copy()}

    def observe(self) -> Any:
        return self.position


class Pictured(Point):
    """The same as a nested Dict of a picture, a gray picture and two vectors."""

    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (32, 40, 3), np.uint8),
            "inner": spaces.Dict({"gray": spaces.Box(0, 255, (28, 24, 1), np.uint8), "position": spaces.Box(-2.0, 2.0, (2,), np.float64)}),
            "speed": spaces.Box(-np.inf, np.inf, (), np.float32),
        }
    )

    def observe(self):
        shade = np.uint8(60 * (self.position[0] + 2))
        camera = np.zeros((32, 40, 3), np.uint8)
        camera[..., 1] = shade
        inner = {"gray": np.full((28, 24, 1), shade), "position": self.position}
        return {"camera": camera, "inner": inner, "speed": np.array(len(self.taken), np.float32)}


class OnlyPicture(Point):
    """A gray picture alone."""

    observation_space = spaces.Box(0, 255, (32, 40), np.uint8)

    def observe(self):
        return np.full((32, 40), 60 * (self.position[0] + 2), np.uint8)


class Broken(Point):
    """Gives a reward that is not finite."""

    def step(self, action):
        return *super().step(action)[:1], np.nan, False, False, {}


for name, made in (("Point", Point), ("Pictured", Pictured), ("OnlyPicture", OnlyPicture), ("Broken", Broken)):
    gymnasium.register(f"{name}-v0", made, max_episode_steps=EPISODE)
gymnasium.register("Endless-v0", Point)


class Tiny(Point):
    """A picture that no encoder takes."""

    observation_space = spaces.Box(0, 255, (20, 40, 3), np.uint8)


gymnasium.register("Tiny-v0", Tiny, max_episode_steps=EPISODE)
