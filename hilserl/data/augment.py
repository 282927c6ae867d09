"""Random shift of images while they are gathered: the augmentation costs no pass of its own.

A shifted image with its border replicated (DrQ, arXiv 2004.13649) is the stored one read from another place.
Vertically that place is clipped to the image; horizontally each line is stored with its first and last pixel
repeated to its left and right. So every line of every shifted image is one contiguous piece of storage,
and one indexing operation copies them all, at the speed of copying them unshifted.
"""

from __future__ import annotations

import numpy as np

SHIFT_PX = 4  # DrQ's padding at 84x84, and LeRobot's at any size


class ShiftableImages:
    """Storage of N images that can be read shifted by up to `largest_px` in each direction.

    Takes `2 * largest_px / W` more memory than the images alone (6 % at 128 pixels, 10 % at 84).

    Args:
        capacity: N.
        shape: Height, width and channels of one uint8 image.
        largest_px: Largest shift [px].
    """

    def __init__(self, capacity: int, shape: tuple[int, int, int], largest_px: int) -> None:
        height, width, channels = shape
        self._shape = shape
        self._largest_px = largest_px
        self._stored_width = width + 2 * largest_px
        self._stored = np.zeros((capacity, height, self._stored_width, channels), np.uint8)
        # Item i: the `width` pixels from pixel i of storage on, as one value. Neighbours overlap; only ever read.
        pixels = capacity * height * self._stored_width
        self._lines: np.ndarray = np.ndarray((pixels - width + 1,), f"V{width * channels}", self._stored.data, strides=(channels,))
        self._lines.flags.writeable = False

    @property
    def images(self) -> np.ndarray:
        """The images as they were stored, a view of shape (N, H, W, C)."""
        return self._stored[:, :, self._largest_px : self._largest_px + self._shape[1]]

    def __getitem__(self, row: int) -> np.ndarray:
        """Return one image as it was stored, (H, W, C)."""
        image: np.ndarray = self.images[row]
        return image

    def __setitem__(self, row: int, image: np.ndarray) -> None:
        """Store one image, (H, W, C)."""
        self.images[row] = image
        self._stored[row, :, : self._largest_px] = image[:, :1]
        self._stored[row, :, self._largest_px + self._shape[1] :] = image[:, -1:]

    def shifted(self, rows: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Copy images out, pixel (y, x) read from (y + down, x + right), or from the nearest border pixel outside.

        Args:
            rows: Which images, shape (B,).
            down: In `[-largest_px, largest_px]` [px], shape (B,).
            right: As `down`.

        Returns:
            uint8, shape (B, H, W, C).
        """
        assert max(np.abs(down).max(initial=0), np.abs(right).max(initial=0)) <= self._largest_px, "shift beyond the stored margin"
        height = self._shape[0]
        line = np.clip(np.arange(height) + down[:, None], 0, height - 1)
        line += (rows * height)[:, None]
        line *= self._stored_width
        line += (self._largest_px + right)[:, None]
        return self._lines[line].view(np.uint8).reshape(len(rows), *self._shape)

    def randomly_shifted(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Copy images out, each shifted by its own random amount, all shifts equally likely.

        Args:
            rows: Which images, shape (B,).
            generator: Source of the shifts.

        Returns:
            uint8, shape (B, H, W, C).
        """
        down, right = generator.integers(-self._largest_px, self._largest_px, (2, len(rows)), endpoint=True)
        return self.shifted(rows, down, right)
