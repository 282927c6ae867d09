"""Photographs of the page: an episode's first frame as the camera saw it, and as the policy sees it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset, Episode, VideoSpan
from hilserl.data.preprocess import CameraView, Preprocessor
from hilserl.errors import DatasetError, HilserlError
from hilserl.schema import IMAGE_PREFIX

_SHOWN_WIDTH_PX = 320
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """One camera at one moment, ready for the page.

    Attributes:
        camera: Its name, without prefix.
        native: Data URI of the frame; empty where there is none.
        native_size: "640×480", of the frame itself.
        crop_style: CSS of the crop's rectangle over the frame; empty where nothing is cropped.
        seen: Data URI of the policy's input, at its true resolution; empty where there is none.
        seen_size: "84×84".
        problem: Why something is missing.
    """

    camera: str
    native: str = ""
    native_size: str = ""
    crop_style: str = ""
    seen: str = ""
    seen_size: str = ""
    problem: str = ""


def first_frames(config: TrainConfig, dataset: Dataset, episode: Episode) -> list[Picture]:
    """Return the pictures of one episode's first frame, one a camera of the dataset."""
    views = Preprocessor.from_config(config).views
    return [_picture(dataset, episode, key, views.get(key.removeprefix(IMAGE_PREFIX))) for key in dataset.camera_keys]


def frame_at(root: Path, span: VideoSpan, fps: float) -> np.ndarray:
    """Decode the frame at the start of `span` by seeking; uint8 RGB, shape (H, W, 3).

    Raises:
        DatasetError: The file is missing or damaged, or has no frame there.
    """
    path = root / span.path
    if not path.is_file():
        raise DatasetError(f"{span.path} is missing")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.time_base is None:
                raise DatasetError(f"{span.path} has no time base")
            container.seek(int(span.start_s / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and float(frame.pts * stream.time_base) >= span.start_s - 0.25 / fps:
                    return frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise DatasetError(f"{span.path} cannot be decoded at {span.start_s:.2f} s ({error})") from error
    raise DatasetError(f"{span.path} ends before {span.start_s:.2f} s")


def data_uri(image: np.ndarray, suffix: str) -> str:
    """Encode an RGB image, shape (H, W, 3), as `.jpg` or `.png` inside a data URI."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise DatasetError(f"a picture of {image.shape} could not be encoded")
    return f"data:image/{'jpeg' if suffix == '.jpg' else 'png'};base64,{base64.b64encode(data.tobytes()).decode()}"


def _picture(dataset: Dataset, episode: Episode, key: str, view: CameraView | None) -> Picture:
    camera = key.removeprefix(IMAGE_PREFIX)
    if key not in episode.videos:
        if dataset.features[key]["dtype"] == "video":
            return Picture(camera, problem="the episode table does not say where its video lies")
        return Picture(camera, problem="not stored as video, which is all that is read here")
    try:
        frame = frame_at(dataset.root, episode.videos[key], dataset.fps)
        width = min(_SHOWN_WIDTH_PX, frame.shape[1])
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        shown = frame if width == frame.shape[1] else cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        native, size = data_uri(shown, ".jpg"), _size(frame)
    except (HilserlError, cv2.error) as error:
        return Picture(camera, problem=str(error))
    if view is None:
        return Picture(camera, native, size, problem="the policy does not use this camera")
    try:
        seen = view.apply(frame, key)
    except HilserlError:
        problem = f"the configuration expects {view.native[1]}×{view.native[0]}, so the policy's view cannot be shown"
        return Picture(camera, native, size, problem=problem)
    return Picture(camera, native, size, _crop_style(view), data_uri(seen, ".png"), _size(seen))


def _crop_style(view: CameraView) -> str:
    top, left, height, width = view.crop
    rows, columns = view.native
    if (height, width) == (rows, columns):
        return ""
    edges = (("left", left / columns), ("top", top / rows), ("width", width / columns), ("height", height / rows))
    return ";".join(f"{name}:{100 * share:.2f}%" for name, share in edges)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"
