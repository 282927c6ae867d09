"""What the pictures of the page are drawn from: columns by name, the policy's steps, tool paths.

A damaged dataset lacks one or the other. Each property says what is missing by raising; the page says it in
the picture's place. Large datasets are thinned to whole episodes, spread evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.convert import PolicySteps, convert_steps, reward_source, rewards
from hilserl.data.dataset import Dataset, Episode
from hilserl.data.interfaces import JointConverter
from hilserl.data.validation.reading import read_dataset
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import DatasetError, HilserlError
from hilserl.schema import ACTION_KEY, STATE_COMPONENTS, STATE_KEY, StateComponent, policy_schema, state_components

# Through kinematics, about 30 µs each; and enough for any histogram of converted values.
_MAX_CONVERTED_FRAMES = 20_000
_DEGREES = 180 / np.pi


@dataclass(frozen=True)
class Scalar:
    """One number of a vector: its name, unit, and allowed range in that unit (None where nobody declares one)."""

    name: str
    unit: str
    limits: tuple[float, float] | None


@dataclass(frozen=True)
class Material:
    """One dataset, read as far as it can be read.

    Attributes:
        config: The run's configuration, narrowed to this dataset.
        root: Its folder.
        converter: The one kinematics, for datasets recorded in joint space.
    """

    config: TrainConfig
    root: Path
    converter: JointConverter | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """Open it: the episodes whose rows are all there, or else all that the episode table names."""
        whole = read_dataset(self.root, self.config.dataset.exclude_episodes).view(set())
        return Dataset.open(self.root) if whole is None else whole

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        """Return the episodes whose rows exist."""
        rows = len(self.dataset.frames)
        found = tuple(episode for episode in self.dataset.episodes if 0 <= episode.start < episode.stop <= rows)
        if not found:
            raise DatasetError("the episode table names no rows that exist")
        return found

    def column(self, key: str) -> np.ndarray:
        """Return a vector column as numbers, shape (N, D)."""
        if key not in self.dataset.features or key not in self.dataset.frames.columns:
            raise DatasetError(f"the dataset has no `{key}`")
        values = self.dataset.column(key).astype(np.float64)
        return values.reshape(len(values), -1)

    def scalars(self, key: str) -> list[Scalar]:
        """Describe the numbers of a recorded vector, by the dataset's names or the configuration's."""
        count = self.column(key).shape[1]
        names = self.dataset.names(key)
        if key == STATE_KEY and self.config.dataset.state is not None:
            names = tuple(s for part in self.config.dataset.state if part in STATE_COMPONENTS for s in STATE_COMPONENTS[part].scalars)
        if names is None and key == ACTION_KEY and self.config.dataset.action_from == "column":
            names = self.config.action_names
        if names is None or len(names) != count:
            return [Scalar(f"number {index} (unnamed)", "unit unknown", None) for index in range(count)]
        return [self._recorded_scalar(name, key) for name in names]

    def policy_state_scalars(self) -> list[Scalar]:
        """Describe the numbers of the policy's state."""
        return [Scalar(s, c.unit, (-c.limit, c.limit)) for c in state_components(self.config) for s in c.scalars]

    def policy_action_scalars(self) -> list[Scalar]:
        """Describe the numbers of the policy's action."""
        return [self._policy_action(name) for name in self.config.action_names]

    @cached_property
    def is_policy_state(self) -> bool:
        """Whether the recorded state is the policy's, by name."""
        return self.dataset.names(STATE_KEY) == policy_schema(self.config).observation[STATE_KEY].names

    @cached_property
    def reward(self) -> np.ndarray:
        """Return the reward of every frame, shape (N,)."""
        return rewards(self.dataset, reward_source(self.config, self.dataset))

    @cached_property
    def spread(self) -> tuple[Episode, ...]:
        """Return episodes for what costs time a frame: all, or as many as fit, evenly spread."""
        total = sum(episode.length for episode in self.episodes)
        return spread_out(self.episodes, max(1, int(len(self.episodes) * min(1.0, _MAX_CONVERTED_FRAMES / total))))

    @cached_property
    def steps(self) -> PolicySteps:
        """Return what the learner would get from the spread episodes, but for rewards: states and actions need none."""
        chosen = {episode.index for episode in self.spread}
        part = self.dataset.select([position for position, e in enumerate(self.dataset.episodes) if e.index in chosen])
        unrewarded = self.config.dataset.model_copy(update={"reward_from": "none", "done_from": "episode_table"})
        return convert_steps(self.config.model_copy(update={"dataset": unrewarded}), part, self.converter)

    def tool_paths(self) -> list[np.ndarray]:
        """Return the tool's path in each of the spread episodes, shape (T, 3) each [m].

        Raises:
            DatasetError: It is neither recorded nor computable.
        """
        wanted = STATE_COMPONENTS["ee_pos"].scalars
        names = [scalar.name for scalar in self.scalars(STATE_KEY)]
        if set(wanted) <= set(names):
            tool = self.column(STATE_KEY)[:, [names.index(name) for name in wanted]]
            return [tool[e.start : e.stop] for e in self.spread]
        mine = [scalar.name for scalar in self.policy_state_scalars()]
        if not set(wanted) <= set(mine):
            raise DatasetError("the tool's position is in neither the dataset nor the policy's state (`ee_pos`)")
        places = [mine.index(name) for name in wanted]
        try:
            index, tool = self.steps.episode_index, self.steps.state[:, places]
            return np.split(tool, np.flatnonzero(np.diff(index)) + 1)
        except HilserlError:
            if self.converter is None or self.dataset.names(STATE_KEY) != LEROBOT_JOINT_NAMES:
                raise
        joints = self.column(STATE_KEY)
        return [self.converter.state(joints[e.start : e.stop])[:, places] for e in self.spread]

    def _recorded_scalar(self, name: str, key: str) -> Scalar:
        if name in LEROBOT_JOINT_NAMES:
            return _lerobot_joint(STATE_COMPONENTS["joint_pos"], name)
        if key == ACTION_KEY:
            return self._policy_action(name) if name in self.config.action_names else Scalar(name, "unit unknown", None)
        part = STATE_COMPONENTS.get(name.partition(".")[0])
        if part is None or name not in part.scalars:
            return Scalar(name, "unit unknown", None)
        if self.config.dataset.state is not None and self.config.dataset.joint_unit == "deg" and part.name.startswith("joint_"):
            return _lerobot_joint(part, name)
        return Scalar(name, part.unit, (-part.limit, part.limit))

    def _policy_action(self, name: str) -> Scalar:
        robot = self.config.robot
        if name == "gripper":
            if self.config.dataset.gripper == "discrete":
                return Scalar(name, "0 closes, 1 stays, 2 opens", (0.0, 2.0))
            return Scalar(name, f"1 opens by {robot.max_gripper_step_pct:g} % a step", (-1.0, 1.0))
        return Scalar(name, f"1 is {1000 * (self.config.dataset.action_scale_m or robot.action_scale_m):g} mm a step", (-1.0, 1.0))


def spread_out(episodes: Sequence[Episode], count: int) -> tuple[Episode, ...]:
    """Return at most `count` episodes, evenly from the first to the last."""
    if len(episodes) <= count:
        return tuple(episodes)
    return tuple(episodes[index] for index in sorted({round(i) for i in np.linspace(0, len(episodes) - 1, count)}))


def _lerobot_joint(part: StateComponent, name: str) -> Scalar:
    """Describe a joint, or its speed, in LeRobot's units."""
    per_second = "" if part.name == "joint_pos" else "/s"
    if "gripper" in name:
        return Scalar(name, f"% open{per_second}", None if per_second else (0.0, 100.0))
    limit = float(round(part.limit * _DEGREES))
    return Scalar(name, f"deg{per_second}", (-limit, limit))
