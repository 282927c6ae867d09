"""D18, D22: the videos, a sample of them or every frame; and that nothing is ever written."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arm_helpers import edit_episodes, noise, video, write_video
from data_helpers import LENGTHS, edit_info, make_config, paint, set_column, update

from hilserl.config.models import TrainConfig
from hilserl.data.validation import Finding, validate_dataset, videos
from hilserl.data.validation.frame_reader import top_level_boxes
from hilserl.progress import Progress, subscribed

FRAMES = sum(LENGTHS)


def only_stop(config: TrainConfig, root: Path, how: str = "sample") -> Finding:
    found = validate_dataset(config, root, check_videos=how).stops
    assert len(found) == 1, [str(finding) for finding in found]
    return found[0]


def without_index(content: bytes) -> bytes:
    """What a recorder leaves that was killed before it wrote the file's index."""
    start = content.index(b"moov") - 4
    size = int.from_bytes(content[start : start + 4], "big")
    return content[:start] + content[start + size :]


@pytest.mark.parametrize("how", ["sample", "all"])
def test_good_videos_pass(config: TrainConfig, demos: Path, how: str) -> None:
    validate_dataset(config, demos, check_videos=how).raise_if_stopped()


@pytest.mark.failure("D18")
def test_a_half_written_video_is_recognised(config: TrainConfig, demos: Path) -> None:
    path = video(demos)
    path.write_bytes(without_index(path.read_bytes()))
    assert "moov" not in top_level_boxes(path)
    finding = only_stop(config, demos)
    assert "half-written" in finding.message and "`moov`" in finding.message and finding.place.endswith("file-000.mp4")
    assert finding.remedy == "# restore the file from the recording"


@pytest.mark.failure("D18")
@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_something_else_than_a_video_is_recognised(config: TrainConfig, demos: Path, content: bytes) -> None:
    video(demos).write_bytes(content)
    assert "Episodes 0, 1, 2, 3 have no pictures" in only_stop(config, demos).message


@pytest.mark.failure("D18")
@pytest.mark.parametrize("how", ["sample", "all"])
def test_a_video_that_ends_early_names_episode_and_frame(config: TrainConfig, demos: Path, how: str) -> None:
    write_video(video(demos), noise(FRAMES - 10))  # episode 2 has frames 14 to 20, episode 3 those from 21 on
    finding = only_stop(config, demos, how)
    assert finding.place.endswith("episode 2 frame 5") and "10 of 29 frames early" in finding.message
    assert "exclude_episodes: [2, 3]" in finding.remedy


@pytest.mark.failure("D18")
def test_a_video_of_another_rate_is_found(config: TrainConfig, demos: Path) -> None:
    write_video(video(demos), noise(3 * FRAMES), fps=30)
    finding = only_stop(config, demos)
    assert "runs at 30 frames/s, meta/info.json says 10" in finding.message


@pytest.mark.failure("D14")
def test_a_video_of_another_size_is_found(config: TrainConfig, demos: Path) -> None:
    write_video(video(demos), noise(FRAMES, (64, 64)))
    assert "frames are 64x64 (height x width), meta/info.json says 96x128" in only_stop(config, demos).message


def break_frame(path: Path, number: int) -> None:
    """Overwrite the inside of one encoded frame, all keyframes, so that the decoder notices that one."""
    import av

    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        position, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[position + 12 : position + size] = bytes(size - 12)
    path.write_bytes(content)


@pytest.mark.failure("D18")
def test_a_damaged_frame_in_the_middle_is_found_by_all_and_only_that(config: TrainConfig, demos: Path) -> None:
    write_video(video(demos), noise(FRAMES), gop=1)
    break_frame(video(demos), 18)  # episode 2 frame 4
    assert not validate_dataset(config, demos, check_videos="none").stops
    finding = only_stop(config, demos, "all")
    assert finding.place.endswith("episode 2 frame 4") and finding.remedy.startswith("dataset: {exclude_episodes: [2]}")
    chosen = validate_dataset(update(config, dataset={"check_videos": "all"}), demos)
    assert [f.place for f in chosen.stops] == [finding.place]
    validate_dataset(update(config, dataset={"check_videos": "all", "exclude_episodes": (2,)}), demos).raise_if_stopped()


