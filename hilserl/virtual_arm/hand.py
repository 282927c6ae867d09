"""A hand that moves an arm: to a pose, through every joint's range, in waves, or along a recording."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilserl.errors import DatasetError
from hilserl.robot.units import joints_from_lerobot
from hilserl.schema import ACTION_KEY, JOINT_NAMES

Array = NDArray[np.floating[Any]]

DEFAULT_SPEED_RAD_S = 1.0
DEFAULT_TORQUE_NM = 6.0
"""A hand is stronger than a servo (2.94 N m), but not by much."""

_ONTO_THE_STOP_RAD = 0.03
_DWELL = 30  # waypoints of 10 ms
_GENTLE_NM = 4.0
# Where other joints are while one goes to its lower, then to its upper stop.
_CLEAR_OF_ALL: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "shoulder_pan": ({}, {}),
    "shoulder_lift": ({"elbow_flex": 1.4}, {"elbow_flex": -1.6, "wrist_flex": -0.8}),
    "elbow_flex": ({}, {"shoulder_lift": -1.6}),  # its upper stop is 16 ticks beyond where the forearm touches the shoulder
    "wrist_flex": ({"shoulder_lift": -0.8}, {"shoulder_lift": -0.8}),
    "gripper": ({}, {}),
}
_WAVE_HZ = (0.11, 0.13, 0.17, 0.19, 0.23, 0.29)  # never all at an end at once
_WAVE_CENTRE_RAD = (0.0, -0.6, 0.6, 0.9, 0.0, 0.6)
_WAVE_RAD = (0.8, 0.35, 0.35, 0.4, 0.8, 0.5)


@dataclass(frozen=True)
class Movement:
    """Where the hand is over time, linear between waypoints.

    Attributes:
        times_s: Of the waypoints, from 0 on [s], shape (N,).
        joints_rad: Waypoints [rad], shape (N, 6); NaN: the hand does not touch that joint.
        torque_nm: The most it gives to a joint [N m].
        loop_from_s: At the end it goes on from there [s]; None: it holds.
    """

    times_s: Array
    joints_rad: Array
    torque_nm: float = DEFAULT_TORQUE_NM
    loop_from_s: float | None = None

    def at(self, time_s: float) -> Array:
        """Return where it is at `time_s` after its start [rad], shape (6,)."""
        end_s = float(self.times_s[-1])
        if self.loop_from_s is not None and time_s > end_s > self.loop_from_s:
            time_s = self.loop_from_s + (time_s - self.loop_from_s) % (end_s - self.loop_from_s)
        after = int(np.searchsorted(self.times_s, time_s, side="right"))
        if after == 0 or after == len(self.times_s):
            where: Array = self.joints_rad[min(after, len(self.times_s) - 1)]
            return where
        start_s, stop_s = self.times_s[after - 1], self.times_s[after]
        share = (time_s - start_s) / (stop_s - start_s)
        between: Array = self.joints_rad[after - 1] * (1 - share) + self.joints_rad[after] * share
        return between

    @property
    def duration_s(self) -> float:
        """Until its last waypoint [s]."""
        return float(self.times_s[-1])


def through(
    start_rad: ArrayLike, waypoints_rad: ArrayLike, speed_rad_s: float = DEFAULT_SPEED_RAD_S, torque_nm: float = DEFAULT_TORQUE_NM
) -> Movement:
    """Move through waypoints and hold the last one; no joint is faster than `speed_rad_s`.

    Args:
        start_rad: Where the arm is [rad], shape (6,).
        waypoints_rad: Where to [rad], shape (N, 6); NaN: that joint is left alone.
        speed_rad_s: Of the fastest joint [rad/s].
        torque_nm: The most the hand gives to a joint [N m].
    """
    waypoints = np.atleast_2d(np.asarray(waypoints_rad, dtype=np.float64))
    start = np.where(np.isnan(waypoints[0]), np.nan, np.asarray(start_rad, dtype=np.float64))
    joints = np.vstack([start, waypoints])
    farthest = np.nan_to_num(np.abs(np.diff(joints, axis=0)), nan=0.0).max(axis=1)
    return Movement(np.concatenate([[0.0], np.cumsum(np.maximum(farthest / speed_rad_s, 0.01))]), joints, torque_nm)


def sweep(start_rad: ArrayLike, lower_rad: ArrayLike, upper_rad: ArrayLike, speed_rad_s: float = DEFAULT_SPEED_RAD_S) -> Movement:
    """Move every joint but the wrist roll from stop to stop, one after the other, as a calibration asks for.

    It begins and ends in the middle of all ranges. The other joints keep the arm off the table and off itself.
    """
    lower, upper = np.asarray(lower_rad, dtype=np.float64), np.asarray(upper_rad, dtype=np.float64)
    middle = (lower + upper) / 2.0
    waypoints = [middle]
    for joint, name in enumerate(JOINT_NAMES):
        if name != "wrist_roll":
            for end, others in zip(
                (lower[joint] - _ONTO_THE_STOP_RAD, upper[joint] + _ONTO_THE_STOP_RAD), _CLEAR_OF_ALL[name], strict=True
            ):
                clear = middle.copy()
                for other, angle in others.items():
                    clear[JOINT_NAMES.index(other)] = angle
                reached = clear.copy()
                reached[joint] = end
                waypoints += [clear, *[reached] * _DWELL, clear]
            waypoints.append(middle)
    return through(start_rad, waypoints, speed_rad_s, _GENTLE_NM)


def wave(start_rad: ArrayLike, seconds: float = 120.0) -> Movement:
    """Wave smoothly about a raised pose, each joint at its own rate, again and again."""
    times = np.arange(0.0, seconds, 0.02)
    # Fades in and out, so that the loop closes.
    fade = np.minimum(1.0, np.minimum(times, seconds - times) / 2.0)[:, None]
    joints = np.array(_WAVE_CENTRE_RAD) + fade * np.array(_WAVE_RAD) * np.sin(2 * np.pi * np.outer(times, _WAVE_HZ))
    return _led_in(start_rad, times, joints, loop=True)


def recording(start_rad: ArrayLike, folder: Path, episode: int, *, loop: bool = False) -> Movement:
    """Follow the actions of one episode of a LeRobotDataset in joint space (LeRobot's degrees and 0-100).

    Raises:
        DatasetError: The folder holds no such dataset or episode, or its actions are not six joints.
    """
    import pyarrow.dataset as arrow

    try:
        features = json.loads((folder / "meta" / "info.json").read_text())["features"]
        names = features[ACTION_KEY]["names"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder}: no LeRobotDataset with actions ({error!r}).") from None
    if [str(name).removesuffix(".pos") for name in names or ()] != list(JOINT_NAMES):
        raise DatasetError(
            f"{folder}: its actions are {names}, a leader arm needs joints: {', '.join(f'{name}.pos' for name in JOINT_NAMES)}."
        )
    rows = arrow.dataset(folder / "data", format="parquet").to_table(
        columns=[ACTION_KEY, "timestamp"], filter=arrow.field("episode_index") == episode
    )
    if not rows.num_rows:
        raise DatasetError(f"{folder}: there is no episode {episode}.")
    joints = joints_from_lerobot(np.stack(rows[ACTION_KEY].to_pylist()))
    times = np.asarray(rows["timestamp"].to_pylist(), dtype=np.float64)
    return _led_in(start_rad, times - times[0], joints, loop=loop)


def _led_in(start_rad: ArrayLike, times_s: Array, joints_rad: Array, *, loop: bool) -> Movement:
    """Move to the first pose at an easy speed, then along the rest."""
    first = through(start_rad, joints_rad[:1])
    lead_s = first.duration_s
    return Movement(
        np.concatenate([[0.0], times_s + lead_s]),
        np.vstack([first.joints_rad[:1], joints_rad]),
        loop_from_s=lead_s if loop else None,
    )
