"""D05, D06, D07: the actions are the policy's, by name and range, or joint targets to convert; and they vary."""

from __future__ import annotations

import math

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.convert import ACTION_TOLERANCE, MAX_CLIPPED_SHARE, MIN_ACTION_RANGE, place
from hilserl.data.dataset import Dataset
from hilserl.data.interfaces import JointConverter
from hilserl.data.recorded import control_steps
from hilserl.data.validation.findings import Finding, exclude, few
from hilserl.data.validation.state import StateLayout
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import HilserlError
from hilserl.schema import ACTION_KEY, STATE_COMPONENTS, STATE_KEY

_PLACE = f"`{ACTION_KEY}`"
# Through kinematics, about 30 µs each.
_MAX_CONVERTED = 2000
# Shares of steps from which a distortion is worth a warning.
_MANY = 0.02
_NOTICED_M = 1e-3
_CLASSES = {0: "close", 1: "stay", 2: "open"}


def check_action(config: TrainConfig, dataset: Dataset, layout: StateLayout | None, converter: JointConverter | None) -> list[Finding]:
    """Check the recorded actions of the episodes in `dataset`."""
    names, size = dataset.names(ACTION_KEY), dataset.shape(ACTION_KEY)[0]
    wanted = config.action_names if config.dataset.action_from == "column" else LEROBOT_JOINT_NAMES
    if size != len(wanted) or (names is not None and names != wanted):
        given = list(names) if names else f"{size} unnamed numbers"
        message = f"is {given}, expected {list(wanted)} (dataset.action_from: {config.dataset.action_from}): it would learn other motions"
        remedy = "dataset: {root: ...} of a recording for this task, or task: {type: ...} that it was recorded for"
        if names == LEROBOT_JOINT_NAMES or (names is None and size == len(LEROBOT_JOINT_NAMES)):
            remedy = "dataset: {action_from: joints}, which converts joint targets"
        elif names == config.action_names:
            remedy = "dataset: {action_from: column}"
        elif size in (3, 4) and len(wanted) in (3, 4):
            remedy = f"task: {{type: {'lift' if size == 4 else 'reach'}}}, or {remedy}"
        return [Finding("D06", "stops", _PLACE, message, remedy)]
    action = dataset.column(ACTION_KEY)
    if action.shape[1:] != (len(wanted),):
        message = f"meta/info.json declares {len(wanted)} numbers, the rows hold {action.shape[1:]}: they would be taken for one another"
        return [Finding("D18", "stops", _PLACE, message, "restore meta/info.json and data/ from the same recording")]
    findings = []
    if names is None:
        message = f"has no names; taken as {list(wanted)}: in another order, the policy would learn motions along other axes"
        remedy = f'meta/info.json: "action": {{"names": {list(wanted)}}}'.replace("'", '"')
        findings.append(Finding("D07", "warns", _PLACE, message, remedy))
    if config.dataset.action_from == "joints":
        return findings + _joint_targets(config, dataset, action, layout, converter)
    return findings + _range(config, dataset, action) + _gripper(config, dataset, action) + _constant(config, dataset, action)


def _range(config: TrainConfig, dataset: Dataset, action: np.ndarray) -> list[Finding]:
    """D07, D06: motions are in [-1, 1]; those that the robot's scale cannot express are counted."""
    discrete = config.dataset.gripper == "discrete" and "gripper" in config.action_names
    motion = action[:, :3] if discrete or _looks_discrete(config, action) else action
    outside = np.argwhere(np.abs(motion) > 1 + ACTION_TOLERANCE)
    if len(outside):
        row, dimension = outside[0]
        largest = float(np.abs(action[:, dimension]).max())
        message = (
            f"`{config.action_names[dimension]}` is {action[row, dimension]:.4g} at {place(dataset, int(row))} ({len(outside)} values in "
            f"all, up to {largest:.4g}), the policy acts in [-1, 1]: clipped, it would learn other motions than were made"
        )
        episodes = sorted({int(e) for e in dataset.frames["episode_index"].gather(outside[:, 0]).unique()})
        remedy = (
            f"divide the column by the motion of one step in a copy of the dataset (metres, degrees or pixels must become [-1, 1]); "
            f"with joint targets, dataset: {{action_from: joints}}; or {exclude(episodes)}"
        )
        return [Finding("D07", "stops", _PLACE, message, remedy)]
    return _needed_scale(config, dataset, action)


