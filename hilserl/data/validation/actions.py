"""D05, D06, D07: the actions are the policy's, by name and range, or joint targets to convert; and they vary."""

from __future__ import annotations

import json
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
# A joint that turns this far was moved, not shaken; a tenth of the jaw's range.
_MOVED_RAD = (0.1, 0.1, 0.1, 0.1, 0.1, 0.19)
_JAW = 5
# What the configuration allows [m].
_LARGEST_SCALE_M = 0.1
# A correlation below this explains less than a tenth.
_EXPLAINED = 0.3


def check_action(
    config: TrainConfig, dataset: Dataset, layout: StateLayout | None, converter: JointConverter | None
) -> tuple[list[Finding], bool]:
    """Check the recorded actions of the episodes in `dataset`.

    Returns:
        Findings, and whether the numbers are what the configuration takes them for, so that their motion means something.
    """
    names, action = dataset.names(ACTION_KEY), dataset.column(ACTION_KEY)
    joints = config.dataset.action_from == "joints"
    wanted = LEROBOT_JOINT_NAMES if joints else config.action_names
    findings, known = _named(config, dataset, names, action.shape[1:], wanted)
    if not known:
        return findings, False
    if joints:
        told, known = _joint_targets(config, dataset, action, layout)
        return findings + told, known
    return findings + _range(config, dataset, action) + _gripper(config, dataset, action) + _constant(config, dataset, action), True


def _named(
    config: TrainConfig, dataset: Dataset, names: tuple[str, ...] | None, held: tuple[int, ...], wanted: tuple[str, ...]
) -> tuple[list[Finding], bool]:
    """D06, D07: names, declared size and rows (`held`) agree with each other and with what is wanted."""
    size = dataset.shape(ACTION_KEY)[0]
    if held != (size,):
        message = f"the rows hold values of shape {held}, {size} numbers are declared: they would be taken for one another"
        return [Finding("D18", "stops", _PLACE, message, "# restore meta/info.json and data/ from the same recording")], False
    if size != len(wanted) or (names is not None and names != wanted):
        given = list(names) if names else f"{size} unnamed numbers"
        message = f"is {given}, expected {list(wanted)} (dataset.action_from: {config.dataset.action_from}): it would learn other motions"
        remedy = "# name a recording for this task as dataset.root, or as task.type the task that it was recorded for"
        if names == LEROBOT_JOINT_NAMES or (names is None and size == len(LEROBOT_JOINT_NAMES)):
            remedy = "dataset: {action_from: joints}  # converts joint targets"
        elif names == config.action_names:
            remedy = "dataset: {action_from: column}"
        elif size in (3, 4) and len(wanted) in (3, 4):
            remedy = f"task: {{type: {'lift' if size == 4 else 'reach'}}}  # that it was recorded for\n# or name a recording for this task"
        return [Finding("D06", "stops", _PLACE, message, remedy)], False
    if names is None:
        message = f"has no names; taken as {list(wanted)}: in another order, the policy would learn motions along other axes"
        remedy = f'# in a copy of the dataset, meta/info.json: "{ACTION_KEY}": {{"names": {json.dumps(list(wanted))}}}'
        return [Finding("D07", "warns", _PLACE, message, remedy)], True
    return [], True


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
        remedy = "# divide the column by the motion of one step in a copy of the dataset: metres, degrees or pixels must become [-1, 1]"
        remedy += f"\n# or: {exclude(episodes, 'to train without')}"
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
    return [Finding("D06", "stops" if stops else "warns", _PLACE, message, _scale_remedy(config, motion_m.max(axis=1)))]


def _scale_remedy(config: TrainConfig, motion_m: np.ndarray) -> str:
    needed = math.ceil(float(np.quantile(motion_m, 0.99)) * 1000) / 1000
    scale = min(needed, _LARGEST_SCALE_M)
    divide = "# a higher robot.control_hz divides the motions" if needed > _LARGEST_SCALE_M or scale <= config.robot.action_scale_m else ""
    if scale <= config.robot.action_scale_m:
        return divide
    when = "if the arm may move that far in one step" if not divide else f"at most; 99 % of the steps need {needed:g} m"
    return f"robot: {{action_scale_m: {scale:g}}}  # {when}" + (f"\n{divide}" if divide else "")


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
            return [Finding("D07", "stops", place_, message, "dataset: {gripper: continuous}  # where -1 closes and 1 opens")]
        gripper = gripper - 1
    if np.ptp(gripper) < MIN_ACTION_RANGE:
        return []  # Told as D05.
    opens, closes = bool((gripper > ACTION_TOLERANCE).any()), bool((gripper < -ACTION_TOLERANCE).any())
    if opens and closes:
        return []
    message = f"only ever {'opens' if opens else 'closes'}: the policy would never learn to {'close' if opens else 'open'} it"
    remedy = "# record demonstrations that open and close it"
    if not discrete and opens and gripper.min() >= 0:
        remedy += "\n# or write 2 * x - 1 for x in a copy of the dataset, where the column is an opening in [0, 1]"
    return [Finding("D07", "warns", place_, message, remedy)]


