"""Random shift of images while they are gathered: the augmentation costs no pass of its own.

A shifted image with its border replicated (DrQ, arXiv 2004.13649) is the stored one read from another place.
Vertically that place is clipped to the image. Horizontally a line is read from up to four pixels before or
behind its beginning, as one contiguous piece of storage; the few pixels that then came from a neighbouring
line are overwritten by the border's, column by column. So one indexing operation copies all lines, and storage
holds the images and nothing else.
"""

from __future__ import annotations

import numpy as np

SHIFT_PX = 4  # DrQ's padding at 84x84, and LeRobot's at any size


class ShiftableImages:
    """Storage of N images that can be read shifted by up to `largest_px` in each direction.

    Args:
        capacity: N.
        shape: Height, width and channels of one uint8 image.
        largest_px: Largest shift [px].
    """

    def __init__(self, capacity: int, shape: tuple[int, int, int], largest_px: int) -> None:
        height, width, channels = shape
        self._shape = shape
        self._largest_px = largest_px
        guard = largest_px * channels  # read, and repaired, at the first and the last line of all
        pixels = capacity * height * width
        self._stored = np.zeros(pixels * channels + 2 * guard, np.uint8)
        self.images = self._stored[guard : guard + pixels * channels].reshape(capacity, *shape)
        # Item i: the `width` pixels from pixel i of storage on, as one value. Neighbours overlap; only ever read.
        places = pixels + 2 * largest_px - width + 1
        self._lines: np.ndarray = np.ndarray((places,), f"V{width * channels}", self._stored.data, strides=(channels,))
        self._lines.flags.writeable = False

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self._stored.nbytes

    def __getitem__(self, row: int) -> np.ndarray:
        """Return one image as it was stored, (H, W, C)."""
        image: np.ndarray = self.images[row]
        return image

    def __setitem__(self, row: int, image: np.ndarray) -> None:
        """Store one image, (H, W, C)."""
        self.images[row] = image

    def shifted(self, rows: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Copy images out, pixel (y, x) read from (y + down, x + right), or from the nearest border pixel outside.

        Args:
            rows: Which images, shape (B,).
            down: In `[-largest_px, largest_px]` [px], shape (B,).
            right: As `down`.

        Returns:
            uint8, shape (B, H, W, C).
        """
        assert max(np.abs(down).max(initial=0), np.abs(right).max(initial=0)) <= self._largest_px, "shift beyond the guard"
        height, width, channels = self._shape
        right = np.clip(right, 1 - width, width - 1)  # a whole width or more shows the border pixel alone, as one less does
        line = np.clip(np.arange(height) + down[:, None], 0, height - 1)
        line += rows.astype(np.int64)[:, None] * height
        line *= width
        line += (self._largest_px + right)[:, None]
        images = self._lines[line].view(np.uint8).reshape(len(rows), *self._shape)
        self._repair_borders(images.view(f"V{channels}")[..., 0], right)
        return images

    def _repair_borders(self, pixels: np.ndarray, right: np.ndarray) -> None:
        """Repeat the border pixel where a line was read beyond its end; `pixels` (B, H, W) of one item each."""
        width = self._shape[1]
        for shift in range(1, min(self._largest_px, width - 1) + 1):
            if (moved := np.flatnonzero(right == shift)).size:
                border = pixels[moved, :, width - 1 - shift]
                for column in range(width - shift, width):
                    pixels[moved, :, column] = border
            if (moved := np.flatnonzero(right == -shift)).size:
                border = pixels[moved, :, shift]
                for column in range(shift):
                    pixels[moved, :, column] = border

    def randomly_shifted(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Copy images out, each shifted by its own random amount, all shifts equally likely.

        Args:
            rows: Which images, shape (B,).
            generator: Source of the shifts.

        Returns:
            uint8, shape (B, H, W, C).
        """
        return self.shifted(rows, *random_shifts(self._largest_px, len(rows), generator))


def random_shifts(largest_px: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw shifts down and right, all equally likely [px], int64, shape (2, count)."""
    return generator.integers(-largest_px, largest_px, (2, count), endpoint=True)


def shifted_views(images: np.ndarray, views: int, generator: np.random.Generator) -> np.ndarray:
    """Show every image `views` times, each time shifted at random by up to `SHIFT_PX`.

    Args:
        images: uint8, shape (B, H, W, C).
        views: K.
        generator: Source of the shifts.

    Returns:
        uint8, shape (B, K, H, W, C).
    """
    count, *shape = images.shape
    height, width, channels = shape
    stored = ShiftableImages(count, (height, width, channels), SHIFT_PX)
    stored.images[:] = images
    return stored.randomly_shifted(np.arange(count).repeat(views), generator).reshape(count, views, *shape)
