"""Check a freshly written dataset before a person relies on it: tables against each other and against the video."""

from __future__ import annotations

from pathlib import Path

from hilserl.data.editing.tables import Tables
from hilserl.data.editing.video import SourceVideos
from hilserl.errors import DatasetError


def check_result(root: Path) -> tuple[int, int]:
    """Look up every frame of every episode in tables and videos, without decoding; return episodes and frames.

    Raises:
        DatasetError: Something does not fit.
    """
    tables, frames = Tables.open(root), 0
    cameras = [key for key in tables.dataset.camera_keys if tables.dataset.features[key]["dtype"] == "video"]
    videos = {key: SourceVideos() for key in cameras}
    try:
        for episode in sorted(tables.rows):
            length = len(tables.frames(episode))
            frames += length
            for key in cameras:
                videos[key].frame_times(tables.span(episode, key, 0, length))
    finally:
        for source in videos.values():
            source.close()
    if frames != tables.dataset.info["total_frames"] or len(tables.rows) != tables.dataset.info["total_episodes"]:
        raise DatasetError(
            f"{root}: meta/info.json states {tables.dataset.info['total_episodes']} episodes and {tables.dataset.info['total_frames']} "
            f"frames, the tables hold {len(tables.rows)} and {frames}."
        )
    return len(tables.rows), frames
