"""From the columns of a dataset to the policy's spaces: state, action, reward, ends of episodes.

Every choice made here is one that the configuration states; `validate.py` checks beforehand that the
dataset allows it, and this file stops where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilserl.config.models import DoneFrom, RewardFrom, Role, TrainConfig
from hilserl.data.dataset import DONE_KEY, REWARD_KEY, Dataset
from hilserl.data.interfaces import JointConverter
from hilserl.data.recorded import ControlSteps, control_steps, recorded_state
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import DatasetError
from hilserl.schema import ACTION_KEY, JOINT_NAMES, STATE_KEY, policy_schema, state_components

RewardSource = RewardFrom
DoneSource = DoneFrom
# Dimensions of an action that move the tool; the rest is the gripper.
MOTION_DIMS = 3
ROLES: tuple[Role, ...] = ("demonstration", "correction", "failure")
INTERVENTION_KEY = "complementary_info.is_intervention"
# Rounding of float32 and of people's own clipping; anything further outside is another unit.
ACTION_TOLERANCE = 1e-3
# A dimension that moves less than this over all demonstrations teaches nothing.
MIN_ACTION_RANGE = 1e-6
# Steps that may leave [-1, 1] when deltas of several frames are added up, before the step size is called too small.
MAX_CLIPPED_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class PolicySteps:
    """The control steps of a dataset in the policy's spaces; N rows, in the dataset's order.

    Attributes:
        state: float32, shape (N, S), physical units.
        action: float32, shape (N, A), in [-1, 1].
        reward: float32, shape (N,), the reward that followed the action.
        terminated: bool, shape (N,): the task itself ended after this step; no bootstrap.
        truncated: bool, shape (N,): the recording stopped after this step; the task had not ended.
        has_next: bool, shape (N,): the next row is the next observation of the same episode; false after a classifier's first success.
        episode_index: int64, shape (N,).
        role: uint8, shape (N,), places in `ROLES`.
        frame_row: int64, shape (N,), row of `Dataset.frames` that the observation is taken from.
        clipped_steps: Steps whose motion was clipped to [-1, 1].
        largest_motion: Largest motion along one axis before clipping, in the policy's units.
        residual_m: Tool position error of converted actions, shape (N,) [m]; None where none were converted.
    """

    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    has_next: np.ndarray
    episode_index: np.ndarray
    role: np.ndarray
    frame_row: np.ndarray
    clipped_steps: int
    largest_motion: float
    residual_m: np.ndarray | None

    def positives_per_episode(self) -> dict[int, int]:
        """Count the rewarded steps of each episode."""
        return {int(e): int((self.reward[self.episode_index == e] > 0).sum()) for e in np.unique(self.episode_index)}


def convert_steps(
    config: TrainConfig,
    dataset: Dataset,
    converter: JointConverter | None = None,
    role: Role = "demonstration",
    judged: np.ndarray | None = None,
) -> PolicySteps:
    """Convert all columns but the images.

    Args:
        config: Says where state, action, reward and ends of episodes come from.
        dataset: A dataset that passed validation, or some of its episodes (`Dataset.select`).
        converter: Kinematics; needed for datasets recorded in joint space.
        role: What the dataset shows; a `failure` is never rewarded.
        judged: Reward of every frame by a success classifier, shape (T,), for `reward_from: classifier`.

    Raises:
        DatasetError: The dataset does not allow what the configuration asks for.
    """
    source = reward_source(config, dataset)
    reward = rewards(dataset, source) if judged is None else judged
    if role == "failure":
        reward = np.zeros_like(reward)
    terminated, truncated = episode_ends(dataset, reward, config.dataset.done_from or "episode_table")
    over = np.zeros(len(reward), bool)
    if judged is not None:
        success, over = first_successes(dataset, reward)
        reward, terminated, truncated = np.where(success, reward, 0), (terminated | success) & ~over, truncated & ~success & ~over
    steps = control_steps(config, dataset)
    action, residual_m = _actions(config, dataset, steps, converter)
    clipped = (np.abs(action[:, :MOTION_DIMS]) > 1 + ACTION_TOLERANCE).any(axis=1)
    is_last, ended = last_frames(dataset)[steps.last], np.logical_or.reduceat(terminated, steps.first)
    return PolicySteps(
        state=_states(config, dataset, steps, converter),
        action=np.clip(action, -1, 1).astype(np.float32),
        reward=steps.largest(reward),
        terminated=ended,
        truncated=np.logical_or.reduceat(truncated, steps.first),
        has_next=~is_last & ~ended & ~over[steps.first],
        episode_index=dataset.column("episode_index").astype(np.int64)[steps.first],
        role=_roles(dataset, source, reward, role)[steps.first],
        frame_row=steps.first,
        clipped_steps=int(clipped.sum()),
        largest_motion=float(np.abs(action[:, :MOTION_DIMS]).max()),
        residual_m=residual_m,
    )


def too_fast(config: TrainConfig, clipped_steps: int, steps: int, largest_motion: float) -> str | None:
    """Say that recorded motions do not fit into the run's steps, or return None."""
    if config.dataset.action_from != "column" or clipped_steps <= MAX_CLIPPED_SHARE * steps:
        return None
    return (
        f"{clipped_steps} of {steps} recorded motions are longer than robot.action_scale_m = {config.robot.action_scale_m:g} m allows "
        f"in one step of {config.robot.control_hz:g} Hz; cut off, they would lead elsewhere. "
        f"Set robot: {{action_scale_m: {largest_motion * config.robot.action_scale_m:.3f}}}, "
        "or dataset: {action_scale_m: ...} to the recording's step"
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
    """Tell whether actions are recorded in joint space, or a part of the state must be computed from joints."""
    if config.dataset.action_from == "joints":
        return True
    if STATE_KEY not in dataset.features:
        return False
    recorded = recorded_state(config, dataset)
    wanted = {component.name for component in state_components(config)}
    return recorded is not None and (recorded.in_lerobot_units or not wanted <= set(recorded.components))


def rewards(dataset: Dataset, source: RewardSource) -> np.ndarray:
    """Return the reward of every frame, float32, shape (N,)."""
    if source == "column":
        if REWARD_KEY not in dataset.frames.columns:
            raise DatasetError(f"{dataset.root}: dataset.reward_from is `column`, but there is no `{REWARD_KEY}` column")
        return dataset.column(REWARD_KEY).astype(np.float32)
    if source == "success_at_end":
        return last_frames(dataset).astype(np.float32)
    if source == "classifier":
        raise DatasetError(f"{dataset.root}: dataset.reward_from is `classifier`, and no classifier was given to judge its images")
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


def first_successes(dataset: Dataset, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find where a success classifier ends the episodes.

    On the arm its first success ends the episode, so a recording that goes on is judged the same way: that frame is
    paid and terminated, and what follows is no part of the task. Else a success held for twenty frames would pay
    twenty times, and one in the middle of a recording would never end it.

    Args:
        dataset: Where the episodes are.
        reward: Shape (N,).

    Returns:
        The first rewarded frame of each episode, and all frames after it; bool, shape (N,).
    """
    first, after = np.zeros(len(reward), bool), np.zeros(len(reward), bool)
    for episode in dataset.episodes:
        rewarded = np.flatnonzero(reward[episode.start : episode.stop] > 0)
        if len(rewarded):
            first[episode.start + rewarded[0]] = True
            after[episode.start + rewarded[0] + 1 : episode.stop] = True
    return first, after


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


def _roles(dataset: Dataset, source: RewardSource, reward: np.ndarray, role: Role) -> np.ndarray:
    """Tell what each frame shows: as its dataset, except human corrections, and episodes that were judged and failed."""
    roles = np.full(len(reward), ROLES.index(role), np.uint8)
    if role == "demonstration" and source in ("column", "classifier"):
        for episode in dataset.episodes:
            if not (reward[episode.start : episode.stop] > 0).any():
                roles[episode.start : episode.stop] = ROLES.index("failure")
    if INTERVENTION_KEY in dataset.frames.columns:
        roles[dataset.column(INTERVENTION_KEY).astype(bool).reshape(-1)] = ROLES.index("correction")
    return roles


def _states(config: TrainConfig, dataset: Dataset, steps: ControlSteps, converter: JointConverter | None) -> np.ndarray:
    wanted = state_components(config)
    recorded = recorded_state(config, dataset)
    if recorded is None:
        names = policy_schema(config).observation[STATE_KEY].names
        raise DatasetError(f"{dataset.root}: `{STATE_KEY}` is {dataset.names(STATE_KEY)}, the policy wants {names}")
    values = dataset.column(STATE_KEY)[steps.first].astype(np.float64)
    computed = [component.name for component in wanted if component.name not in recorded.components]
    if computed and "joint_pos" not in recorded.components:
        raise DatasetError(f"{dataset.root}: `{STATE_KEY}` lacks {computed}, and no joint positions to compute them from")
    parts: dict[str, np.ndarray] = {name: recorded.part(values, name) for name in recorded.components}
    if recorded.in_lerobot_units:
        converter = _required(dataset, converter)
        zero = converter.radians(np.zeros(len(JOINT_NAMES)))
        joints = parts["joint_pos"]
        parts["joint_pos"] = converter.radians(joints)
        if "joint_vel" in parts:
            parts["joint_vel"] = converter.radians(parts["joint_vel"]) - zero
    elif computed:
        joints = _required(dataset, converter).lerobot_units(parts["joint_pos"])
    if computed:
        starts = np.flatnonzero(np.diff(dataset.column("episode_index")[steps.first], prepend=-1))
        full = np.concatenate([_required(dataset, converter).state(part) for part in np.split(joints, starts[1:])])
        if full.shape != (len(values), sum(len(component.labels) for component in wanted)):
            parts_wanted = [component.name for component in wanted]
            raise DatasetError(f"{dataset.root}: the kinematics gave states of shape {full.shape}, the policy wants {parts_wanted}")
        start = 0
        for component in wanted:
            stop = start + len(component.labels)
            parts.setdefault(component.name, full[:, start:stop])
            start = stop
    return np.concatenate([parts[component.name] for component in wanted], axis=1).astype(np.float32)


def _actions(
    config: TrainConfig, dataset: Dataset, steps: ControlSteps, converter: JointConverter | None
) -> tuple[np.ndarray, np.ndarray | None]:
    action = dataset.column(ACTION_KEY).astype(np.float64)
    if config.dataset.action_from == "column":
        return steps.sum(_policy_actions(config, dataset, action)), None
    converter = _required(dataset, converter)
    recorded = recorded_state(config, dataset)
    if recorded is None or "joint_pos" not in recorded.components or action.shape[1:] != (len(JOINT_NAMES),):
        raise DatasetError(
            f"{dataset.root}: dataset.action_from is `joints`, which needs the measured joints in `{STATE_KEY}` and six joint targets "
            f"{LEROBOT_JOINT_NAMES} as `{ACTION_KEY}`; they are {dataset.names(STATE_KEY)} and {dataset.names(ACTION_KEY)}"
        )
    joints = recorded.part(dataset.column(STATE_KEY).astype(np.float64), "joint_pos")[steps.first]
    # What was commanded during a control step is where the last target within it led.
    targets = action[steps.last]
    if not recorded.in_lerobot_units:
        joints, targets = converter.lerobot_units(joints), converter.lerobot_units(targets)
    actions, residuals = converter.actions(joints, targets)
    return actions, residuals.astype(np.float32)


def _policy_actions(config: TrainConfig, dataset: Dataset, action: np.ndarray) -> np.ndarray:
    """Check recorded policy actions, shape (T, A), and bring them to this run's step size and gripper coding."""
    names = config.action_names
    if action.shape[1:] != (len(names),):
        raise DatasetError(f"{dataset.root}: actions have shape {action.shape[1:]}, the policy acts in {names}")
    action = action.copy()
    if config.dataset.gripper == "discrete" and "gripper" in names:
        column = names.index("gripper")
        wrong = np.flatnonzero(~np.isin(action[:, column], (0, 1, 2)))
        if len(wrong):
            raise DatasetError(
                f"{dataset.root}: `gripper` is {action[wrong[0], column]:.4g} at {place(dataset, int(wrong[0]))}; "
                "dataset.gripper is `discrete`, which knows 0 (close), 1 (stay) and 2 (open). "
                "Set dataset: {gripper: continuous} if it is a motion in [-1, 1]"
            )
        action[:, column] -= 1
    outside = np.argwhere(np.abs(action) > 1 + ACTION_TOLERANCE)
    if len(outside):
        row, dimension = outside[0]
        raise DatasetError(
            f"{dataset.root}: action `{names[dimension]}` is {action[row, dimension]:.4g} at {place(dataset, int(row))}, "
            "the policy acts in [-1, 1]. Metres, degrees or a 0/1/2 gripper must be converted when recording, or named: "
            "joint targets are converted by dataset: {action_from: joints}, a 0/1/2 gripper by dataset: {gripper: discrete}"
        )
    action[:, :MOTION_DIMS] *= (config.dataset.action_scale_m or config.robot.action_scale_m) / config.robot.action_scale_m
    return action


def _required(dataset: Dataset, converter: JointConverter | None) -> JointConverter:
    if converter is None:
        raise DatasetError(f"{dataset.root} was recorded in joint space: converting it needs the arm's kinematics, and none was given")
    return converter