def _constant(config: TrainConfig, dataset: Dataset, action: np.ndarray) -> list[Finding]:
    """D05: every dimension varies, and no episode is all zeros."""
    spread = np.ptp(action, axis=0)
    constant = [i for i in range(action.shape[1]) if spread[i] < MIN_ACTION_RANGE]
    remedy = "# record again with the command that was sent"
    if constant:
        names = ", ".join(f"`{config.action_names[i]}` (always {action[0, i]:.4g})" for i in constant)
        message = (
            f"{names} never changes: a recorder's fallback, or a dimension the task does not need. The critic would learn that the other "
            "values do not exist, and its loss explodes when the policy tries them"
        )
        if constant == [3]:
            remedy += "\n# or: task: {type: reach}  # which has no gripper"
        return [Finding("D05", "stops", _PLACE, message, remedy)]
    resting = ~(np.abs(action) > ACTION_TOLERANCE).any(axis=1)
    if config.dataset.gripper == "discrete" and "gripper" in config.action_names:
        resting = ~(np.abs(action[:, :3]) > ACTION_TOLERANCE).any(axis=1)
    zero = [episode.index for episode in dataset.episodes if resting[episode.start : episode.stop].all()]
    if not zero:
        return []
    message = f"all zero in episodes {few(zero)}: a recorder's fallback; the policy would learn that standing still leads to success"
    return [Finding("D05", "warns", _PLACE, message, exclude(zero))]


def _joint_targets(config: TrainConfig, dataset: Dataset, target: np.ndarray, layout: StateLayout | None) -> tuple[list[Finding], bool]:
    """D05, D06, D17: joint targets belong to measured joints, in the same unit, and change."""
    if layout is None or "joint_pos" not in layout.columns:
        message = f"dataset.action_from is `joints`, which needs the measured joints {list(LEROBOT_JOINT_NAMES)} in {STATE_KEY}"
        remedy = f"# record again with the measured joints in {STATE_KEY}"
        if STATE_KEY not in dataset.frames.columns:
            remedy = "# restore data/ from the recording, or record it again: targets alone do not say how far the arm moved"
        elif layout is None:
            remedy = f"# say what the numbers of {STATE_KEY} are first (D04)"
        return [Finding("D06", "stops", _PLACE, message + ": motion is relative to where the arm was", remedy)], False
    if not np.ptp(target, axis=0).any():
        message = "the joint targets never change: nothing was teleoperated, and nothing can be learned from it"
        return [Finding("D05", "stops", _PLACE, message, "# record it again, with the leader arm's positions as action")], False
    state = dataset.column(STATE_KEY)
    joints = layout.values(state, "joint_pos")
    assert joints is not None
    spans = np.abs(target[:, :5]).max(), np.abs(joints[:, :5]).max()
    limit = STATE_COMPONENTS["joint_pos"].limit + 0.1
    if min(spans) <= limit < max(spans) and max(spans) > 10 * min(spans):
        message = (
            f"targets reach {spans[0]:.3g}, measured joints {spans[1]:.3g}: one is in degrees and the other in radians, "
            "and every motion would be 57 times too large"
        )
        remedy = "# write both in degrees in a copy of the dataset, or record it again"
        return [Finding("D17", "stops", _PLACE, message, remedy)], False
    measured = layout.joints_rad(state)
    assert measured is not None
    return _frozen(config, dataset, target, measured), True


def _frozen(config: TrainConfig, dataset: Dataset, target: np.ndarray, measured_rad: np.ndarray) -> list[Finding]:
    """D05: the target of a joint that moves is not always the same, and that of the gripper changes with the jaw."""
    findings = []
    for joint, name in enumerate(LEROBOT_JOINT_NAMES):
        if joint == _JAW and "gripper" not in config.action_names:
            continue
        still: dict[int, bool] = {}
        for episode in dataset.episodes:
            rows = slice(episode.start, episode.stop)
            same = np.ptp(target[rows, joint]) < MIN_ACTION_RANGE and np.ptp(measured_rad[rows, joint]) > _MOVED_RAD[joint]
            still[episode.index] = still.get(episode.index, False) or bool(same)
        frozen = sorted(index for index, same in still.items() if same)
        always = np.ptp(target[:, joint]) < MIN_ACTION_RANGE
        place_ = f"{_PLACE}, `{name}`"
        if frozen:
            low, high = np.degrees(measured_rad[:, joint].min()), np.degrees(measured_rad[:, joint].max())
            message = (
                f"the target is always {target[0, joint]:.4g}" if always else f"the target never changes in episodes {few(frozen)}"
            ) + f", while the measured joint moves over {high - low:.0f}°: the command was not recorded, and no policy learns from it"
            remedy = "# record again with the command that was sent"
            if not always:
                remedy = f"{exclude(frozen, 'to train without')}\n{remedy}"
            findings.append(Finding("D05", "stops" if always else "warns", place_, message, remedy))
        elif always and joint == _JAW and "gripper" in config.action_names:
            message = (
                f"the target is always {target[0, joint]:.4g}, and the jaw does not move: the policy would not learn to use the gripper"
            )
            remedy = "# record demonstrations that open and close it\n# or: task: {type: reach}  # which has no gripper"
            findings.append(Finding("D05", "warns", place_, message, remedy))
    told = any(finding.place.endswith(f"`{LEROBOT_JOINT_NAMES[_JAW]}`") for finding in findings)
    if not told and "gripper" in config.action_names:
        findings += _jaw_target(target[:, _JAW], measured_rad[:, _JAW])
    return findings


