"""A success classifier as one artefact: preprocessing, network, threshold and debounce, always together.

What was trained is what judges: the same object labels a dataset and, later, the arm's own frames. Saved as
safetensors and JSON; nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hilserl.data.preprocess import CameraView
from hilserl.errors import CheckpointError, ConfigError, TrainingError
from hilserl.files import atomic_directory, file_hash, write_json
from hilserl.reward.debounce import Verdict, debounce
from hilserl.reward.manifest import FORMAT_VERSION, MANIFEST, WEIGHTS, ClassifierManifest, classifier_version, schema_hash
from hilserl.reward.network import SuccessNetwork
from hilserl.schema import IMAGE_PREFIX, STATE_KEY

_BATCH = 64


class SuccessClassifier:
    """Judges native frames. A `hilserl.data.convert.SuccessJudge`; travels by `pickle` as the name of its folder.

    Args:
        network: Trained weights.
        views: Crop and resize of each camera.
        threshold: Probability from which a frame looks like success, in (0, 1).
        hold_frames: Frames in a row that must agree before the verdict changes.
        training: Where it comes from, for people; JSON values.
        state: Numbers of `observation.state` that it reads too, by name.
    """

    def __init__(
        self,
        network: SuccessNetwork,
        views: Mapping[str, CameraView],
        *,
        threshold: float,
        hold_frames: int,
        training: Mapping[str, Any],
        state: Sequence[str] = (),
    ) -> None:
        if sorted(views) != sorted(network.cameras) or not 0 < threshold < 1 or hold_frames < 1:
            raise ConfigError(
                f"a classifier of cameras {list(network.cameras)} got views of {sorted(views)}, threshold {threshold:g} (in (0, 1)) "
                f"and hold_frames {hold_frames} (at least 1)"
            )
        assert len(state) == network.state_size
        self._network = network.eval().requires_grad_(False)
        self.views, self.state = dict(views), tuple(state)
        self.threshold, self.hold_frames, self.training = threshold, hold_frames, dict(training)
        self.folder: Path | None = None
        self._version: str | None = None

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        return _load_same, (self._saved(), self.version)

    @property
    def version(self) -> str:
        """Identify weights, preprocessing, threshold and debounce, by the content of the folder.

        Raises:
            CheckpointError: It was not saved yet.
        """
        self._saved()
        assert self._version is not None
        return self._version

    @property
    def schema_hash(self) -> str:
        """Identify what it looks at."""
        return schema_hash(self.views, self.state)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Name the cameras that it looks at."""
        return self._network.cameras

    def probabilities(self, frames: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the probability of success of each frame by itself.

        Args:
            frames: Native frames by camera, uint8 RGB, shape (B, H, W, 3); and its numbers of the state, in order, under
                `observation.state`, shape (B, S), if it reads any.

        Returns:
            float32, shape (B,).

        Raises:
            TrainingError: A frame is not uint8 of the camera's native size.
        """
        keys = (*self.cameras, STATE_KEY) if self.state else self.cameras
        seen = [self._see({key: frames[key][row] for key in keys}) for row in range(len(frames[self.cameras[0]]))]
        return self._infer(seen)

    def probabilities_seen(self, images: Mapping[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        """Return the probability of success of pictures that were cropped and resized already, float32, shape (B,).

        Args:
            images: uint8, shape (B, H, W, 3), by camera.
            state: Its numbers of the state, float32, shape (B, S).
        """
        read = torch.from_numpy(state) if self.state else None
        return probabilities(self._network, {camera: torch.from_numpy(images[camera]) for camera in self.cameras}, read)

    def rewards(self, frames: Iterator[Mapping[str, np.ndarray]]) -> np.ndarray:
        """Judge the frames of one episode, in order: 1 from the frame that establishes success, float32, shape (T,).

        Args:
            frames: Native frames by camera, uint8 RGB, shape (H, W, 3) each.
        """
        return self.judge(frames).success.astype(np.float32)

    def judge(self, frames: Iterable[Mapping[str, np.ndarray]]) -> Verdict:
        """Judge the frames of one episode, in order; holds no more than one batch of them, at the network's size.

        Args:
            frames: Native frames by camera, uint8 RGB, shape (H, W, 3) each.
        """
        parts, batch = [np.zeros(0, np.float32)], []
        for frame in frames:
            batch.append(self._see(frame))
            if len(batch) == _BATCH:
                parts.append(self._infer(batch))
                batch = []
        parts.append(self._infer(batch))
        return self.verdict(np.concatenate(parts))

    def verdict(self, probability: np.ndarray) -> Verdict:
        """Judge one episode whose probabilities, shape (T,), are known."""
        success, flickers = debounce(probability >= self.threshold, self.hold_frames)
        return Verdict(probability, success, flickers)

    def save(self, folder: Path) -> None:
        """Write the classifier; an existing one in `folder` is replaced, whole.

        Raises:
            CheckpointError: Something else is in `folder`.
        """
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise CheckpointError(f"{folder}: exists and holds no success classifier. Choose another folder.")
        with atomic_directory(folder) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self._network.state_dict().items()}, temporary / WEIGHTS)
            manifest = {
                "format_version": FORMAT_VERSION,
                "sha256": file_hash(temporary / WEIGHTS),
                "cameras": {camera: asdict(view) for camera, view in self.views.items()},
                "channels": self._network.channels,
                "hidden": self._network.hidden,
                "resnet": None if self._network.resnet is None else self._network.resnet.model_dump(mode="json"),
                "state": list(self.state),
                "schema_hash": self.schema_hash,
                "threshold": self.threshold,
                "hold_frames": self.hold_frames,
                "training": self.training,
            }
            write_json(temporary / MANIFEST, manifest)
        self.folder, self._version = folder.resolve(), classifier_version(folder)

    @classmethod
    def load(cls, folder: Path) -> SuccessClassifier:
        """Read a saved classifier.

        Raises:
            CheckpointError: It is missing, damaged, replaced or of another format.
        """
        manifest = ClassifierManifest.read(folder)
        try:
            sizes = {camera: view.resize for camera, view in manifest.cameras.items()}
            network = SuccessNetwork(
                sizes, channels=manifest.channels, hidden=manifest.hidden, resnet=manifest.resnet, state_size=len(manifest.state)
            )
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, RuntimeError, SafetensorError, ConfigError) as error:
            raise CheckpointError(
                f"{folder}: weights and {MANIFEST} do not belong together ({error}). Train the classifier again."
            ) from None
        classifier = cls(
            network,
            manifest.cameras,
            threshold=manifest.threshold,
            hold_frames=manifest.hold_frames,
            training=manifest.training,
            state=manifest.state,
        )
        classifier.folder, classifier._version = folder.resolve(), classifier_version(folder)
        return classifier

    def _saved(self) -> Path:
        if self.folder is None:
            raise CheckpointError("the success classifier was not saved yet: save it to a folder, by which it is known elsewhere")
        return self.folder

    def _see(self, frame: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Crop and resize one native frame of each camera; the state, if it is read, comes last."""
        seen = [self.views[camera].apply(frame[camera], IMAGE_PREFIX + camera) for camera in self.cameras]
        if not self.state:
            return seen
        state = np.asarray(frame[STATE_KEY], np.float32)
        if state.shape != (len(self.state),) or not np.isfinite(state).all():
            raise TrainingError(
                f"the success classifier reads {list(self.state)}, and got {state.tolist()}: {len(self.state)} finite numbers"
            )
        return [*seen, state]

    def _infer(self, seen: list[list[np.ndarray]]) -> np.ndarray:
        if not seen:
            return np.zeros(0, np.float32)
        images = {camera: torch.from_numpy(np.stack([frame[place] for frame in seen])) for place, camera in enumerate(self.cameras)}
        state = torch.from_numpy(np.stack([frame[-1] for frame in seen])) if self.state else None
        return probabilities(self._network, images, state)


@torch.inference_mode()
def probabilities(network: SuccessNetwork, images: Mapping[str, torch.Tensor], state: torch.Tensor | None = None) -> np.ndarray:
    """Return the probability of success of images that were cropped and resized, uint8 (B, H, W, 3); float32, shape (B,)."""
    result: np.ndarray = torch.sigmoid(network(images, state)).numpy()
    return result


def _load_same(folder: Path, version: str) -> SuccessClassifier:
    """Open on another thread, process or machine what was opened here, or refuse."""
    classifier = SuccessClassifier.load(folder)
    if classifier.version != version:
        raise CheckpointError(
            f"{folder}: holds success classifier {classifier.version}, {version} was asked for: it was replaced meanwhile, or another "
            "machine has another one there. Run the same command again, with the folder where every worker finds the same."
        )
    return classifier
