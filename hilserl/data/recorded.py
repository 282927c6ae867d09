"""How to read a dataset's columns: what the numbers of its state are, and which frames make one control step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import ConfigError, DatasetError
from hilserl.schema import STATE_COMPONENTS, STATE_KEY


@dataclass(frozen=True)
class RecordedState:
    """What the numbers of a dataset's `observation.state` are.

    Attributes:
        components: Names of its parts, in order.
        in_lerobot_units: Joints are degrees and the gripper 0-100 %; else radians.
    """

    components: tuple[str, ...]
    in_lerobot_units: bool

    def part(self, values: np.ndarray, name: str) -> np.ndarray:
        """Return one component, shape (T, n), of recorded states (T, S)."""
        start = sum(len(STATE_COMPONENTS[before].labels) for before in self.components[: self.components.index(name)])
        return values[:, start : start + len(STATE_COMPONENTS[name].labels)]


def recorded_state(config: TrainConfig, dataset: Dataset) -> RecordedState | None:
    """Tell what `observation.state` holds: as the configuration states, else by the dataset's names; None where neither says.

    Raises:
        ConfigError: `dataset.state` names an unknown component.
        DatasetError: `dataset.state` has another size than the recorded vector.
    """
    stated, size = config.dataset.state, dataset.shape(STATE_KEY)[0]
    if stated is not None:
        unknown = [name for name in stated if name not in STATE_COMPONENTS]
        if unknown:
            raise ConfigError(f"dataset.state: unknown component {unknown[0]!r}; known: {list(STATE_COMPONENTS)}")
        sizes = {name: len(STATE_COMPONENTS[name].labels) for name in stated}
        if sum(sizes.values()) != size:
            raise DatasetError(f"{dataset.root}: `{STATE_KEY}` holds {size} numbers, dataset.state names {sum(sizes.values())}: {sizes}")
        return RecordedState(stated, config.dataset.joint_unit == "deg")
    names = dataset.names(STATE_KEY)
    if names == LEROBOT_JOINT_NAMES:
        return RecordedState(("joint_pos",), True)
    components = tuple(dict.fromkeys(name.split(".")[0] for name in names or ()))
    if not components or any(name not in STATE_COMPONENTS for name in components):
        return None
    scalars = tuple(scalar for name in components for scalar in STATE_COMPONENTS[name].scalars)
    return RecordedState(components, False) if scalars == names else None


@dataclass(frozen=True, eq=False)
class ControlSteps:
    """Which frames belong to each control step; N steps that cover all frames.

    Attributes:
        first: Row of the frame at which the step begins, int64, shape (N,), ascending.
        last: Row of its last frame, int64, shape (N,).
    """

    first: np.ndarray
    last: np.ndarray

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Add up motions (T, A) over each step, (N, A): ten steps a second lead where thirty frames led."""
        return np.add.reduceat(values, self.first, axis=0)

    def largest(self, reward: np.ndarray) -> np.ndarray:
        """Return the reward (T,) of largest size within each step, (N,): a success held for three frames pays once."""
        high, low = np.maximum.reduceat(reward, self.first), np.minimum.reduceat(reward, self.first)
        return np.where(high >= -low, high, low)


def control_steps(config: TrainConfig, dataset: Dataset) -> ControlSteps:
    """Divide every episode into control steps.

    At `dataset.frame_rate: convert`, step k of an episode begins at the frame nearest to k / control_hz.

    Raises:
        DatasetError: The dataset is slower than the policy acts.
    """
    if config.dataset.frame_rate == "same":
        rows = np.arange(len(dataset.frames), dtype=np.int64)
        return ControlSteps(rows, rows)
    parts = [episode.start + control_frames(episode.length, dataset.fps, config.robot.control_hz) for episode in dataset.episodes]
    first = np.concatenate(parts)
    stop = dataset.episodes[-1].stop
    return ControlSteps(first, np.append(first[1:], stop) - 1)


def control_frames(length: int, fps: float, control_hz: float) -> np.ndarray:
    """Return the frames at which control steps begin in an episode of `length` frames, int64, ascending.

    Raises:
        DatasetError: There are fewer frames than control steps.
    """
    if fps < control_hz:
        raise DatasetError(
            f"recorded at {fps:g} Hz, the policy acts at {control_hz:g} Hz: there is nothing between two frames. "
            f"Set robot.control_hz to {fps:g}"
        )
    count = int(np.ceil(length * control_hz / fps)) + 1
    frames = np.floor(np.arange(count) * fps / control_hz + 0.5).astype(np.int64)
    return frames[frames < length]
