"""Frames of an episode for a browser: JPEG after JPEG, decoded once.

The browser is not left to play the video file itself: it may not know the codec, and it cannot be told to show a
certain frame. What is labelled here is exactly the frame that training reads.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator

import cv2
import numpy as np

from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_camera

_WIDEST_PX = 640
_QUALITY = 88
_MOST_BYTES = 400_000_000
LENGTH = struct.Struct("<I")


class EpisodeFrames:
    """Streams of one dataset's episodes, the last used of which are remembered.

    Args:
        dataset: Where to read.
        most_bytes: How much is remembered [bytes].
    """

    def __init__(self, dataset: Dataset, most_bytes: int = _MOST_BYTES) -> None:
        self._dataset, self._most_bytes = dataset, most_bytes
        self._known: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def stream(self, position: int, key: str) -> Iterator[bytes]:
        """Yield the frames of one camera in order, each with its length before it (4 bytes, little-endian).

        Args:
            position: Place of the episode in the episode table.
            key: Image key, with prefix.

        Raises:
            DatasetError: The video is missing or damaged; names episode and frame.
        """
        with self._lock:
            known = self._known.get((position, key))
            if known is not None:
                self._known.move_to_end((position, key))
        if known is not None:
            yield known
            return
        parts = []
        for _, image in decode_camera(self._dataset.select([position]), key):
            data = jpeg(image)
            parts.append(LENGTH.pack(len(data)) + data)
            yield parts[-1]
        self._remember((position, key), b"".join(parts))

    def _remember(self, key: tuple[int, str], data: bytes) -> None:
        with self._lock:
            self._known[key] = data
            while sum(map(len, self._known.values())) > self._most_bytes:
                self._known.popitem(last=False)


def jpeg(image: np.ndarray) -> bytes:
    """Compress a picture for a page, no wider than it is worth; `image` is uint8 RGB, shape (H, W, 3)."""
    height, width = image.shape[:2]
    if width > _WIDEST_PX:
        image = cv2.resize(image, (_WIDEST_PX, round(height * _WIDEST_PX / width)), interpolation=cv2.INTER_AREA)
    written, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert written
    return data.tobytes()