def _needed_scale(config: TrainConfig, dataset: Dataset, action: np.ndarray) -> list[Finding]:
    """D06: recorded motions, added up over one control step and in this robot's scale, fit into [-1, 1]."""
    recorded_m = config.dataset.action_scale_m or config.robot.action_scale_m
    if config.dataset.frame_rate == "convert" and dataset.fps >= config.robot.control_hz:
        motion_m = np.abs(control_steps(config, dataset).sum(action[:, :3].astype(np.float64))) * recorded_m
    elif recorded_m > config.robot.action_scale_m:
        motion_m = np.abs(action[:, :3].astype(np.float64)) * recorded_m
    else:
        return []
    clipped = (motion_m > config.robot.action_scale_m * (1 + ACTION_TOLERANCE)).any(axis=1)
    if not clipped.any():
        return []
    message = (
        f"{int(clipped.sum())} of {len(clipped)} control steps ({clipped.mean():.1%}) move further than robot.action_scale_m "
        f"({config.robot.action_scale_m:g} m) along an axis, up to {motion_m.max():.4g} m: cut off, they lead elsewhere"
    )
    stops = clipped.mean() > MAX_CLIPPED_SHARE
    return [Finding("D06", "stops" if stops else "warns", _PLACE, message, _scale_remedy(motion_m.max(axis=1)))]


def _scale_remedy(motion_m: np.ndarray) -> str:
    needed = math.ceil(float(np.quantile(motion_m, 0.99)) * 1000) / 1000
    if needed <= 0.1:
        return f"robot: {{action_scale_m: {needed:g}}}, if the arm may move that far in one step"
    return f"robot: {{action_scale_m: 0.1}} at most; 99 % of the steps need {needed:g} m: a higher robot: {{control_hz: ...}} divides them"


def _looks_discrete(config: TrainConfig, action: np.ndarray) -> bool:
    if "gripper" not in config.action_names:
        return False
    gripper = action[:, config.action_names.index("gripper")]
    return bool(gripper.max() > 1 + ACTION_TOLERANCE and np.isin(gripper, (0, 1, 2)).all())


def _gripper(config: TrainConfig, dataset: Dataset, action: np.ndarray) -> list[Finding]:
    """D07: the gripper's coding is the one that is stated, and it both opens and closes."""
    if "gripper" not in config.action_names:
        return []
    gripper, place_ = action[:, config.action_names.index("gripper")], f"{_PLACE}, `gripper`"
    discrete = config.dataset.gripper == "discrete"
    if not discrete and _looks_discrete(config, action):
        message = "holds LeRobot's classes 0 close, 1 stay, 2 open, and dataset.gripper says `continuous`: clipped, it never closes"
        return [Finding("D07", "stops", place_, message, "dataset: {gripper: discrete}")]
    if discrete:
        bad = np.flatnonzero(~np.isin(gripper, (0, 1, 2)))
        if len(bad):
            message = (
                f"is {gripper[bad[0]]:.4g} at {place(dataset, int(bad[0]))} ({len(bad)} values in all), dataset.gripper says `discrete`: "
                f"classes are {_CLASSES}; a coding read wrongly never reopens"
            )
            return [Finding("D07", "stops", place_, message, "dataset: {gripper: continuous}, if -1 closes and 1 opens")]
        gripper = gripper - 1
    if np.ptp(gripper) < MIN_ACTION_RANGE:
        return []  # Told as D05.
    opens, closes = bool((gripper > ACTION_TOLERANCE).any()), bool((gripper < -ACTION_TOLERANCE).any())
    if opens and closes:
        return []
    message = f"only ever {'opens' if opens else 'closes'}: the policy would never learn to {'close' if opens else 'open'} it"
    remedy = "record demonstrations that open and close it, or check the coding: dataset: {gripper: discrete} if it is 0/1/2"
    if not discrete and opens and gripper.min() >= 0:
        remedy = "a column in [0, 1] is an opening, not a command: write 2 * x - 1 in a copy of the dataset, or " + remedy
    return [Finding("D07", "warns", place_, message, remedy)]


