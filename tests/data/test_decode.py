from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_helpers import LENGTHS, NATIVE, number_in, paint

from hilserl.data import decode
from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_camera
from hilserl.errors import DatasetError

KEY = "observation.images.wrist"


def video(root: Path) -> Path:
    (path,) = root.rglob("*.mp4")
    return path


def test_every_frame_comes_once_in_order_and_is_the_one_recorded(recorded: dict[str, Path]) -> None:
    frames = list(decode_camera(Dataset.open(recorded["policy"]), KEY))
    assert [frame.row for frame in frames] == list(range(sum(LENGTHS)))
    assert [number_in(frame.image) for frame in frames] == list(range(sum(LENGTHS)))
    assert all(frame.image.dtype == np.uint8 and frame.image.shape == (*NATIVE, 3) for frame in frames)
    # Lossy, but the colours are RGB in the right order: the red slope is far from the blue constant.
    assert np.abs(frames[9].image.astype(int) - paint(9)).mean() < 12


def test_lerobots_own_decoder_gives_the_same_pixels(recorded: dict[str, Path]) -> None:
    from lerobot.datasets import LeRobotDataset

    theirs = LeRobotDataset("test/demos", root=recorded["policy"], video_backend="pyav", return_uint8=True)
    for frame in decode_camera(Dataset.open(recorded["policy"]), KEY):
        expected = theirs[frame.row][KEY].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(frame.image, expected, err_msg=f"row {frame.row}")


def test_each_file_is_opened_once(recorded: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened, original = [], decode.av.open
    monkeypatch.setattr(decode.av, "open", lambda path: opened.append(path) or original(path))
    list(decode_camera(Dataset.open(recorded["policy"]), KEY))
    assert len(opened) == 1


def test_frames_of_deleted_episodes_are_skipped(demos: Path) -> None:
    """An edited dataset whose episode table lacks episode 1 while the video still holds it."""
    (path,) = (demos / "meta" / "episodes").rglob("*.parquet")
    table = pl.read_parquet(path).filter(pl.col("episode_index") != 1)
    shift = pl.when(pl.col("dataset_from_index") > 0).then(LENGTHS[1]).otherwise(0)
    table = table.with_columns(
        pl.Series("episode_index", [0, 1, 2]), pl.col("dataset_from_index") - shift, pl.col("dataset_to_index") - shift
    )
    table.write_parquet(path)
    frames = list(decode_camera(Dataset.open(demos), KEY))
    assert [frame.row for frame in frames] == list(range(21))
    assert [number_in(frame.image) for frame in frames] == [*range(6), *range(14, 29)]


@pytest.mark.failure("D18")
def test_a_truncated_video_stops_and_names_the_place(demos: Path) -> None:
    path = video(demos)
    data = path.read_bytes()
    start = data.index(b"mdat")
    # LeRobot puts the index first, so the container still opens; the pictures at the end are gone.
    path.write_bytes(data[: start + (len(data) - start) // 2])
    with pytest.raises(DatasetError, match=r"file-000.mp4: cannot decode episode [123] frame \d"):
        list(decode_camera(Dataset.open(demos), KEY))


@pytest.mark.failure("D18")
def test_overwritten_video_data_stops(demos: Path) -> None:
    path = video(demos)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = b"\xa5" * (len(data) - start)
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"cannot decode episode 0 frame 0"):
        list(decode_camera(Dataset.open(demos), KEY))


@pytest.mark.failure("D18")
def test_a_file_that_is_no_video_stops(demos: Path) -> None:
    video(demos).write_bytes(b"not a video")
    with pytest.raises(DatasetError, match=r"cannot decode episode 0 frame 0: InvalidDataError"):
        list(decode_camera(Dataset.open(demos), KEY))


@pytest.mark.failure("D18")
def test_a_missing_video_stops(demos: Path) -> None:
    video(demos).unlink()
    with pytest.raises(DatasetError, match="the video is missing; it holds episode 0"):
        list(decode_camera(Dataset.open(demos), KEY))


@pytest.mark.failure("D18")
def test_a_video_with_fewer_frames_than_the_table_stops(demos: Path) -> None:
    (path,) = (demos / "meta" / "episodes").rglob("*.parquet")
    table = pl.read_parquet(path)
    table.with_columns(pl.Series("length", [6, 8, 7, 10])).write_parquet(path)
    with pytest.raises(DatasetError, match=r"episode 3 frame 8: the video ends 2 of 31 frames early"):
        list(decode_camera(Dataset.open(demos), KEY))


@pytest.mark.failure("D18")
def test_times_between_two_frames_stop(demos: Path) -> None:
    (path,) = (demos / "meta" / "episodes").rglob("*.parquet")
    key = f"videos/{KEY}/from_timestamp"
    table = pl.read_parquet(path)
    table.with_columns(pl.Series(key, [0.0, 0.65, 1.4, 2.1])).write_parquet(path)
    with pytest.raises(DatasetError, match=r"episode 1 frame 0: no frame at 0.650 s, the next is at 0.700 s"):
        list(decode_camera(Dataset.open(demos), KEY))