def _jaw_target(target: np.ndarray, measured_rad: np.ndarray) -> list[Finding]:
    """D07, D08: the jaw goes where its target is; by hand or with another sign it does not."""
    if np.ptp(target) < MIN_ACTION_RANGE or np.ptp(measured_rad) <= _MOVED_RAD[_JAW]:
        return []
    correlation = float(np.corrcoef(target, measured_rad)[0, 1])
    if correlation >= _EXPLAINED:
        return []
    place_ = f"{_PLACE}, `{LEROBOT_JOINT_NAMES[_JAW]}`"
    if correlation < -_EXPLAINED:
        message = f"the jaw moves against its target (correlation {correlation:.2f}): it would open where it must close"
        return [Finding("D07", "stops", place_, message, "# write 100 - x for the target's x in a copy of the dataset, or record it again")]
    message = (
        f"the target does not explain where the jaw is (correlation {correlation:.2f}): the policy would learn to grasp at other moments"
    )
    return [Finding("D08", "warns", place_, message, "# record again with the command that was sent, and the jaw moved by it alone")]


def check_conversion(
    config: TrainConfig, dataset: Dataset, layout: StateLayout | None, converter: JointConverter | None, *, in_step: bool
) -> list[Finding]:
    """D06: how well joint targets can be expressed as the policy's actions.

    Args:
        config: Says how they are converted.
        dataset: The episodes to look at.
        layout: Where the measured joints are.
        converter: The one kinematics; nothing is checked without.
        in_step: Actions and observations are paired as they should be; else what is lost says nothing of the scale.
    """
    if converter is None or layout is None or "joint_pos" not in layout.columns:
        return []
    joints, target = layout.values(dataset.column(STATE_KEY), "joint_pos"), dataset.column(ACTION_KEY)
    assert joints is not None
    if not layout.lerobot_units:
        joints, target = converter.lerobot_units(joints), converter.lerobot_units(target)
    return _residual(config, dataset, joints, target, converter, in_step=in_step)


def _residual(
    config: TrainConfig, dataset: Dataset, joints: np.ndarray, target: np.ndarray, converter: JointConverter, *, in_step: bool
) -> list[Finding]:
    if config.dataset.frame_rate == "convert" and dataset.fps < config.robot.control_hz:
        return []  # Told as D18.
    steps = control_steps(config, dataset)
    every = max(1, math.ceil(len(steps.first) / _MAX_CONVERTED))
    rows, last = steps.first[::every], steps.last[::every]
    try:
        action, residual_m = converter.actions(joints[rows].astype(np.float64), target[last].astype(np.float64))
    except HilserlError as error:
        return [Finding("D06", "stops", _PLACE, f"cannot be converted: {error}", "# leave that episode out, or record it again")]
    clipped = (np.abs(action) >= 1 - 1e-9).any(axis=1)
    lost = residual_m > _NOTICED_M
    worst = int(rows[int(np.argmax(residual_m))])
    message = (
        f"joint targets as end-effector motion ({len(rows)} of {len(steps.first)} steps): tool error {np.median(residual_m) * 1e3:.2f} mm "
        f"median, {np.quantile(residual_m, 0.95) * 1e3:.2f} mm at 95 %, {residual_m.max() * 1e3:.2f} mm at most ({place(dataset, worst)}); "
        f"{clipped.mean():.1%} of the steps reach the limit of an action, {lost.mean():.1%} lose more than {_NOTICED_M * 1e3:g} mm"
    )
    if not in_step and lost.mean() > _MANY:
        message += ". What is lost says little while actions and observations are out of step (D09)"
    if not in_step or lost.mean() <= _MANY:
        return [Finding("D06", "informs", _PLACE, message)]
    moved_m = np.abs(action[:, :3]).max(axis=1) * config.robot.action_scale_m + residual_m
    message += ": the converted motions fall behind those that were made"
    return [Finding("D06", "warns", _PLACE, message, _scale_remedy(config, moved_m))]
