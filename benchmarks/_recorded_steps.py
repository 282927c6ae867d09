"""Steps of the simulated arm with rendered camera pictures, recorded once, to be sent again by processes that simulate nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hilserl.config.models import TrainConfig


def record(config: TrainConfig, file: Path, steps: int, *, episode_steps: int) -> None:
    """Play random actions and save what the policy of `config` would see."""
    from hilserl.data.preprocess import Preprocessor
    from hilserl.environments.make import make_environment

    environment, see = make_environment(config), Preprocessor.from_config(config)
    random = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {"action": []}
    observation, ended = {}, True
    for number in range(steps + 1):  # one more: the last one's next observation
        if ended:
            observation, _ = environment.reset(seed=number)
        for name, value in see(observation).items():
            columns.setdefault(name, []).append(value)
        action = random.uniform(-1, 1, environment.action_space.shape).astype(np.float32)
        columns["action"].append(action)
        observation, _, terminated, truncated, _ = environment.step(action)
        ended = terminated or truncated
    environment.close()
    np.savez(file, episode_steps=episode_steps, **{name: np.stack(values) for name, values in columns.items()})


def camera_overrides(cameras: tuple[str, ...], size: int) -> dict[str, Any]:
    """Configure square cameras, and an encoder that is trained, so that the learner stores pictures."""
    if not cameras:
        return {"observation.images": {}}
    return {
        "robot.cameras": {camera: {"width": size, "height": size} for camera in cameras},
        "observation.images": {camera: {"resize": [size, size]} for camera in cameras},
        "encoder.type": "cnn",
        "encoder.freeze": False,
    }


class Recorded:
    """The steps of a file, for ever: after the last comes the first."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as arrays:
            self.episode_steps = int(arrays["episode_steps"])
            self._columns = {name: arrays[name] for name in arrays.files if name != "episode_steps"}
        self._count = len(self._columns["action"]) - 1

    @property
    def bytes_a_step(self) -> int:
        """Of one observation and action, as arrays."""
        return sum(column[0].nbytes for column in self._columns.values())

    def observation(self, number: int) -> dict[str, np.ndarray]:
        return {name: column[number % self._count] for name, column in self._columns.items() if name != "action"}

    def action(self, number: int) -> np.ndarray:
        return self._columns["action"][number % self._count]

    def ends(self, number: int) -> bool:
        return (number + 1) % self.episode_steps == 0

    def step(self, number: int, extra: dict[str, np.ndarray] | None = None) -> Any:
        """Return step `number` of the endless sequence as the link takes it; `extra` goes with its observation."""
        from hilserl.link.messages import Step

        ended = self.ends(number)
        return Step(
            episode=number // self.episode_steps,
            step=number % self.episode_steps,
            observation=self.observation(number) | (extra or {}),
            action=self.action(number),
            reward=0.0,
            terminated=False,
            truncated=ended,
            is_intervention=False,
            final_observation=self.observation(number + 1) | (extra or {}) if ended else None,
        )
