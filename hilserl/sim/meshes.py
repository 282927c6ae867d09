"""Lighter meshes for drawing: read binary STL, merge vertices on a grid.

The arm's meshes have 400,000 triangles; merged on a 3 mm grid they have 18,000, and a small
picture takes a tenth of the time and looks the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.errors import SimulationError

_STL_FACET = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_STL_HEADER_BYTES = 80


def read_stl(path: Path) -> NDArray[np.floating[Any]]:
    """Read a binary STL file.

    Returns:
        Corners of the triangles, shape (F, 3, 3), in the file's unit.

    Raises:
        SimulationError: The file is missing, truncated or not a binary STL.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SimulationError(
            f"{path}: the arm's mesh cannot be read ({error}). Reinstall with `uv sync --reinstall-package so101-nexus`."
        ) from None
    start = _STL_HEADER_BYTES + 4
    count = int.from_bytes(data[_STL_HEADER_BYTES:start], "little")
    if len(data) != start + count * _STL_FACET.itemsize:
        raise SimulationError(f"{path}: is no complete binary STL. Reinstall with `uv sync --reinstall-package so101-nexus`.")
    corners: NDArray[np.floating[Any]] = np.frombuffer(data, _STL_FACET, count, start)["corners"].astype(np.float64)
    return corners


def decimate(triangles: NDArray[np.floating[Any]], cell: float) -> tuple[NDArray[np.floating[Any]], NDArray[np.int32]]:
    """Merge all vertices that share a cell of a grid, and drop triangles that collapse.

    Args:
        triangles: Corners, shape (F, 3, 3).
        cell: Edge of the grid's cells, in the unit of `triangles`.

    Returns:
        Vertices, shape (V, 3), each the mean of the corners merged into it; and faces, shape (G, 3).
    """
    corners = triangles.reshape(-1, 3)
    keys = np.floor(corners / cell).astype(np.int64)
    keys -= keys.min(axis=0)
    spans = keys.max(axis=0) + 1
    _, index = np.unique((keys[:, 0] * spans[1] + keys[:, 1]) * spans[2] + keys[:, 2], return_inverse=True)
    counts = np.bincount(index)
    vertices = np.stack([np.bincount(index, weights=corners[:, axis]) / counts for axis in range(3)], axis=1)
    faces = index.reshape(-1, 3)
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[distinct]
    turned = np.take_along_axis(faces, (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3, axis=1)  # same triangle, smallest index first
    return vertices, np.unique(turned, axis=0).astype(np.int32)