@pytest.mark.failure("D18")
def test_a_sample_decodes_first_middle_and_last_of_episodes(config: TrainConfig, demos: Path) -> None:
    write_video(video(demos), noise(FRAMES), gop=1)
    break_frame(video(demos), 14 + 7 // 2)
    finding = only_stop(config, demos)
    assert finding.place.endswith("episode 2 frame 3") and "check_videos: all" in finding.remedy


@pytest.mark.failure("D18")
@pytest.mark.parametrize("number", [8, 10, 12])
def test_bytes_lost_inside_av1_are_found_by_all(config: TrainConfig, demos: Path, number: int) -> None:
    """In its keyframes, every second frame; the differences between are a few bytes that decode to something."""
    break_frame(video(demos), number)
    places = [f.place for f in validate_dataset(config, demos, check_videos="all").stops]
    assert places and all("file-000.mp4, episode 1 frame" in place for place in places)


@pytest.mark.failure("D18")
def test_two_damaged_places_are_one_finding_with_both(config: TrainConfig, demos: Path) -> None:
    write_video(video(demos), noise(FRAMES), gop=1)
    for number in (1, 2, 24):
        break_frame(video(demos), number)
    finding = only_stop(config, demos, "all")
    assert finding.place.partition(", ")[2] == "episode 0 frame 1" and "exclude_episodes: [0, 3]" in finding.remedy
    assert "episode 0 frames 1 to 2; episode 3 frame 3" in finding.message


@pytest.mark.failure("D18")
def test_black_and_frozen_episodes_are_told(config: TrainConfig, demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [paint(number) for number in range(FRAMES)]
    for number in range(6, 14):
        frames[number] = np.zeros_like(frames[0])
    for number in range(14, 21):
        frames[number] = frames[14]
    write_video(video(demos), frames, gop=1)
    monkeypatch.setattr(videos, "_MIN_FROZEN_S", 0.5)
    for how in ("sample", "all"):
        told = [f for f in validate_dataset(config, demos, check_videos=how).findings if "every decoded frame" in f.message]
        assert [("one colour" in f.message, f.remedy) for f in told] == [
            (True, "dataset: {exclude_episodes: [1]}"),
            (False, "dataset: {exclude_episodes: [2]}"),
        ]


@pytest.mark.failure("D18")
def test_episodes_that_share_frames_are_found(config: TrainConfig, demos: Path) -> None:
    import polars as pl

    key = "videos/observation.images.wrist/from_timestamp"
    edit_episodes(demos, lambda t: t.with_columns(pl.when(pl.col("episode_index") == 1).then(0.3).otherwise(pl.col(key)).alias(key)))
    assert "episode 1 begins at 0.300 s, before the end of episode 0" in only_stop(config, demos).message


def test_decoding_everything_reports_progress(config: TrainConfig, demos: Path) -> None:
    seen: list[Progress] = []
    with subscribed(seen.append):
        validate_dataset(config, demos, check_videos="all")
    frames = [report for report in seen if report.unit == "frames"]
    assert frames and frames[-1].stage == "validate-dataset" and (frames[-1].done, frames[-1].total) == (FRAMES, FRAMES)


def test_long_files_are_decoded_in_stretches(config: TrainConfig, demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "_SEGMENT_FRAMES", 5)
    validate_dataset(config, demos, check_videos="all").raise_if_stopped()
    break_frame(video(demos), 12)
    assert any("episode 1 frame 6" in f.place for f in validate_dataset(config, demos, check_videos="all").stops)


def contents(root: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in sorted(root.rglob("*"))]
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "", path.stat().st_mtime_ns)
        for path in files
    }


@pytest.mark.parametrize("damaged", [False, True])
def test_the_dataset_is_never_changed(config: TrainConfig, demos: Path, damaged: bool) -> None:
    if damaged:
        video(demos).write_bytes(without_index(video(demos).read_bytes()))
        set_column(demos, "next.reward", np.full(FRAMES, np.nan, np.float32))
        edit_info(demos, lambda info: info.update(total_frames=3))
    before = contents(demos)
    for how in ("none", "sample", "all"):
        validate_dataset(config, demos, check_videos=how)
    assert contents(demos) == before


WITHOUT_TORCHCODEC = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchcodec":
            raise ImportError("libavutil.so.58: cannot open shared object file")

sys.meta_path.insert(0, Blocked())
import json
from pathlib import Path
from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_camera
from hilserl.data.validation import validate_dataset

root = Path(sys.argv[1])
validate_dataset(TrainConfig.model_validate(json.loads(sys.argv[2])), root, check_videos="all").raise_if_stopped()
print(sum(1 for _ in decode_camera(Dataset.open(root), "observation.images.wrist")))
"""


@pytest.mark.failure("D22")
def test_everything_is_decoded_without_torchcodec(recorded: dict[str, Path]) -> None:
    config = make_config(recorded["policy"]).model_dump_json()
    command = [sys.executable, "-c", WITHOUT_TORCHCODEC, str(recorded["policy"]), config]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(FRAMES)
