"""What the tests of dataset editing share."""

import json
from pathlib import Path

import av
import numpy as np
import polars as pl
import pyarrow.parquet as pq

from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_camera
from hilserl.data.editing.tables import Tables
from hilserl.data.editing.video import SourceVideos, VideoWriter

CAMERA = "observation.images.wrist"


def pictures(root: Path) -> np.ndarray:
    """Decode a dataset, in the order of its rows: shape (N, H, W, 3)."""
    frames = dict(decode_camera(Dataset.open(root), CAMERA))
    return np.stack([frames[row] for row in range(len(frames))])


def columns(root: Path) -> pl.DataFrame:
    return Dataset.open(root).frames


def stats_of(root: Path) -> dict:
    return json.loads((root / "meta" / "stats.json").read_text())


def recode(root: Path, codec: str, options: dict[str, str]) -> None:
    """Encode the only video of a dataset anew, with another encoder."""
    (path,) = (root / "videos").rglob("*.mp4")
    frames = pictures(root)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_v21(root: Path, target: Path) -> None:
    """Lay out a v3.0 dataset as LeRobot wrote v2.1: a file an episode, tables as JSON lines."""
    tables, videos = Tables.open(root), SourceVideos()
    (target / "meta").mkdir(parents=True)
    episodes, stats = [], []
    for episode, row in tables.rows.items():
        data = target / f"data/chunk-000/episode_{episode:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tables.frames(episode), data)
        with VideoWriter(target / "part", 100, videos) as writer:
            writer.add(tables.span(episode, CAMERA, 0, row["length"]))
        video = target / f"videos/chunk-000/{CAMERA}/episode_{episode:06d}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        writer.files[0].rename(video)
        episodes.append({"episode_index": episode, "tasks": row["tasks"], "length": row["length"]})
        plain = {key: {name: value.tolist() for name, value in part.items()} for key, part in tables.stats(episode).items()}
        stats.append({"episode_index": episode, "stats": plain})
    videos.close()
    (target / "part/chunk-000").rmdir()
    (target / "part").rmdir()
    tasks = [{"task_index": index, "task": task} for index, task in tables.tasks.items()]
    for name, lines in (("episodes", episodes), ("episodes_stats", stats), ("tasks", tasks)):
        (target / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = dict(tables.dataset.info) | {
        "codebase_version": "v2.1",
        "total_chunks": 1,
        "total_videos": len(episodes),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    del info["data_files_size_in_mb"], info["video_files_size_in_mb"]
    (target / "meta/info.json").write_text(json.dumps(info))
