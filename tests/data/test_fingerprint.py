"""An episode's fingerprint is its content: neither its number nor its neighbours."""

from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest
from data_helpers import LENGTHS, edit_frames, set_column

from hilserl.data.dataset import Dataset
from hilserl.data.fingerprint import fingerprint
from hilserl.hash_memo import HashMemo

KEY = "observation.images.wrist"


def changed(before: tuple[str, ...], after: tuple[str, ...]) -> list[int]:
    return [number for number, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


def test_a_changed_row_changes_its_episode_only(demos: Path) -> None:
    before = fingerprint(Dataset.open(demos))
    reward = Dataset.open(demos).column("next.reward").copy()
    reward[LENGTHS[0] + 2] = 0.5
    set_column(demos, "next.reward", reward)
    after = fingerprint(Dataset.open(demos))
    assert changed(before.episodes, after.episodes) == [1] and before.content != after.content


def test_changed_pictures_change_their_episode_only(demos: Path) -> None:
    """One byte in the packets of episode 2."""
    before = fingerprint(Dataset.open(demos))
    path = next(demos.rglob("*.mp4"))
    start_s = Dataset.open(demos).episodes[2].videos[KEY].start_s
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [(float(p.pts * stream.time_base), p.pos, p.size) for p in container.demux(stream) if p.pts is not None]
    _, position, size = next(packet for packet in packets if packet[0] >= start_s + 0.25)
    data = bytearray(path.read_bytes())
    data[position + size // 2] ^= 1
    path.write_bytes(data)
    assert changed(before.episodes, fingerprint(Dataset.open(demos)).episodes) == [2]


def test_an_episode_is_the_same_wherever_it_stands(demos: Path) -> None:
    """As after dropping episode 0: other numbers, other rows, the same pictures at the same place of the file."""
    before = fingerprint(Dataset.open(demos)).episodes
    edit_frames(
        demos,
        lambda t: t.filter(pl.col("episode_index") > 0).with_columns(pl.col("episode_index") - 1, pl.col("index") - LENGTHS[0]),
    )
    (path,) = (demos / "meta" / "episodes").rglob("*.parquet")
    shifted = ["dataset_from_index", "dataset_to_index"]
    table = pl.read_parquet(path).filter(pl.col("episode_index") > 0)
    table.with_columns(pl.col("episode_index") - 1, *(pl.col(name) - LENGTHS[0] for name in shifted)).write_parquet(path)
    assert fingerprint(Dataset.open(demos)).episodes == before[1:]


def test_a_change_of_the_index_alone_changes_the_whole_but_no_episode(demos: Path) -> None:
    before = fingerprint(Dataset.open(demos))
    (demos / "meta" / "stats.json").write_text("{}")
    after = fingerprint(Dataset.open(demos))
    assert after.content != before.content and after.episodes == before.episodes


@pytest.mark.failure("D18")
def test_damaged_and_missing_videos_have_a_fingerprint_too(demos: Path) -> None:
    before = fingerprint(Dataset.open(demos))
    path = next(demos.rglob("*.mp4"))
    path.write_bytes(b"not a video")
    damaged = fingerprint(Dataset.open(demos))
    path.unlink()
    missing = fingerprint(Dataset.open(demos))
    assert len({before.episodes, damaged.episodes, missing.episodes}) == 3


def test_an_unchanged_dataset_is_not_read_again(demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hilserl.data import fingerprint as module

    memo = tmp_path / "memo.json"
    first = fingerprint(Dataset.open(demos), HashMemo(memo))
    monkeypatch.setattr(module, "_episodes", lambda *_: pytest.fail("the rows and packets were read again"))
    assert fingerprint(Dataset.open(demos), HashMemo(memo)) == first


def test_frames_that_are_stored_out_of_order_are_known_by_their_file(tmp_path: Path) -> None:
    """B-frames refer to later packets, so a span of packets does not say what its frames show."""
    from hilserl.data.fingerprint import _hash_packets

    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "2", "g": "12", "x264-params": "b-adapt=0:scenecut=0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(24):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert _hash_packets(path, [(0.0, 1.2), (1.2, 1.2)], 0.02) is None
