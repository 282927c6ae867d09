"""The picture that shows what the policy sees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

_GAP_PX = 8
_CAPTION_PX = 24
_MIN_HEIGHT_PX = 240


def write_model_input(path: Path, frames: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write one row a camera: the native frame left, the policy's input right, at the same height.

    Pixels are repeated, not blended, so the picture shows the input's true resolution.

    Args:
        path: PNG to write.
        frames: By camera: native and preprocessed frame, uint8 RGB, shape (H, W, 3) each.
    """
    rows = []
    for camera, (native, seen) in frames.items():
        height = max(_MIN_HEIGHT_PX, native.shape[0])
        left, right = _at_height(native, height), _at_height(seen, height)
        gap = np.full((height, _GAP_PX, 3), 255, np.uint8)
        row = np.concatenate([left, gap, right], axis=1)
        caption = np.full((_CAPTION_PX, row.shape[1], 3), 255, np.uint8)
        text = (
            f"{camera}: {native.shape[1]}x{native.shape[0]} | policy sees {seen.shape[1]}x{seen.shape[0]}, values {seen.min()}-{seen.max()}"
        )
        cv2.putText(caption, text, (2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(np.concatenate([caption, row]))
    if not rows:
        rows = [np.full((_CAPTION_PX, _MIN_HEIGHT_PX, 3), 255, np.uint8)]
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([np.pad(row, ((0, _GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows])
    ok, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not ok:
        raise RuntimeError(f"OpenCV could not encode {path}")
    path.write_bytes(data.tobytes())


def _at_height(image: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
