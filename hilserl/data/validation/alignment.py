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

# Actions that were recorded by another process, or after a queue, are late by tenths of a second.
_SEARCHED_S = 0.5
_LEAST_LAGS = 2
# Motion over less than this is mostly the noise of the encoders at high frame rates.
_SPAN_S = 0.1
# A follower arm reaches a moving target one to three frames late at 30 Hz; a slow bus or camera takes no longer than this.
_SERVO_LATENCY_S = 0.2
# Enough for two digits of a correlation, and few enough to take no time.
_MAX_ROWS = 50_000
_MAX_CONVERTED = 5_000
_MIN_PAIRS = 30
# A correlation below this explains less than a tenth of the motion; of a difference smaller than the second, nothing follows.
_CLEAR = 0.3
_MARGIN = 0.05
# Of joints, target and measurement are the same quantity: noise decides between lags by a share of what the best leaves unexplained.
_JOINT_MARGIN = 0.1
_LEAST_MARGIN = 0.002
_PLACE = f"`{ACTION_KEY}`"
_UNCHECKED = "whether actions and frames are paired is not checked, because"


@dataclass(frozen=True)
class _Motion:
    """Command and measured motion of the same steps.

    Attributes:
        command: Shape (N, D): the motion that was asked for up to each frame; NaN where an episode is too young.
        measured: Shape (N, D): the motion up to the frame after each; NaN there too, and on an episode's last frame.
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
    """Correlate commanded with measured motion, at the recorded rate, over lags of up to half a second."""
    if layout is None:
        return [_not_checked(f"what the numbers of {STATE_KEY} are is not known")], None
    motion = _motion(config, dataset, layout, converter)
    if motion is None:
        return [_not_checked("neither the tool's position nor joints are recorded")], None
    lags, curve, pairs = _curve(motion, dataset.fps)
    if min(pairs) < _MIN_PAIRS:
        return [_not_checked(f"there are only {min(pairs)} frames to compare, {_MIN_PAIRS} are needed")], None
    if not np.isfinite(curve).all():
        return [_not_checked("nothing moves, or nothing was commanded")], None
    best = int(np.argmax(curve))
    # Within the noise, the lag that should be best is.
    joints = config.dataset.action_from == "joints"
    normal = [i for i, lag in enumerate(lags) if 0 <= lag <= (_SERVO_LATENCY_S * dataset.fps if joints else 0)]
    likely = max(normal, key=lambda i: curve[i])
    margin = max(_LEAST_MARGIN, _JOINT_MARGIN * (1 - curve[best])) if joints else _MARGIN
    if curve[likely] >= curve[best] - margin:
        best = likely
    alignment = Alignment(lags, tuple(round(value, 4) for value in curve), lags[best])
    findings = _lag(config, dataset, alignment, pairs[best])
    if config.dataset.action_from == "column" and (alignment.best_lag == 0 or max(curve) < _CLEAR):
        findings += _direction_and_scale(config, motion)
    return findings, alignment


def _not_checked(reason: str) -> Finding:
    return Finding("D09", "informs", _PLACE, f"{_UNCHECKED} {reason}")


def _curve(motion: _Motion, fps: float) -> tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...]]:
    """Return lags, the correlation at each, and from how many frames; short episodes allow fewer lags."""
    most = max(_LEAST_LAGS, round(_SEARCHED_S * fps))
    found = {0: _correlation(motion, 0)}
    for lag in range(1, most + 1):
        both = _correlation(motion, -lag), _correlation(motion, lag)
        if lag > _LEAST_LAGS and min(both[0][1], both[1][1]) < _MIN_PAIRS:
            break
        found[-lag], found[lag] = both
    lags = tuple(sorted(found))
    return lags, tuple(found[lag][0] for lag in lags), tuple(found[lag][1] for lag in lags)


def _lag(config: TrainConfig, dataset: Dataset, alignment: Alignment, pairs: int) -> list[Finding]:
    lag, lags = alignment.best_lag, alignment.lags
    at_zero, best = alignment.correlation[lags.index(0)], alignment.correlation[lags.index(lag)]
    told = f"correlation {best:.2f} at lag {lag}" + (f", {at_zero:.2f} at lag 0" if lag else "")
    joints = config.dataset.action_from == "joints"
    if best < max(_CLEAR, 5 / np.sqrt(pairs)):
        if pairs < 10 * _MIN_PAIRS:
            return [_not_checked(f"{pairs} frames are too few to tell: no lag from {lags[0]} to {lags[-1]} frames stands out ({told})")]
        message = (
            f"the commands do not explain the measured motion at any lag from {lags[0]} to {lags[-1]} frames ({told}): another frame of "
            "reference, or another recording"
        )
        remedy = "# look at the alignment curve in the report, and record again with the command that was sent"
        return [Finding("D09", "warns", _PLACE, message, remedy)]
    at_least = "at least " if lag in (lags[0], lags[-1]) and abs(lag) > _LEAST_LAGS else ""
    frames = f"{at_least}{abs(lag)} frame(s) = {abs(lag) / dataset.fps * 1000:.0f} ms"
    if lag < 0:
        message = (
            f"the arm moves {frames} before its command can have moved it ({told}): actions were recorded late, each is paired with an "
            "observation after it, and the policy would learn to command what has already happened"
        )
        remedy = (
            f"# move the column `action` up by {-lag} row(s) inside each episode in a copy of the dataset, or record again with each "
            "action beside the observation that it answers"
        )
        return [Finding("D09", "stops", _PLACE, message, remedy)]
    if lag == 0:
        return [Finding("D09", "informs", _PLACE, f"command and motion belong together ({told})")]
    delay = f"the arm follows its command {frames} late ({told})"
    if joints and lag / dataset.fps <= _SERVO_LATENCY_S:
        message = f"{delay}: the servos' latency, which is normal up to {_SERVO_LATENCY_S:g} s"
        return [Finding("D09", "informs", _PLACE, f"{message}; the conversion is relative to the measured joints")]
    message = f"{delay}: either the arm's latency, or each action is paired with an observation before it and answers one not yet seen"
    remedy = f"# move the column `action` down by {lag} row(s) inside each episode in a copy of the dataset"
    slower = float(f"{dataset.fps / (lag + 1):.2g}")
    if slower < config.robot.control_hz:
        remedy += f"\n# or: {{robot: {{control_hz: {slower:g}}}, dataset: {{frame_rate: convert}}}}  # if the arm is that slow"
    return [Finding("D09", "warns", _PLACE, message, remedy)]


def _direction_and_scale(config: TrainConfig, motion: _Motion) -> list[Finding]:
    """D06: an axis of the action is the same axis of the base frame, and 1 is action_scale_m."""
    stated_m = config.dataset.action_scale_m or config.robot.action_scale_m
    valid = np.isfinite(motion.measured).all(axis=1) & np.isfinite(motion.command).all(axis=1)
    command, measured = motion.command[valid], motion.measured[valid]
    findings, slopes = [], []
    for axis, name in enumerate(motion.axes):
        if command[:, axis].std() < 1e-6 or measured[:, axis].std() < 1e-9:
            continue
        correlation = np.corrcoef(command[:, axis], measured[:, axis])[0, 1]
        if correlation < -_CLEAR:
            message = f"`{name}` and the measured motion are opposed (correlation {correlation:.2f}): the policy would move the wrong way"
            remedy = f"# change the sign of `{name}` in a copy of the dataset: the base frame is x forward, y left, z up"
            findings.append(Finding("D06", "stops", _PLACE, message, remedy))
        elif correlation > _CLEAR:
            slopes.append(float((command[:, axis] * measured[:, axis]).sum() / (command[:, axis] ** 2).sum()))
    if slopes and not 0.25 <= float(np.median(slopes)) / stated_m <= 2.5:
        actual = float(np.median(slopes))
        message = (
            f"an action of 1 moved the tool {actual * 1000:.2g} mm, action_scale_m says {stated_m * 1000:.3g} mm: on the arm the same "
            f"action would move {stated_m / actual:.2g} times as far as it did in the demonstrations"
        )
        findings.append(Finding("D06", "warns", _PLACE, message, f"dataset: {{action_scale_m: {actual:.2g}}}  # as it was recorded"))
    return findings


def _correlation(motion: _Motion, lag: int) -> tuple[float, int]:
    """Correlate commands with the motion `lag` frames later, each axis weighing the same."""
    count = max(0, len(motion.command) - abs(lag))
    first, second = slice(max(0, -lag), max(0, -lag) + count), slice(max(0, lag), max(0, lag) + count)
    command, measured = motion.command[first], motion.measured[second]
    valid = (motion.episode[first] == motion.episode[second]) & np.isfinite(measured).all(axis=1) & np.isfinite(command).all(axis=1)
    if valid.sum() < 2:
        return float("nan"), int(valid.sum())
    command, measured = command[valid] - command[valid].mean(axis=0), measured[valid] - measured[valid].mean(axis=0)
    spread = command.std(axis=0), measured.std(axis=0)
    axes = (spread[0] > 1e-9) & (spread[1] > 1e-9)
    if not axes.any():
        return float("nan"), int(valid.sum())
    products = (command[:, axes] / spread[0][axes]) * (measured[:, axes] / spread[1][axes])
    return float(products.mean()), int(valid.sum())


def _motion(config: TrainConfig, dataset: Dataset, layout: StateLayout, converter: JointConverter | None) -> _Motion | None:
    joints = config.dataset.action_from == "joints"
    through_kinematics = not joints and "ee_pos" not in layout.columns
    if through_kinematics and (converter is None or "joint_pos" not in layout.columns):
        return None
    rows, episode = _some_rows(dataset, _MAX_CONVERTED if through_kinematics else _MAX_ROWS)
    state = dataset.column(STATE_KEY)[rows].astype(np.float64)
    action = dataset.column(ACTION_KEY)[rows].astype(np.float64)
    if joints:
        position, commanded, axes = layout.values(state, "joint_pos"), action, tuple(dataset.names(ACTION_KEY) or ())
    else:
        position = _tool(config, layout, state, episode, converter) if through_kinematics else layout.values(state, "ee_pos")
        # Added up, displacements are positions, up to a start that differences do not show.
        commanded, axes = np.cumsum(action[:, :3], axis=0), config.action_names[:3]
    if position is None:
        return None
    span, row = max(1, round(_SPAN_S * dataset.fps)), np.arange(len(rows))
    first = np.append(True, episode[1:] != episode[:-1])
    age = row - np.maximum.accumulate(np.where(first, row, 0))
    following, last = np.minimum(row + 1, len(row) - 1), np.roll(first, -1)
    last[-1] = True
    command = commanded - commanded[np.maximum(row - span, 0)]
    measured = position[following] - position[np.maximum(row + 1 - span, 0)]
    command[age < span] = np.nan
    measured[last | (age + 1 < span)] = np.nan
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
