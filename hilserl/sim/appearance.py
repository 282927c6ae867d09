"""How the scene looks: light, table, colours. Drawn anew each episode, a classifier cannot learn one room by heart.

Two ranges that share nothing: `varied` to learn from, `held_out` to ask. In the second the lamp stands on the other side,
is warmer and brighter or dimmer than any that was learned from, and the table has patterns that were never seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Variation = Literal["varied", "held_out"]

TEXTURE_PX = 512
"""Side of a table's texture [px]."""

_TABLES = {"varied": range(0, 100_000), "held_out": range(100_000, 200_000)}
_AZIMUTH_RAD = {"varied": (-0.5 * math.pi, 0.45 * math.pi), "held_out": (0.6 * math.pi, 1.35 * math.pi)}
_BRIGHTNESS = {"varied": ((0.7, 1.25),), "held_out": ((0.5, 0.65), (1.3, 1.5))}
_WARMTH = {"varied": (-0.08, 0.08), "held_out": (0.1, 0.2)}


@dataclass(frozen=True)
class Appearance:
    """How one episode looks; colours are RGB in [0, 1] and may exceed 1 where they multiply.

    Attributes:
        lamp_direction: In which the lamp shines, base frame, shape (3,), length 1.
        lamp_rgb: Of the lamp.
        ambient_rgb: Of the light from everywhere.
        headlight_rgb: Of the light that comes from the camera.
        table: Which pattern; see `table_texture`.
        cube_rgb: Of the cube.
        printed_rgb: Of the arm's printed parts.
    """

    lamp_direction: tuple[float, float, float]
    lamp_rgb: tuple[float, float, float]
    ambient_rgb: tuple[float, float, float]
    headlight_rgb: tuple[float, float, float]
    table: int
    cube_rgb: tuple[float, float, float]
    printed_rgb: tuple[float, float, float]


def sample_appearance(rng: np.random.Generator, variation: Variation) -> Appearance:
    """Draw how an episode looks."""
    ranges = _BRIGHTNESS[variation]
    brightness = rng.uniform(*ranges[int(rng.integers(len(ranges)))])
    warmth = rng.uniform(*_WARMTH[variation])
    tint = brightness * np.array([1.0 + warmth, 1.0, 1.0 - warmth])
    azimuth, slope = rng.uniform(*_AZIMUTH_RAD[variation]), rng.uniform(0.15, 0.9)
    direction = np.array([slope * math.cos(azimuth), slope * math.sin(azimuth), -1.0])
    share = rng.uniform(0.35, 0.65)  # how much of the light is the lamp's
    return Appearance(
        lamp_direction=_rgb(direction / np.linalg.norm(direction)),
        lamp_rgb=_rgb(1.15 * share * tint),
        ambient_rgb=_rgb(0.75 * (1 - share) * tint),
        headlight_rgb=_rgb(rng.uniform(0.2, 0.4) * tint),
        table=int(rng.integers(_TABLES[variation].start, _TABLES[variation].stop)),
        cube_rgb=_rgb(np.clip(np.array([0.86, 0.20, 0.16]) + rng.uniform(-0.07, 0.07, 3), 0, 1)),
        printed_rgb=_rgb(np.clip(np.array([0.95, 0.70, 0.16]) + rng.uniform(-0.07, 0.05, 3), 0, 1)),
    )


@lru_cache(maxsize=64)
def table_texture(number: int, size: int = TEXTURE_PX) -> NDArray[np.uint8]:
    """Draw a table: mottled, with lines, planks, squares or none of them; shape (size, size, 3), equal for equal numbers."""
    rng = np.random.default_rng([71, number])
    base = rng.uniform(0.2, 0.8) * np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.12, 0.12, 3)
    base[0] = min(base[0], base[1] + 0.1)  # none is as red as the cube
    table = np.ones((size, size, 3)) * base
    for cells in (6, 24, 96):
        strength = rng.uniform(0.01, 0.06)
        table += _enlarge(rng.uniform(-strength, strength, (cells, cells)), size)[..., None]
    place = np.arange(size) / size
    match ("lines", "planks", "squares", "plain")[number % 4]:
        case "lines":
            on = (place * rng.integers(8, 40)) % 1.0 < rng.uniform(0.05, 0.12)
            table[on] += rng.uniform(-0.15, 0.15)
            table[:, on] += rng.uniform(-0.15, 0.15)
        case "planks":
            shades = rng.uniform(-0.09, 0.09, int(rng.integers(5, 14)))
            table += shades[(place * len(shades)).astype(int)][:, None, None]
        case "squares":
            count = int(rng.integers(6, 20))
            square = (place * count).astype(int)
            table += np.where((square[:, None] + square) % 2 == 0, 1.0, -1.0)[..., None] * rng.uniform(0.03, 0.12)
    texture: NDArray[np.uint8] = np.clip(table * 255, 0, 255).astype(np.uint8)
    texture.flags.writeable = False
    return texture


def _rgb(values: Array) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _enlarge(coarse: Array, size: int) -> Array:
    """Enlarge a square array to (size, size), linearly."""
    old, new = np.arange(len(coarse)), np.linspace(0, len(coarse) - 1, size)
    columns = np.stack([np.interp(new, old, row) for row in coarse])
    return np.stack([np.interp(new, old, column) for column in columns.T], axis=1)
