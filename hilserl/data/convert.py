"""From the columns of a dataset to the policy's spaces: state, action, reward, ends of episodes.

Every choice made here is one that the configuration states; `validate.py` checks beforehand that the
dataset allows it, and this file stops where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import DONE_KEY, REWARD_KEY, Dataset
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import DatasetError
from hilserl.schema import ACTION_KEY, STATE_KEY, policy_schema

RewardSource = Literal["column", "success_at_end", "none"]
DoneSource = Literal["episode_table", "column_is_terminated"]
# Rounding of float32 and of people's own clipping; anything further outside is another unit.
ACTION_TOLERANCE = 1e-3
# A dimension that moves less than this over all demonstrations teaches nothing.
MIN_ACTION_RANGE = 1e-6


class JointConverter(Protocol):
    """The one kinematics and action codec, for datasets recorded in joint space.

    Joints are `JOINT_NAMES` in LeRobot's units: degrees, the gripper 0-100 %.

    Attributes:
        version: Identifies its code, model and settings; part of the buffer's cache key.
    """

    @property
    def version(self) -> str:
        """Identify code, model and settings."""

    def state(self, joint_pos: np.ndarray) -> np.ndarray:
        """Compute the policy's state of one episode, shape (T, S), from joint positions, shape (T, 6)."""

    def actions(self, joint_pos: np.ndarray, joint_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Express one episode's joint targets in the policy's action space.

        Args:
            joint_pos: Measured positions, shape (T, 6).
            joint_target: Targets sent at the same steps, shape (T, 6).

        Returns:
            Actions, shape (T, A), not clipped, and the tool position error of replaying them, shape (T,) [m].
        """


@dataclass(frozen=True, eq=False)
class PolicySteps:
    """Every frame of a dataset in the policy's spaces; N rows in the dataset's order.

    Attributes:
        state: float32, shape (N, S), physical units.
        action: float32, shape (N, A), in [-1, 1].
        reward: float32, shape (N,), the reward that followed the action.
        terminated: bool, shape (N,): the task itself ended after this step; no bootstrap.
        truncated: bool, shape (N,): the recording stopped after this step; the task had not ended.
        has_next: bool, shape (N,): the next row is the next observation of the same episode.
        episode_index: int64, shape (N,).
        clipped_steps: Steps whose action was clipped to [-1, 1].
        residual_m: Tool position error of converted actions, shape (N,) [m]; None where none were converted.
    """

    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    has_next: np.ndarray
    episode_index: np.ndarray
    clipped_steps: int
    residual_m: np.ndarray | None

    def positives_per_episode(self) -> dict[int, int]:
        """Count the rewarded steps of each episode."""
        return {int(e): int((self.reward[self.episode_index == e] > 0).sum()) for e in np.unique(self.episode_index)}


def convert_steps(config: TrainConfig, dataset: Dataset, converter: JointConverter | None = None) -> PolicySteps:
    """Convert all columns but the images.

    Args:
        config: Says where state, action, reward and ends of episodes come from.
        dataset: A dataset that passed validation.
        converter: Kinematics; needed for datasets recorded in joint space.

    Raises:
        DatasetError: The dataset does not allow what the configuration asks for.
    """
    reward = rewards(dataset, reward_source(config, dataset))
    terminated, truncated = episode_ends(dataset, reward, config.dataset.done_from or "episode_table")
    is_last = last_frames(dataset)
    action, residual_m = _actions(config, dataset, converter)
    outside = np.abs(action) > 1 + ACTION_TOLERANCE
    if outside.any() and config.dataset.action_from == "column":
        row, dimension = np.argwhere(outside)[0]
        raise DatasetError(
            f"{dataset.root}: action `{config.action_names[dimension]}` is {action[row, dimension]:.4g} at {place(dataset, int(row))}, "
            "the policy acts in [-1, 1]. Metres, degrees or a 0/1/2 gripper must be converted when recording; "
            "joint targets are converted by dataset: {action_from: joints}"
        )
    constant = constant_actions(action, config.action_names)
    if constant:
        raise DatasetError(f"{dataset.root}: {constant}")
    return PolicySteps(
        state=_states(config, dataset, converter),
        action=np.clip(action, -1, 1).astype(np.float32),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        has_next=~is_last & ~terminated,
        episode_index=dataset.column("episode_index").astype(np.int64),
        clipped_steps=int(outside.any(axis=1).sum()),
        residual_m=residual_m,
    )


def reward_source(config: TrainConfig, dataset: Dataset) -> RewardSource:
    """Return where the reward comes from.

    Raises:
        DatasetError: Neither the configuration nor the dataset says.
    """
    if config.dataset.reward_from is not None:
        return config.dataset.reward_from
    if REWARD_KEY in dataset.frames.columns:
        return "column"
    raise DatasetError(f"{dataset.root}: no `{REWARD_KEY}` column, and dataset.reward_from does not say where the reward comes from")


def needs_kinematics(config: TrainConfig, dataset: Dataset) -> bool:
    """Tell whether state or action are recorded in joint space."""
    return config.dataset.action_from == "joints" or (STATE_KEY in dataset.features and dataset.names(STATE_KEY) == LEROBOT_JOINT_NAMES)


def rewards(dataset: Dataset, source: RewardSource) -> np.ndarray:
    """Return the reward of every frame, float32, shape (N,)."""
    if source == "column":
        if REWARD_KEY not in dataset.frames.columns:
            raise DatasetError(f"{dataset.root}: dataset.reward_from is `column`, but there is no `{REWARD_KEY}` column")
        return dataset.column(REWARD_KEY).astype(np.float32)
    if source == "success_at_end":
        return last_frames(dataset).astype(np.float32)
    return np.zeros(len(dataset.frames), np.float32)


def last_frames(dataset: Dataset) -> np.ndarray:
    """Mark the last frame of every episode, by the episode table; bool, shape (N,)."""
    is_last = np.zeros(len(dataset.frames), bool)
    is_last[[episode.stop - 1 for episode in dataset.episodes]] = True
    return is_last


def episode_ends(dataset: Dataset, reward: np.ndarray, source: DoneSource) -> tuple[np.ndarray, np.ndarray]:
    """Tell task ends from recordings that merely stopped.

    Args:
        dataset: Where the episodes are.
        reward: Shape (N,).
        source: `episode_table`: an episode's last frame is terminated if it was rewarded, else truncated;
            `column_is_terminated`: `next.done` marks the task's ends.

    Returns:
        `terminated` and `truncated`, bool, shape (N,); never both.
    """
    is_last = last_frames(dataset)
    if source == "column_is_terminated":
        if DONE_KEY not in dataset.frames.columns:
            raise DatasetError(f"{dataset.root}: dataset.done_from is `column_is_terminated`, but there is no `{DONE_KEY}` column")
        terminated = dataset.column(DONE_KEY).astype(bool)
    else:
        terminated = is_last & (reward > 0)
    return terminated, is_last & ~terminated


def constant_actions(action: np.ndarray, names: tuple[str, ...]) -> str | None:
    """Describe action dimensions that never change, or None; actions of shape (N, A)."""
    spread = np.ptp(action, axis=0)
    constant = [f"`{name}` (always {action[0, i]:.4g})" for i, name in enumerate(names) if spread[i] < MIN_ACTION_RANGE]
    if not constant:
        return None
    return (
        f"action dimension {', '.join(constant)} never changes in the demonstrations: a recorder's fallback, or a dimension the task does "
        "not need. The critic would learn that the other values do not exist. Record it again, or choose a task without that dimension"
    )


def place(dataset: Dataset, row: int) -> str:
    """Name a row by its episode and frame."""
    frames = dataset.frames.row(row, named=True)
    return f"episode {frames['episode_index']} frame {frames['frame_index']}"


def _states(config: TrainConfig, dataset: Dataset, converter: JointConverter | None) -> np.ndarray:
    wanted = policy_schema(config).observation[STATE_KEY]
    if dataset.names(STATE_KEY) == wanted.names:
        return dataset.column(STATE_KEY).astype(np.float32)
    if dataset.names(STATE_KEY) != LEROBOT_JOINT_NAMES:
        raise DatasetError(f"{dataset.root}: `{STATE_KEY}` is {dataset.names(STATE_KEY)}, the policy wants {wanted.names}")
    converter = _required(dataset, converter)
    joints = dataset.column(STATE_KEY).astype(np.float64)
    state = np.concatenate([converter.state(joints[e.start : e.stop]) for e in dataset.episodes]).astype(np.float32)
    if state.shape != (len(joints), *wanted.shape):
        raise DatasetError(f"{dataset.root}: the kinematics gave states of shape {state.shape}, the policy wants {wanted.names}")
    return state


def _actions(config: TrainConfig, dataset: Dataset, converter: JointConverter | None) -> tuple[np.ndarray, np.ndarray | None]:
    action = dataset.column(ACTION_KEY).astype(np.float64)
    if config.dataset.action_from == "column":
        if action.shape[1:] != (len(config.action_names),):
            raise DatasetError(f"{dataset.root}: actions have shape {action.shape[1:]}, the policy acts in {config.action_names}")
        return action, None
    converter = _required(dataset, converter)
    if dataset.names(STATE_KEY) != LEROBOT_JOINT_NAMES or dataset.names(ACTION_KEY) != LEROBOT_JOINT_NAMES:
        raise DatasetError(f"{dataset.root}: dataset.action_from is `joints`, which needs state and action to be {LEROBOT_JOINT_NAMES}")
    joints = dataset.column(STATE_KEY).astype(np.float64)
    parts = [converter.actions(joints[e.start : e.stop], action[e.start : e.stop]) for e in dataset.episodes]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]).astype(np.float32)


def _required(dataset: Dataset, converter: JointConverter | None) -> JointConverter:
    if converter is None:
        raise DatasetError(f"{dataset.root} was recorded in joint space: converting it needs the arm's kinematics, and none was given")
    return converter
