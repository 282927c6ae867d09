"""Show what a crop leaves of the pictures: the raw frame with the rectangle, and what the policy would see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hilserl.data.dataset import Dataset
from hilserl.data.editing.tables import Tables
from hilserl.data.editing.video import SourceVideos
from hilserl.data.preprocess import CameraView
from hilserl.errors import DatasetError
from hilserl.files import write_atomically
from hilserl.schema import IMAGE_PREFIX

_EPISODES = 5
_HEIGHT_PX = 240
_GAP_PX = 8
_CAPTION_PX = 22
_GREEN = (0, 220, 0)


@dataclass(frozen=True)
class Crop:
    """Crop `[top, left, height, width]` (None: the whole frame) and size `(height, width)` that the policy sees [px]."""

    crop: tuple[int, int, int, int] | None
    resize: tuple[int, int]


def centred_square(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the largest centred square of a frame as `[top, left, height, width]`, at even pixels."""
    side = min(height, width) // 2 * 2
    return ((height - side) // 2 // 2 * 2, (width - side) // 2 // 2 * 2, side, side)


def centred_squares(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return the largest centred square of each camera of a dataset, by name without prefix."""
    dataset = Dataset.open(root)
    return {key.removeprefix(IMAGE_PREFIX): centred_square(*dataset.shape(key)[:2]) for key in dataset.camera_keys}


def preview_crop(root: Path, crops: Mapping[str, Crop] | Crop, picture: Path) -> tuple[str, ...]:
    """Write a picture with one row an episode and camera; return a line of advice for each camera.

    Args:
        root: The dataset.
        crops: By camera name without prefix, or one for all cameras.
        picture: PNG to write.

    Raises:
        ConfigError: A crop leaves the frame, or would be enlarged.
        DatasetError: A camera does not exist, or the dataset is damaged.
    """
    if picture.exists():
        raise DatasetError(f"{picture} exists. Choose another name, or remove it.")
    tables = Tables.open(root)
    cameras = [key.removeprefix(IMAGE_PREFIX) for key in tables.dataset.camera_keys if tables.dataset.features[key]["dtype"] == "video"]
    if isinstance(crops, Crop):
        crops = dict.fromkeys(cameras, crops)
    unknown = sorted(set(crops) - set(cameras))
    if unknown or not crops:
        raise DatasetError(f"{root}: has no video of camera {', '.join(unknown) or '(none given)'}; it has {', '.join(cameras) or 'none'}.")
    rows, advice, videos = [], [], SourceVideos()
    try:
        for camera, crop in crops.items():
            key = IMAGE_PREFIX + camera
            native = (tables.dataset.shape(key)[0], tables.dataset.shape(key)[1])
            view = CameraView(native, crop.crop or (0, 0, *native), crop.resize)
            for episode in _some(sorted(tables.rows)):
                span = tables.span(episode, key, 0, tables.rows[episode]["length"])
                (frame,) = videos.pictures(span, [0])
                rows.append(_row(frame, view, f"{camera}, episode {episode}, frame 0", key))
            advice.append(_advice(camera, view))
    finally:
        videos.close()
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([np.pad(row, ((0, _GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows])
    ok, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not ok:
        raise RuntimeError(f"OpenCV could not encode {picture}")
    write_atomically(picture, data.tobytes())
    return tuple(advice)


def _some(episodes: Sequence[int]) -> list[int]:
    return [episodes[place] for place in sorted({round(p) for p in np.linspace(0, len(episodes) - 1, min(_EPISODES, len(episodes)))})]


def _row(frame: np.ndarray, view: CameraView, title: str, where: str) -> np.ndarray:
    """Draw one frame: raw with its rectangle left, the policy's view right (pixels repeated, not blended)."""
    seen = np.ascontiguousarray(view.apply(frame, where))
    height = max(_HEIGHT_PX, min(frame.shape[0], 2 * _HEIGHT_PX))
    scale = height / frame.shape[0]
    raw = cv2.resize(frame, (round(frame.shape[1] * scale), height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    top, left, crop_height, crop_width = view.crop
    corners = [round(value * scale) for value in (left, top, left + crop_width - 1, top + crop_height - 1)]
    darkened = raw // 2
    inside = np.s_[corners[1] : corners[3] + 1, corners[0] : corners[2] + 1]
    darkened[inside] = raw[inside]
    cv2.rectangle(darkened, (corners[0], corners[1]), (corners[2], corners[3]), _GREEN, 2)
    right = cv2.resize(seen, (round(seen.shape[1] * height / seen.shape[0]), height), interpolation=cv2.INTER_NEAREST)
    row = np.concatenate([darkened, np.full((height, _GAP_PX, 3), 255, np.uint8), right], axis=1)
    caption = np.full((_CAPTION_PX, row.shape[1], 3), 255, np.uint8)
    text = f"{title}: {frame.shape[1]}x{frame.shape[0]}, crop {list(view.crop)} -> {seen.shape[1]}x{seen.shape[0]}"
    cv2.putText(caption, text, (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([caption, row])


def _advice(camera: str, view: CameraView) -> str:
    _, _, height, width = view.crop
    best = centred_square(*view.native)
    line = f"{camera}: the policy sees {height * width / (view.native[0] * view.native[1]):.0%} of the frame."
    stretch = (view.resize[0] / view.resize[1]) / (height / width)
    if abs(stretch - 1) > 0.01:
        looks = "taller" if stretch > 1 else "wider"
        line += f" The {width}x{height} crop becomes {view.resize[1]}x{view.resize[0]}: things look {looks} than they are."
    if view.crop != best:
        line += f" Largest centred square: observation: {{images: {{{camera}: {{crop: {list(best)}, resize: {list(view.resize)}}}}}}}"
    return line
