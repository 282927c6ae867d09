"""What the columns of a dataset mean to learning: state, action, reward, ends of episodes.

Called by `validate.py` once the tables hold together.
"""

from __future__ import annotations

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.convert import (
    ACTION_TOLERANCE,
    constant_actions,
    episode_ends,
    last_frames,
    place,
    reward_source,
    rewards,
)
from hilserl.data.dataset import DONE_KEY, REWARD_KEY, Dataset
from hilserl.data.normalize import state_problems
from hilserl.data.validation.findings import Finding, Severity
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import DatasetError
from hilserl.schema import ACTION_KEY, STATE_KEY, policy_schema, state_components


def check_state(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D04, D16, D17: the state's numbers are the policy's, by name; or joints, from which the rest is computed."""
    names, wanted = dataset.names(STATE_KEY), policy_schema(config).observation[STATE_KEY].names
    place_ = f"`{STATE_KEY}`"
    if names == wanted:
        if dataset.column(STATE_KEY).shape[1:] != (len(wanted),):
            message = f"declares {len(wanted)} names, the rows hold {dataset.column(STATE_KEY).shape[1:]} numbers"
            return [Finding("D04", "stops", place_, message, "record it again")]
        problems = state_problems(dataset.column(STATE_KEY), state_components(config), config.observation.allow_constant)
        return [Finding(code, "stops", place_, message) for code, message in problems]
    if names == LEROBOT_JOINT_NAMES:
        if config.observation.privileged:
            message = "six joints only: the cube's position, which observation.privileged adds, cannot be computed from joints"
            return [Finding("D04", "stops", place_, message, "observation: {privileged: false}, or record the `policy` flavour")]
        message = "six joints in LeRobot's units; the rest of the state is computed from them by the kinematics, velocities by differences"
        return [Finding("D04", "informs", place_, message)]
    size = dataset.shape(STATE_KEY)[0]
    if names is None:
        message = f"{size} numbers without names: nobody can say whether they are the policy's {len(wanted)}"
        remedy = f"name them in meta/info.json: {list(wanted)} or {list(LEROBOT_JOINT_NAMES)}"
        return [Finding("D04", "stops", place_, message, remedy)]
    if sorted(names) == sorted(wanted):
        first = next(i for i, (a, b) in enumerate(zip(names, wanted, strict=True)) if a != b)
        message = f"the same {size} numbers in another order: number {first} is `{names[first]}`, the policy's is `{wanted[first]}`"
        parts = list(dict.fromkeys(name.split(".")[0] for name in names))
        return [Finding("D04", "stops", place_, message, f"observation: {{state: [{', '.join(parts)}]}} if the parts are in that order")]
    missing, extra = [n for n in wanted if n not in names], [n for n in names if n not in wanted]
    message = f"{size} numbers, the policy wants {len(wanted)}; the dataset lacks {missing or 'none'} and has besides {extra or 'none'}"
    if any(name.startswith("cube_from_tool") for name in extra):
        message += ". The cube's position is known in simulation only: a policy that learns from it cannot run on an arm"
    return [Finding("D04", "stops", place_, message, "state the dataset's parts under observation.state, or record it again")]


def check_action(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D05, D06, D07: the actions are the policy's, by name and range, or joint targets to convert; and they vary."""
    names, size, place_ = dataset.names(ACTION_KEY), dataset.shape(ACTION_KEY)[0], f"`{ACTION_KEY}`"
    wanted = config.action_names if config.dataset.action_from == "column" else LEROBOT_JOINT_NAMES
    if size != len(wanted) or (names is not None and names != wanted):
        given = list(names) if names else f"{size} unnamed numbers"
        message = f"is {given}, expected {list(wanted)} (dataset.action_from: {config.dataset.action_from})"
        remedy = "drop these episodes, or choose the task they were recorded for"
        if names == LEROBOT_JOINT_NAMES:
            remedy = "joint targets are converted by dataset: {action_from: joints}"
        elif names == config.action_names:
            remedy = "dataset: {action_from: column}"
        return [Finding("D06", "stops", place_, message, remedy)]
    action = dataset.column(ACTION_KEY)
    if action.shape[1:] != (len(wanted),):
        return [Finding("D18", "stops", place_, f"declares {len(wanted)} numbers, the rows hold {action.shape[1:]}", "record it again")]
    findings = []
    if names is None:
        findings.append(Finding("D07", "warns", place_, f"has no names; taken as {list(wanted)}", "name them in meta/info.json"))
    if config.dataset.action_from == "joints":
        if dataset.names(STATE_KEY) != LEROBOT_JOINT_NAMES:
            message = f"dataset.action_from is `joints`, which needs the measured joints {list(LEROBOT_JOINT_NAMES)} as {STATE_KEY}"
            findings.append(Finding("D06", "stops", place_, message, "dataset: {action_from: column}, or record the joints"))
        if not np.ptp(action, axis=0).any():
            findings.append(Finding("D05", "stops", place_, "the joint targets never change: nothing was teleoperated", "record it again"))
        return findings
    outside = np.argwhere(np.abs(action) > 1 + ACTION_TOLERANCE)
    if len(outside):
        row, dimension = outside[0]
        message = (
            f"`{wanted[dimension]}` is {action[row, dimension]:.4g} at {place(dataset, int(row))} ({len(outside)} values in all), "
            "the policy acts in [-1, 1]: clipped, it would learn other motions than were made"
        )
        remedy = "metres, degrees or a 0/1/2 gripper must be converted when recording; for joint targets set dataset: {action_from: joints}"
        findings.append(Finding("D07", "stops", place_, message, remedy))
    constant = constant_actions(action, wanted)
    if constant:
        findings.append(Finding("D05", "stops", place_, constant))
    return findings


def check_reward(config: TrainConfig, dataset: Dataset) -> tuple[list[Finding], dict[int, int] | None]:
    """D02: there is a stated source of the reward, and it pays at least once."""
    has_column, chosen, place_ = REWARD_KEY in dataset.frames.columns, config.dataset.reward_from, f"`{REWARD_KEY}`"
    choices = "dataset: {reward_from: success_at_end} if every demonstration ends in success; {reward_from: none} to train without"
    if not has_column and chosen in (None, "column"):
        message = "missing, so every reward would be 0 and nothing would be learned"
        if chosen == "column":
            message = "missing, and dataset.reward_from says `column`"
        return [Finding("D02", "stops", place_, message, choices)], None
    source = reward_source(config, dataset)
    reward = rewards(dataset, source)
    positives = {e.index: int((reward[e.start : e.stop] > 0).sum()) for e in dataset.episodes}
    with_any, total = sum(count > 0 for count in positives.values()), sum(positives.values())
    findings = [
        Finding("D02", "informs", place_, f"reward from `{source}`: {total} rewarded frames, in {with_any} of {len(positives)} episodes")
    ]
    if source == "none":
        message = "dataset.reward_from is `none`: the demonstrations carry no learning signal; only online rewards will teach the critic"
        findings.append(Finding("D02", "warns", place_, message, "dataset: {reward_from: success_at_end} if they end in success"))
    elif total == 0:
        message = f"no frame of {len(positives)} episodes is rewarded: the critic would learn that nothing ever pays"
        findings.append(Finding("D02", "stops", place_, message, choices))
    elif with_any < len(positives):
        none = [index for index, count in positives.items() if not count]
        message = f"episodes without a reward: {none[:10]}{'...' if len(none) > 10 else ''}; they count as failures"
        findings.append(Finding("D02", "warns", place_, message, "drop them if they were successes"))
    if has_column and chosen not in (None, "column"):
        message = f"the column exists and is ignored, because dataset.reward_from is `{chosen}`"
        findings.append(Finding("D02", "warns", place_, message, "dataset: {reward_from: column} to use it"))
    early = np.flatnonzero((reward > 0) & ~last_frames(dataset))
    if len(early):
        message = f"{len(early)} rewards before the end of an episode, first at {place(dataset, int(early[0]))}: "
        message += "the return exceeds 1, and delay may pay"
        findings.append(Finding("L13", "warns", place_, message, "reward only the step that completes the task, and end the episode there"))
    return findings, positives


def check_done(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D03: whether the end of an episode was the task's or the clock's is known."""
    chosen, place_ = config.dataset.done_from, f"`{DONE_KEY}`"
    if DONE_KEY not in dataset.frames.columns:
        if chosen == "column_is_terminated":
            message = "missing, and dataset.done_from says `column_is_terminated`"
            return [Finding("D03", "stops", place_, message, "dataset: {done_from: episode_table}")]
        message = "missing; the episode table ends the episodes: terminated where the last frame was rewarded, else truncated"
        return [Finding("D03", "informs", place_, message)]
    try:
        reward = rewards(dataset, reward_source(config, dataset))
    except DatasetError:
        return []  # Told as D02; the ends depend on the reward.
    done, is_last = dataset.column(DONE_KEY).astype(bool), last_frames(dataset)
    early, rewarded = np.flatnonzero(done & ~is_last), reward > 0
    if chosen == "column_is_terminated":
        return _terminal_column(config, dataset, done, rewarded, early)
    contradictions = []
    if len(early):
        contradictions.append(f"it is true {len(early)} times inside an episode, first at {place(dataset, int(early[0]))}")
    # True on every last frame is LeRobot's recorder: terminated or truncated. True on some says more than that.
    if not done[is_last].all() and (done != rewarded)[is_last].any():
        row = int(np.flatnonzero(is_last & (done != rewarded))[0])
        contradictions.append(f"on last frames it is neither always true nor equal to the reward, first at {place(dataset, row)}")
    if contradictions:
        severity: Severity = "stops" if chosen is None else "warns"
        message = (
            f"contradicts the episode table: {'; '.join(contradictions)}. Read wrongly, time-outs become terminals, or a success goes on"
        )
        remedy = "dataset: {done_from: column_is_terminated} if it marks task ends only; {done_from: episode_table} to ignore it"
        return [Finding("D03", severity, place_, message, remedy)]
    terminated, truncated = episode_ends(dataset, reward, "episode_table")
    message = f"by the episode table {int(terminated.sum())} episodes terminated (rewarded) and {int(truncated.sum())} were truncated"
    return [Finding("D03", "informs", place_, message)]


def _terminal_column(config: TrainConfig, dataset: Dataset, done: np.ndarray, rewarded: np.ndarray, early: np.ndarray) -> list[Finding]:
    place_ = f"`{DONE_KEY}`"
    if len(early):
        message = f"marks the task's end {len(early)} times inside an episode, first at {place(dataset, int(early[0]))}: "
        message += "the frames after it belong to no episode"
        return [Finding("D03", "stops", place_, message, "split or trim these episodes, or dataset: {done_from: episode_table}")]
    unpaid = [episode for episode in dataset.episodes if done[episode.stop - 1] and not rewarded[episode.stop - 1]]
    timeouts = [episode.index for episode in unpaid if episode.length >= config.episode_steps]
    if timeouts:
        message = (
            f"episodes {timeouts[:10]} end unrewarded at the time limit ({config.episode_steps} steps) and are marked as task ends: "
            "their last state would be worth 0 for ever. The column was written as terminated-or-truncated"
        )
        return [Finding("D03", "stops", place_, message, "dataset: {done_from: episode_table}")]
    if unpaid:
        message = f"{len(unpaid)} episodes end without a reward as task ends: right for failures, wrong for recordings that merely stopped"
        return [Finding("D03", "warns", place_, message, "dataset: {done_from: episode_table} if they merely stopped")]
    return [Finding("D03", "informs", place_, f"{int(done.sum())} task ends by the column")]