def _constant(config: TrainConfig, dataset: Dataset, action: np.ndarray) -> list[Finding]:
    """D05: every dimension varies, and no episode is all zeros."""
    spread = np.ptp(action, axis=0)
    constant = [i for i in range(action.shape[1]) if spread[i] < MIN_ACTION_RANGE]
    remedy = "record again with the command that was sent; with joint targets in the dataset, dataset: {action_from: joints}"
    if constant:
        names = ", ".join(f"`{config.action_names[i]}` (always {action[0, i]:.4g})" for i in constant)
        message = (
            f"{names} never changes: a recorder's fallback, or a dimension the task does not need. The critic would learn that the other "
            "values do not exist, and its loss explodes when the policy tries them"
        )
        if constant == [3]:
            remedy = f"task: {{type: reach}}, which has no gripper, or {remedy}"
        return [Finding("D05", "stops", _PLACE, message, remedy)]
    resting = ~(np.abs(action) > ACTION_TOLERANCE).any(axis=1)
    if config.dataset.gripper == "discrete" and "gripper" in config.action_names:
        resting = ~(np.abs(action[:, :3]) > ACTION_TOLERANCE).any(axis=1)
    zero = [episode.index for episode in dataset.episodes if resting[episode.start : episode.stop].all()]
    if not zero:
        return []
    message = f"all zero in episodes {few(zero)}: a recorder's fallback; the policy would learn that standing still leads to success"
    return [Finding("D05", "warns", _PLACE, message, exclude(zero))]


def _joint_targets(
    config: TrainConfig, dataset: Dataset, target: np.ndarray, layout: StateLayout | None, converter: JointConverter | None
) -> list[Finding]:
    """D06: joint targets can be expressed as the policy's actions, and how well."""
    if layout is None or "joint_pos" not in layout.columns:
        message = f"dataset.action_from is `joints`, which needs the measured joints {list(LEROBOT_JOINT_NAMES)} in {STATE_KEY}"
        remedy = "dataset: {action_from: column}, or dataset: {state: [joint_pos]} where the numbers are joints without names"
        return [Finding("D06", "stops", _PLACE, message + ": motion is relative to where the arm was", remedy)]
    if not np.ptp(target, axis=0).any():
        message = "the joint targets never change: nothing was teleoperated, and nothing can be learned from it"
        return [Finding("D05", "stops", _PLACE, message, "record it again, with the leader arm's positions as action")]
    joints = layout.values(dataset.column(STATE_KEY), "joint_pos")
    assert joints is not None
    spans = np.abs(target[:, :5]).max(), np.abs(joints[:, :5]).max()
    limit = STATE_COMPONENTS["joint_pos"].limit + 0.1
    if min(spans) <= limit < max(spans) and max(spans) > 10 * min(spans):
        message = (
            f"targets reach {spans[0]:.3g}, measured joints {spans[1]:.3g}: one is in degrees and the other in radians, "
            "and every motion would be 57 times too large"
        )
        return [Finding("D17", "stops", _PLACE, message, "write both in degrees in a copy of the dataset, or record it again")]
    if converter is None:
        return []
    if not layout.lerobot_units:
        joints, target = converter.lerobot_units(joints), converter.lerobot_units(target)
    return _residual(config, dataset, joints, target, converter)


def _residual(config: TrainConfig, dataset: Dataset, joints: np.ndarray, target: np.ndarray, converter: JointConverter) -> list[Finding]:
    if config.dataset.frame_rate == "convert" and dataset.fps < config.robot.control_hz:
        return []  # Told as D18.
    steps = control_steps(config, dataset)
    every = max(1, math.ceil(len(steps.first) / _MAX_CONVERTED))
    rows, last = steps.first[::every], steps.last[::every]
    try:
        action, residual_m = converter.actions(joints[rows].astype(np.float64), target[last].astype(np.float64))
    except HilserlError as error:
        return [Finding("D06", "stops", _PLACE, f"cannot be converted: {error}", "dataset: {exclude_episodes: [...]} with that episode")]
    clipped = (np.abs(action) >= 1 - 1e-9).any(axis=1)
    lost = residual_m > _NOTICED_M
    worst = int(rows[int(np.argmax(residual_m))])
    message = (
        f"joint targets as end-effector motion ({len(rows)} of {len(steps.first)} steps): tool error {np.median(residual_m) * 1e3:.2f} mm "
        f"median, {np.quantile(residual_m, 0.95) * 1e3:.2f} mm at 95 %, {residual_m.max() * 1e3:.2f} mm at most ({place(dataset, worst)}); "
        f"{clipped.mean():.1%} of the steps reach the limit of an action, {lost.mean():.1%} lose more than {_NOTICED_M * 1e3:g} mm"
    )
    if lost.mean() <= _MANY:
        return [Finding("D06", "informs", _PLACE, message)]
    moved_m = np.abs(action[:, :3]).max(axis=1) * config.robot.action_scale_m + residual_m
    return [Finding("D06", "warns", _PLACE, message + ": the converted motions fall behind those that were made", _scale_remedy(moved_m))]
