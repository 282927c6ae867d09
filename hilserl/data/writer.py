"""Record episodes into a LeRobotDataset v3.0, as LeRobot itself writes it.

Frames go straight to the encoder threads (no PNG files in between). The dataset grows in a hidden
folder beside its place and is renamed when finalised, so a half-recorded one never looks finished.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.errors import DatasetError
from hilserl.files import fsync_directory
from hilserl.schema import ACTION_KEY, IMAGE_PREFIX, JOINT_NAMES, STATE_KEY, policy_schema

logger = logging.getLogger(__name__)

LEROBOT_JOINT_NAMES = tuple(f"{joint}.pos" for joint in JOINT_NAMES)
_SCALAR = (1,)


def policy_features(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Declare a dataset in the policy's own spaces, images at the cameras' native size, with reward and done."""
    schema = policy_schema(config)
    return {
        STATE_KEY: _vector(schema.observation[STATE_KEY].names),
        **_images(config),
        ACTION_KEY: _vector(config.action_names),
        "next.reward": {"dtype": "float32", "shape": _SCALAR, "names": None},
        "next.done": {"dtype": "bool", "shape": _SCALAR, "names": None},
    }


def teleop_features(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Declare a dataset as people teleoperate: six joints and six joint targets in LeRobot's units, no reward, no done."""
    return {STATE_KEY: _vector(LEROBOT_JOINT_NAMES), **_images(config), ACTION_KEY: _vector(LEROBOT_JOINT_NAMES)}


def _vector(names: tuple[str, ...]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": list(names)}


def _images(config: TrainConfig) -> dict[str, dict[str, Any]]:
    cameras = {name: config.robot.cameras[name] for name in config.observation.images}
    return {
        IMAGE_PREFIX + name: {"dtype": "video", "shape": (camera.height, camera.width, 3), "names": ["height", "width", "channels"]}
        for name, camera in cameras.items()
    }


class EpisodeWriter:
    """Write a new dataset, episode by episode.

    As a context manager it finalises on a clean exit and discards everything on an exception.

    Args:
        root: Folder of the dataset; must not exist.
        repo_id: Its name.
        features: `policy_features` or `teleop_features`.
        fps: Frames per second; LeRobot wants a whole number.

    Raises:
        DatasetError: `root` exists, or `fps` is not a whole number.
    """

    def __init__(self, root: Path, repo_id: str, features: Mapping[str, Mapping[str, Any]], fps: float) -> None:
        if root.exists():
            raise DatasetError(f"{root} exists: recording never overwrites a dataset. Choose another folder, or remove that one yourself.")
        if fps != int(fps):
            raise DatasetError(f"fps is {fps:g}: LeRobot datasets need a whole number. Set robot.control_hz to one.")
        self.root = root
        self._features = {key: dict(feature) for key, feature in features.items()}
        self._temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.parent.mkdir(parents=True, exist_ok=True)
        self._dataset = _create(self._temporary, repo_id, int(fps), self._features)
        # One frame is held back: whether it is the last of its episode is known with the next call.
        self._held: dict[str, Any] | None = None
        self.episodes = 0
        self.frames = 0

    @property
    def has_reward(self) -> bool:
        """Whether frames carry `next.reward` and `next.done`."""
        return "next.reward" in self._features

    def add_frame(self, observation: Mapping[str, np.ndarray], action: np.ndarray, reward: float | None = None, *, task: str) -> None:
        """Add one step: what was seen, what was done, and the reward that followed.

        `next.done` is written by the writer: true on the last frame of an episode and nowhere else,
        whether the task ended it or the time limit did.

        Args:
            observation: `observation.state`, shape (S,), and native uint8 frames, for exactly the declared keys.
            action: Shape (A,), in the dataset's action space.
            reward: Reward after the action; None exactly where the dataset has none.
            task: One sentence.

        Raises:
            DatasetError: Keys, shape or dtype differ from the declared features, or a value is not finite.
        """
        if (reward is not None) != self.has_reward:
            raise DatasetError(f"{self.root}: `reward` is {reward}, the dataset {'has' if self.has_reward else 'has no'} next.reward")
        frame: dict[str, Any] = {**observation, ACTION_KEY: action}
        expected = set(self._features) - {"next.reward", "next.done"}
        if set(frame) != expected:
            raise DatasetError(f"{self.root}: a frame has keys {sorted(frame)}, the dataset {sorted(expected)}")
        for key, value in frame.items():
            feature = self._features[key]
            dtype = "uint8" if feature["dtype"] == "video" else feature["dtype"]
            if value.shape != tuple(feature["shape"]) or value.dtype != dtype:
                raise DatasetError(
                    f"{self.root}: `{key}` is {value.dtype} {value.shape}, the dataset has {dtype} {tuple(feature['shape'])}"
                )
            if dtype != "uint8" and not np.isfinite(value).all():
                raise DatasetError(f"{self.root}: `{key}` is not finite at episode {self.episodes}: {value}")
        self._flush(last=False)
        # Encoder threads read the image after this returns; LeRobot copies it, arrays of the others are kept by reference.
        self._held = {key: value if value.dtype == np.uint8 else value.copy() for key, value in frame.items()} | {"task": task}
        if self.has_reward:
            self._held["next.reward"] = np.array([reward], np.float32)

    def save_episode(self) -> None:
        """End the episode: encode its video and write its rows.

        Raises:
            DatasetError: The episode has no frame.
        """
        if self._held is None:
            raise DatasetError(f"{self.root}: episode {self.episodes} has no frame")
        self._flush(last=True)
        self._dataset.save_episode()
        self.episodes += 1

    def discard_episode(self) -> None:
        """Forget the frames since the last `save_episode`."""
        self._held = None
        if self._dataset.has_pending_frames():
            self._dataset.clear_episode_buffer()

    def finalize(self) -> Path:
        """Finish the files and move the dataset to its place.

        Raises:
            DatasetError: No episode was saved, or somebody else made `root` meanwhile.
        """
        self.discard_episode()
        self._dataset.finalize()
        if not self.episodes:
            self.discard()
            raise DatasetError(f"{self.root}: no episode was saved, so there is no dataset")
        if self.root.exists():
            raise DatasetError(f"{self.root} was made by somebody else meanwhile; this recording is kept in {self._temporary}")
        for file in self._temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        self._temporary.rename(self.root)
        fsync_directory(self.root.parent)
        return self.root

    def discard(self) -> None:
        """Remove what was recorded; never hides the error that led here."""
        try:
            self.discard_episode()
            self._dataset.finalize()
        except Exception:
            # LeRobot's writer can be interrupted between any two of its own steps; the folder goes in any case.
            logger.exception("LeRobot's writer could not be closed cleanly; %s is removed all the same", self._temporary)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.finalize()
        else:
            self.discard()

    def _flush(self, *, last: bool) -> None:
        if self._held is None:
            return
        if self.has_reward:
            self._held["next.done"] = np.array([last])
        self._dataset.add_frame(self._held)
        self._held = None
        self.frames += 1


def _create(folder: Path, repo_id: str, fps: int, features: dict[str, dict[str, Any]]) -> Any:
    # SVT-AV1 reads this when a stream opens: errors only, instead of 15 lines an episode.
    os.environ.setdefault("SVT_LOG", "1")
    import av
    import datasets
    from lerobot.datasets import LeRobotDataset

    av.logging.set_libav_level(av.logging.ERROR)
    datasets.disable_progress_bars()
    return LeRobotDataset.create(
        repo_id,
        fps,
        features,
        root=folder,
        robot_type="so101_follower",
        video_backend="pyav",  # also keeps LeRobot from probing torchcodec, which logs a page where FFmpeg's libraries are missing
        streaming_encoding=True,
        encoder_queue_maxsize=0,  # unbounded: with a bound LeRobot *drops* frames when the encoder is slower than the simulation
    )
