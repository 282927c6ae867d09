"""Change of light while learning: brightness, contrast, colour and noise of a picture do not decide success."""

from __future__ import annotations

import numpy as np

from hilserl.config.classifier import Augmentation

_MIDDLE = 128.0


def relit(images: np.ndarray, settings: Augmentation, generator: np.random.Generator) -> np.ndarray:
    """Return pictures in other light, each in its own.

    Args:
        images: uint8, shape (B, H, W, 3).
        settings: How much may change.
        generator: Of the draw.
    """
    count = len(images)
    contrast = 1 + generator.uniform(-settings.contrast, settings.contrast, (count, 1))
    colour = 1 + generator.uniform(-settings.colour, settings.colour, (count, 3))
    brightness = 255 * generator.uniform(-settings.brightness, settings.brightness, (count, 1))
    levels = np.arange(256, dtype=np.float32)
    gain = (contrast * colour)[..., None]
    tables = np.clip((levels - _MIDDLE) * gain + _MIDDLE + brightness[..., None], 0, 255).astype(np.uint8)  # (B, 3, 256)
    changed = np.empty_like(images)
    for picture, table, target in zip(images, tables, changed, strict=True):
        for channel in range(3):
            np.take(table[channel], picture[..., channel], out=target[..., channel], mode="clip")
    if settings.noise:
        # One field of noise a batch, moved about: drawing millions of normal numbers would take longer than learning from them.
        field = np.round(generator.normal(0, 255 * settings.noise, (images.shape[1] + 16, images.shape[2] + 16, 3))).astype(np.int16)
        for target in changed:
            y, x = generator.integers(0, 17, 2)
            np.copyto(target, np.clip(target + field[y : y + target.shape[0], x : x + target.shape[1]], 0, 255).astype(np.uint8))
    return changed
