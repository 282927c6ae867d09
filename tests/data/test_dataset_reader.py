from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_helpers import LENGTHS, edit_frames, edit_info

from hilserl.data.dataset import Dataset
from hilserl.errors import DatasetError


def test_tables_are_those_lerobot_reads(recorded: dict[str, Path]) -> None:
    from lerobot.datasets import LeRobotDataset

    mine = Dataset.open(recorded["policy"])
    theirs = LeRobotDataset("test/demos", root=recorded["policy"], video_backend="pyav").hf_dataset.with_format("numpy")
    for key in ("observation.state", "action", "next.reward", "next.done", "timestamp", "frame_index", "episode_index", "index"):
        np.testing.assert_array_equal(mine.column(key), np.asarray(theirs[key][:]), err_msg=key)
    assert [e.length for e in mine.episodes] == list(LENGTHS)
    assert mine.fps == 10 and mine.camera_keys == ("observation.images.wrist",)


def test_names_are_read_in_all_of_lerobots_forms(demos: Path) -> None:
    names = ["delta_x", "delta_y", "delta_z"]
    for form in (names, {"delta_z": 2, "delta_x": 0, "delta_y": 1}, {"motors": names}):
        edit_info(demos, lambda info, form=form: info["features"]["action"].update(names=form))
        assert Dataset.open(demos).names("action") == tuple(names)
    edit_info(demos, lambda info: info["features"]["action"].update(names=None))
    assert Dataset.open(demos).names("action") is None


def test_variable_lists_and_lists_of_one_read_like_arrays_and_scalars(demos: Path) -> None:
    before = Dataset.open(demos)
    expected = before.column("action"), before.column("next.reward")
    edit_frames(demos, lambda table: table.with_columns(pl.col("action").arr.to_list(), pl.concat_list("next.reward").alias("next.reward")))
    after = Dataset.open(demos)
    np.testing.assert_array_equal(after.column("action"), expected[0])
    np.testing.assert_array_equal(after.column("next.reward"), expected[1])


def test_rows_of_different_length_stop(demos: Path) -> None:
    def ragged(table: pl.DataFrame) -> pl.DataFrame:
        rows = table["action"].to_list()
        rows[3] = rows[3][:2]
        return table.with_columns(pl.Series("action", rows, dtype=pl.List(pl.Float32)))

    edit_frames(demos, ragged)
    with pytest.raises(DatasetError, match="rows of `action` differ in length, declared 3"):
        _ = Dataset.open(demos).frames


def test_channels_first_images_are_understood(demos: Path) -> None:
    def flip(info: dict) -> None:
        info["features"]["observation.images.wrist"].update(shape=[3, 96, 128], names=["channels", "height", "width"])

    edit_info(demos, flip)
    assert Dataset.open(demos).shape("observation.images.wrist") == (96, 128, 3)


@pytest.mark.failure("D11")
def test_the_content_hash_follows_every_file_and_nothing_else(demos: Path) -> None:
    hashes = [Dataset.open(demos).content_hash()]
    (demos / "README.md").write_text("a note")
    assert Dataset.open(demos).content_hash() == hashes[0]
    (video,) = demos.rglob("*.mp4")
    data = bytearray(video.read_bytes())
    data[len(data) // 2] ^= 1
    video.write_bytes(data)
    hashes.append(Dataset.open(demos).content_hash())
    video.rename(video.with_name("file-001.mp4"))
    hashes.append(Dataset.open(demos).content_hash())
    edit_info(demos, lambda info: info.update(fps=11))
    hashes.append(Dataset.open(demos).content_hash())
    assert len(set(hashes)) == 4


@pytest.mark.failure("D18")
def test_what_is_no_dataset_says_so(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"meta/info.json is missing"):
        Dataset.open(tmp_path)
    edit_info(demos, lambda info: info.update(codebase_version="v2.1"))
    with pytest.raises(DatasetError, match=r"'v2.1', this reads 'v3.0'"):
        Dataset.open(demos)
    (demos / "meta" / "info.json").write_text("{")
    with pytest.raises(DatasetError, match="JSONDecodeError"):
        Dataset.open(demos)


@pytest.mark.failure("D18")
@pytest.mark.parametrize("table", ["data", "meta/episodes"])
def test_a_truncated_parquet_file_is_named(demos: Path, table: str) -> None:
    (path,) = (demos / table).rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    dataset = Dataset.open(demos)
    with pytest.raises(DatasetError, match=rf"{table}/chunk-000/file-000.parquet: not a readable parquet file"):
        _ = dataset.frames if table == "data" else dataset.episodes


def test_reading_needs_neither_torch_nor_lerobot() -> None:
    import subprocess
    import sys

    code = (
        "import sys, hilserl.data.decode, hilserl.data.preprocess, hilserl.data.convert;"
        "print([m for m in ('torch', 'lerobot', 'prefect', 'mlflow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
