"""The one preprocessor: native observation in, policy observation out.

Built from the configuration once; used for demonstrations, live frames and evaluation, and
saved inside every checkpoint. Crop is `[top, left, height, width]`, never (x, y). Images stay
uint8, 0-255, RGB; the network scales them on its own device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import cv2
import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.normalize import StateNormalizer
from hilserl.errors import CheckpointError, ConfigError, TrainingError
from hilserl.files import content_hash
from hilserl.schema import IMAGE_PREFIX, STATE_KEY, Feature, FeatureSchema, policy_schema

__all__ = ["CameraView", "Preprocessor", "StateNormalizer"]

FORMAT_VERSION = 1


# Each thread that preprocesses is one of several already; OpenCV's own pool would only get in their way.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class CameraView:
    """How one camera's native frame becomes the policy's image; sizes are (height, width) [px].

    Attributes:
        native: Size of the frame as the camera delivers it.
        crop: [top, left, height, width] in the native frame.
        resize: Size that the policy sees.
    """

    native: tuple[int, int]
    crop: tuple[int, int, int, int]
    resize: tuple[int, int]

    def __post_init__(self) -> None:
        top, left, height, width = self.crop
        if min(top, left) < 0 or min(height, width) < 1 or top + height > self.native[0] or left + width > self.native[1]:
            raise ConfigError(f"crop [top, left, height, width] = {list(self.crop)} leaves the {self.native[0]}x{self.native[1]} frame")
        if self.resize[0] > height or self.resize[1] > width:
            raise ConfigError(
                f"resize {list(self.resize)} is larger than the {height}x{width} crop: upscaling adds no information. "
                "Record at a higher resolution, or lower `resize`."
            )

    def apply(self, frame: np.ndarray, where: str) -> np.ndarray:
        """Crop and resize one frame.

        Args:
            frame: uint8 RGB, shape (native height, native width, 3).
            where: Names the camera in an error.

        Returns:
            uint8 RGB, shape (*resize, 3); `frame` itself when there is nothing to do.

        Raises:
            TrainingError: The frame is not uint8 of the native size.
        """
        if frame.dtype != np.uint8 or frame.shape != (*self.native, 3):
            raise TrainingError(
                f"{where}: got {frame.dtype} {frame.shape}, the preprocessor expects uint8 {(*self.native, 3)} "
                "(height, width, RGB, 0-255). State the camera's real size under `robot.cameras`, and do not scale or transpose frames."
            )
        top, left, height, width = self.crop
        if (height, width) != self.native:
            frame = frame[top : top + height, left : left + width]
        if (height, width) == self.resize:
            return frame
        # INTER_AREA averages every source pixel once: no aliasing when shrinking.
        return cv2.resize(frame, (self.resize[1], self.resize[0]), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Preprocessor:
    """Turn native observations into the policy's.

    Attributes:
        schema: What the policy sees and does.
        views: Crop and resize by camera name.
    """

    schema: FeatureSchema
    views: Mapping[str, CameraView]

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self:
        """Build the preprocessor of a run."""
        views = {}
        for name, image in config.observation.images.items():
            camera = config.robot.cameras[name]
            native = (camera.height, camera.width)
            views[name] = CameraView(native, image.crop or (0, 0, *native), image.resize)
        return cls(policy_schema(config), views)

    def image(self, camera: str, frame: np.ndarray) -> np.ndarray:
        """Crop and resize one native frame of `camera`.

        Args:
            camera: Name of the camera, without prefix.
            frame: uint8 RGB, shape (native height, native width, 3).

        Returns:
            uint8 RGB, shape (resize height, resize width, 3).

        Raises:
            TrainingError: Unknown camera, or a frame of another size or dtype.
        """
        if camera not in self.views:
            raise TrainingError(f"camera `{camera}` is unknown to the preprocessor; it knows {sorted(self.views)}")
        return self.views[camera].apply(frame, IMAGE_PREFIX + camera)

    def __call__(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn one native observation into the policy's.

        Cameras that the policy does not use are left out; any other unknown or missing key stops.

        Args:
            observation: `observation.state` in physical units, shape (S,), and native frames.

        Returns:
            The keys of `schema.observation`, in its order: float32 state, uint8 images.

        Raises:
            TrainingError: A key, shape, dtype or value does not fit the schema.
        """
        wanted = self.schema.observation
        missing = [key for key in wanted if key not in observation]
        unknown = [key for key in observation if key not in wanted and not key.startswith(IMAGE_PREFIX)]
        if missing or unknown:
            raise TrainingError(
                f"the observation lacks {missing or 'nothing'} and has unknown keys {unknown or 'none'}; "
                f"the policy wants {sorted(wanted)}, got {sorted(observation)}. All sides must share one configuration."
            )
        return {
            key: self._state(observation[key]) if key == STATE_KEY else self.image(key.removeprefix(IMAGE_PREFIX), observation[key])
            for key in wanted
        }

    def _state(self, state: np.ndarray) -> np.ndarray:
        feature = self.schema.observation[STATE_KEY]
        state = np.asarray(state)
        if state.shape != feature.shape:
            raise TrainingError(f"{STATE_KEY} has shape {state.shape}, the policy wants {feature.shape} = {list(feature.names)}")
        if not np.issubdtype(state.dtype, np.floating):
            raise TrainingError(f"{STATE_KEY} is {state.dtype}, the policy wants float32 in {feature.unit}")
        bad = [feature.names[i] for i in np.flatnonzero(~np.isfinite(state))]
        if bad:
            raise TrainingError(f"{STATE_KEY} is not finite in {bad}: a sensor or the kinematics failed. Stop, and check that joint.")
        return state.astype(np.float32, copy=False)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        views = {name: asdict(view) for name, view in self.views.items()}
        return {"format_version": FORMAT_VERSION, "schema": self.schema.to_dict(), "views": views}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Restore what `to_dict` returned, also after a round trip through JSON.

        Raises:
            CheckpointError: Another format version.
        """
        if value.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"preprocessor of format {value.get('format_version')!r}, this version reads {FORMAT_VERSION}. Rebuild it."
            )
        observation = {key: _feature(feature) for key, feature in value["schema"]["observation"].items()}
        views = {
            name: CameraView(tuple(view["native"]), tuple(view["crop"]), tuple(view["resize"])) for name, view in value["views"].items()
        }
        return cls(FeatureSchema(observation, _feature(value["schema"]["action"])), views)

    def hash(self) -> str:
        """Identify the preprocessor: equal ones have equal hashes."""
        return content_hash(self.to_dict())


def _feature(value: Mapping[str, Any]) -> Feature:
    return Feature(tuple(value["shape"]), value["dtype"], value["unit"], tuple(value["names"]))
