"""D09: does the command at a frame explain the motion that follows it, and in the direction and size that it says?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.interfaces import JointConverter
from hilserl.data.validation.findings import Alignment, Finding
from hilserl.data.validation.state import StateLayout
from hilserl.schema import ACTION_KEY, STATE_KEY, policy_schema

_LAGS = (-2, -1, 0, 1, 2)
# Enough for two digits of a correlation, and few enough to take no time.
_MAX_ROWS = 50_000
_MAX_CONVERTED = 5_000
_MIN_PAIRS = 30
# A correlation below this explains less than a tenth of the motion; of a difference smaller than the second, nothing follows.
_CLEAR = 0.3
_MARGIN = 0.05
_PLACE = f"`{ACTION_KEY}`"


@dataclass(frozen=True)
class _Motion:
    """Command and measured motion of the same steps.

    Attributes:
        command: Shape (N, D): what was asked for at each frame.
        measured: Shape (N, D): displacement from each frame to the next; NaN on an episode's last frame.
        episode: Shape (N,).
        axes: Names, D of them.
    """

    command: np.ndarray
    measured: np.ndarray
    episode: np.ndarray
    axes: tuple[str, ...]


def check_alignment(
    config: TrainConfig, dataset: Dataset, layout: StateLayout | None, converter: JointConverter | None
) -> tuple[list[Finding], Alignment | None]:
    """Correlate commanded with measured motion over lags from -2 to 2 frames."""
    motion = _motion(config, dataset, layout, converter)
    if motion is None:
        if config.dataset.action_from == "joints" or layout is None:
            return [], None
        message = "whether actions and frames are paired cannot be checked: neither the tool's position nor joints are recorded"
        return [Finding("D09", "informs", _PLACE, message)], None
    curve, pairs = zip(*(_correlation(motion, lag) for lag in _LAGS), strict=True)
    if min(pairs) < _MIN_PAIRS or not np.isfinite(curve).all():
        return [], None
    best = int(np.argmax(curve))
    # Within the noise, the lag that should be best is.
    if curve[_LAGS.index(0)] >= curve[best] - _MARGIN:
        best = _LAGS.index(0)
    alignment = Alignment(_LAGS, tuple(round(float(value), 4) for value in curve), _LAGS[best])
    findings = _lag(config, dataset, alignment, pairs[best])
    if config.dataset.action_from == "column" and (alignment.best_lag == 0 or max(curve) < _CLEAR):
        findings += _direction_and_scale(config, motion)
    return findings, alignment


def _lag(config: TrainConfig, dataset: Dataset, alignment: Alignment, pairs: int) -> list[Finding]:
    lag, at_zero = alignment.best_lag, alignment.correlation[_LAGS.index(0)]
    best = max(alignment.correlation) if lag else at_zero
    told = f"correlation {best:.2f} at lag {lag}" + (f", {at_zero:.2f} at lag 0" if lag else "")
    joints = config.dataset.action_from == "joints"
    if best < max(_CLEAR, 5 / np.sqrt(pairs)):
        if pairs < 10 * _MIN_PAIRS:
            return []
        message = f"the commands do not explain the measured motion at any lag ({told}): another frame of reference, or another recording"
        remedy = "look at the alignment curve in the report; record again with the command sent, or dataset: {action_from: joints}"
        return [Finding("D09", "warns", _PLACE, message, remedy)]
    if lag < 0:
        message = (
            f"the arm moves {-lag} frame(s) before its command ({told}): each action is paired with an observation after it, "
            "and the policy would learn to command what has already happened"
        )
        remedy = (
            f"move the column `action` up by {-lag} row(s) inside each episode in a copy of the dataset, or record again with each action "
            "beside the observation that it answers"
        )
        return [Finding("D09", "stops", _PLACE, message, remedy)]
    if lag == 0:
        return [Finding("D09", "informs", _PLACE, f"command and motion belong together ({told})")]
    delay = f"the arm follows its command {lag} frame(s) = {lag / dataset.fps:.2g} s late ({told})"
    if joints and lag / dataset.fps <= 0.2:
        return [Finding("D09", "informs", _PLACE, f"{delay}: the servos' latency; the conversion is relative to the measured joints")]
    message = f"{delay}: either the arm's latency, or each action is paired with an observation before it and answers one not yet seen"
    remedy = (
        f"if the arm is that slow, robot: {{control_hz: ...}} below {dataset.fps / (lag + 1):.3g} with dataset: {{frame_rate: convert}}; "
        f"otherwise move the column `action` down by {lag} row(s) inside each episode in a copy of the dataset"
    )
    return [Finding("D09", "warns", _PLACE, message, remedy)]


def _direction_and_scale(config: TrainConfig, motion: _Motion) -> list[Finding]:
    """D06: an axis of the action is the same axis of the base frame, and 1 is action_scale_m."""
    stated_m = config.dataset.action_scale_m or config.robot.action_scale_m
    valid = np.isfinite(motion.measured).all(axis=1)
    command, measured = motion.command[valid], motion.measured[valid]
    findings, slopes = [], []
    for axis, name in enumerate(motion.axes):
        if command[:, axis].std() < 1e-6 or measured[:, axis].std() < 1e-9:
            continue
        correlation = np.corrcoef(command[:, axis], measured[:, axis])[0, 1]
        if correlation < -_CLEAR:
            message = f"`{name}` and the measured motion are opposed (correlation {correlation:.2f}): the policy would move the wrong way"
            remedy = f"change the sign of `{name}` in a copy of the dataset: the base frame is x forward, y left, z up"
            findings.append(Finding("D06", "stops", _PLACE, message, remedy))
        elif correlation > _CLEAR:
            slopes.append(float((command[:, axis] * measured[:, axis]).sum() / (command[:, axis] ** 2).sum()))
    if slopes and not 0.25 <= float(np.median(slopes)) / stated_m <= 2.5:
        actual = float(np.median(slopes))
        message = (
            f"an action of 1 moved the tool {actual * 1000:.2g} mm, action_scale_m says {stated_m * 1000:.3g} mm: on the arm the same "
            f"action would move {stated_m / actual:.2g} times as far as it did in the demonstrations"
        )
        findings.append(Finding("D06", "warns", _PLACE, message, f"dataset: {{action_scale_m: {actual:.2g}}}, as it was recorded"))
    return findings


def _correlation(motion: _Motion, lag: int) -> tuple[float, int]:
    """Correlate commands with the motion `lag` frames later, each axis weighing the same."""
    count = len(motion.command) - abs(lag)
    first, second = slice(max(0, -lag), max(0, -lag) + count), slice(max(0, lag), max(0, lag) + count)
    command, measured = motion.command[first], motion.measured[second]
    valid = (motion.episode[first] == motion.episode[second]) & np.isfinite(measured).all(axis=1) & np.isfinite(command).all(axis=1)
    if valid.sum() < 2:
        return float("nan"), 0
    command, measured = command[valid] - command[valid].mean(axis=0), measured[valid] - measured[valid].mean(axis=0)
    spread = command.std(axis=0), measured.std(axis=0)
    axes = (spread[0] > 1e-9) & (spread[1] > 1e-9)
    if not axes.any():
        return float("nan"), 0
    products = (command[:, axes] / spread[0][axes]) * (measured[:, axes] / spread[1][axes])
    return float(products.mean()), int(valid.sum())


def _motion(config: TrainConfig, dataset: Dataset, layout: StateLayout | None, converter: JointConverter | None) -> _Motion | None:
    if layout is None:
        return None
    joints = config.dataset.action_from == "joints"
    through_kinematics = not joints and "ee_pos" not in layout.columns
    if through_kinematics and (converter is None or "joint_pos" not in layout.columns):
        return None
    rows, episode = _some_rows(dataset, _MAX_CONVERTED if through_kinematics else _MAX_ROWS)
    state = dataset.column(STATE_KEY)[rows].astype(np.float64)
    action = dataset.column(ACTION_KEY)[rows].astype(np.float64)
    last = np.append(episode[1:] != episode[:-1], True)
    first = np.roll(last, 1)
    if joints:
        position = layout.values(state, "joint_pos")
        if position is None:
            return None
        command = np.diff(action, axis=0, prepend=action[:1])
        command[first] = np.nan
        axes = tuple(dataset.names(ACTION_KEY) or ())
    else:
        position = _tool(config, layout, state, episode, converter) if through_kinematics else layout.values(state, "ee_pos")
        if position is None:
            return None
        command, axes = action[:, :3], config.action_names[:3]
    measured = np.diff(position, axis=0, append=position[-1:])
    measured[last] = np.nan
    return _Motion(command, measured, episode, axes)


def _some_rows(dataset: Dataset, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Take whole episodes, evenly spread, of at most about `most` rows; returns rows and their episode."""
    every = max(1, -(-len(dataset.frames) // most))
    chosen = dataset.episodes[::every]
    rows = np.concatenate([np.arange(episode.start, episode.stop) for episode in chosen])
    return rows, np.repeat(np.arange(len(chosen)), [episode.length for episode in chosen])


def _tool(
    config: TrainConfig, layout: StateLayout, state: np.ndarray, episode: np.ndarray, converter: JointConverter | None
) -> np.ndarray | None:
    names = policy_schema(config).observation[STATE_KEY].names
    joints = layout.values(state, "joint_pos")
    if converter is None or joints is None or "ee_pos.x" not in names:
        return None
    joints = joints if layout.lerobot_units else converter.lerobot_units(joints)
    start = names.index("ee_pos.x")
    return np.concatenate([converter.state(joints[episode == e])[:, start : start + 3] for e in np.unique(episode)])
