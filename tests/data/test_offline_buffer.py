import json
import re
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_helpers import LENGTHS, NATIVE, ToyArm, edit_info, make_config, set_column, update

from hilserl import progress
from hilserl.config.models import TrainConfig
from hilserl.data import offline_buffer
from hilserl.data.offline_buffer import (
    OfflineBuffer,
    build_offline_buffer,
    get_or_build,
    offline_buffer_folder,
    offline_buffer_inputs,
    offline_buffer_key,
    verify_offline_buffer,
)
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CacheError, DatasetError

KEY = "observation.images.wrist"
ROWS = sum(LENGTHS)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def built(config: TrainConfig, demos: Path, cache: Path) -> Path:
    return get_or_build(config, demos, cache)[0].folder


def test_images_are_lerobots_frames_through_the_one_preprocessor(config: TrainConfig, demos: Path, built: Path) -> None:
    """The oracle: LeRobot decodes by time stamp, one frame at a time."""
    from lerobot.datasets import LeRobotDataset

    theirs = LeRobotDataset("test/demos", root=demos, video_backend="pyav", return_uint8=True)
    buffer, preprocessor = OfflineBuffer.open(built), Preprocessor.from_config(config)
    for row in range(0, ROWS, 4):
        item = theirs[row]
        np.testing.assert_array_equal(buffer.images[KEY][row], preprocessor.image("wrist", item[KEY].permute(1, 2, 0).numpy()))
        np.testing.assert_array_equal(buffer.state[row], item["observation.state"])
        np.testing.assert_array_equal(buffer.action[row], item["action"])
        assert (buffer.reward[row], buffer.episode_index[row]) == (item["next.reward"], item["episode_index"])


@pytest.mark.failure("D13")
def test_images_are_uint8_over_their_whole_range(built: Path) -> None:
    images = OfflineBuffer.open(built).images[KEY]
    assert images.dtype == np.uint8 and images.shape == (ROWS, 48, 48, 3)
    assert images.min() < 10 and images.max() > 245


@pytest.mark.failure("L01")
def test_transitions_leave_out_exactly_the_ends_of_truncated_episodes(built: Path) -> None:
    buffer = OfflineBuffer.open(built)
    rows, following = buffer.transition_rows, buffer.next_rows
    assert rows.tolist() == list(range(ROWS - 1))  # episode 3, the last, was truncated
    assert (buffer.manifest.transitions, buffer.manifest.dropped) == (ROWS - 1, 1)
    np.testing.assert_array_equal(buffer.episode_index[rows], buffer.episode_index[following])
    np.testing.assert_array_equal(following, np.where(buffer.terminated[rows], rows, rows + 1))


def test_the_manifest_tells_what_a_person_wants_to_know(config: TrainConfig, demos: Path, built: Path) -> None:
    manifest = OfflineBuffer.open(built).manifest
    assert (manifest.rows, manifest.episodes, manifest.positives_per_episode) == (ROWS, 4, (1, 1, 1, 0))
    assert manifest.key == offline_buffer_key(config, demos) and manifest.frames_per_s > 0
    assert manifest.size_bytes == sum(path.stat().st_size for path in built.iterdir() if path.name != "manifest.json")
    assert str(built) not in (built / "manifest.json").read_text()  # another machine can use it


def test_arrays_are_mapped_read_only(built: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        OfflineBuffer.open(built).images[KEY][0] = 0


def test_the_state_is_scaled_by_the_stored_statistics(built: Path) -> None:
    buffer = OfflineBuffer.open(built)
    normalised = buffer.normalizer.normalize(buffer.state)
    assert 0.3 < np.abs(normalised).max() <= 1 + 1e-5


@pytest.mark.failure("D14")
def test_the_picture_shows_the_raw_frame_beside_the_policys(built: Path) -> None:
    picture = cv2.cvtColor(cv2.imread(str(built / "model_input.png")), cv2.COLOR_BGR2RGB)
    images = OfflineBuffer.open(built).images[KEY]
    raw_width = round(NATIVE[1] * 240 / NATIVE[0])
    assert picture.shape == (24 + 240 + 8, raw_width + 8 + 240, 3)
    seen = picture[24:264, raw_width + 8 :]
    np.testing.assert_array_equal(seen, images[0].repeat(5, axis=0).repeat(5, axis=1))


@pytest.mark.failure("D11")
def test_a_second_call_is_a_hit_that_decodes_nothing(config: TrainConfig, demos: Path, cache: Path, built: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in built.iterdir()}
    manifest, hit, reason = get_or_build(config, demos, cache)
    assert hit and "verified" in reason and manifest.folder == built
    assert {path.name: path.stat().st_mtime_ns for path in built.iterdir()} == before


@pytest.mark.failure("D11")
def test_the_key_follows_dataset_preprocessing_conversion_and_code(
    config: TrainConfig, demos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [offline_buffer_key(config, demos)]
    keys.append(offline_buffer_key(update(config, observation={"images": {"wrist": {"crop": None, "resize": [48, 48]}}}), demos))
    keys.append(offline_buffer_key(update(config, dataset={"reward_from": "success_at_end"}), demos))
    keys.append(offline_buffer_key(update(config, dataset={"done_from": "episode_table"}), demos))
    with monkeypatch.context() as patch:
        patch.setattr(offline_buffer, "source_hash", lambda *modules: "edited")
        keys.append(offline_buffer_key(config, demos))
    set_column(demos, "next.reward", np.eye(1, ROWS, 5, dtype=np.float32)[0])
    keys.append(offline_buffer_key(config, demos))
    assert len(set(keys)) == len(keys)
    assert offline_buffer_key(update(config, policy={"discount": 0.9}), demos) == keys[-1]


@pytest.mark.failure("D11")
def test_the_kinematics_count_only_where_they_are_used(config: TrainConfig, demos: Path, teleop_config: TrainConfig, teleop: Path) -> None:
    arm = ToyArm(config)
    changed = ToyArm(config)
    changed.version = "toy-2"
    assert offline_buffer_key(config, demos, arm) == offline_buffer_key(config, demos)
    assert offline_buffer_key(teleop_config, teleop, arm) != offline_buffer_key(teleop_config, teleop, changed)


@pytest.mark.failure("D11")
def test_a_rebuild_says_which_input_changed(config: TrainConfig, demos: Path, cache: Path, built: Path) -> None:
    bigger = update(config, observation={"images": {"wrist": {"crop": [0, 16, 96, 96], "resize": [96, 96]}}})
    manifest, hit, reason = get_or_build(bigger, demos, cache)
    assert not hit and "preprocessor changed in schema, views" in reason and manifest.folder != built
    assert OfflineBuffer.open(manifest.folder).images[KEY].shape == (ROWS, 96, 96, 3)
    set_column(demos, "next.reward", np.eye(1, ROWS, 5, dtype=np.float32)[0])
    manifest, hit, reason = get_or_build(bigger, demos, cache)
    assert not hit and "the dataset's content changed" in reason and "preprocessor" not in reason
    assert manifest.positives_per_episode == (1, 0, 0, 0)


def damage_deleted(folder: Path) -> None:
    (folder / f"{KEY}.npy").unlink()


def damage_truncated(folder: Path) -> None:
    path = folder / "action.npy"
    path.write_bytes(path.read_bytes()[:-8])


def damage_flipped(folder: Path) -> None:
    path = folder / f"{KEY}.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_format(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 0}))


@pytest.mark.failure("D12")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_deleted, "observation.images.wrist.npy is missing"),
        (damage_truncated, "action.npy has .* bytes, was written with"),
        (damage_flipped, r"observation.images.wrist.npy has other content than was written \(SHA-256 differs\)"),
        (damage_manifest, "no readable manifest.json"),
        (damage_format, "format 0, this version reads 1"),
    ],
)
def test_a_damaged_buffer_is_noticed_and_rebuilt(config: TrainConfig, demos: Path, cache: Path, built: Path, damage, reason: str) -> None:
    original = OfflineBuffer.open(built).images[KEY][:].copy()
    damage(built)
    assert verify_offline_buffer(built, offline_buffer_key(config, demos))
    manifest, hit, said = get_or_build(config, demos, cache)
    assert not hit
    assert re.search(reason, said), said
    np.testing.assert_array_equal(OfflineBuffer.open(manifest.folder).images[KEY], original)
    assert verify_offline_buffer(built, manifest.key) == []


@pytest.mark.failure("D12")
def test_a_buffer_of_other_inputs_in_the_right_place_is_refused(config: TrainConfig, demos: Path, built: Path) -> None:
    inputs = offline_buffer_inputs(config, demos) | {"code": "edited"}
    assert verify_offline_buffer(built, "another") == [f"it was built from other inputs (key {built.name[-16:]}, wanted another)"]
    (reason,) = verify_offline_buffer(built, "another", inputs)
    assert reason.startswith("the code changed (") and reason.endswith("→ edited)")


def test_opening_what_is_not_whole_stops(built: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no readable manifest.json"):
        OfflineBuffer.open(tmp_path)
    damage_deleted(built)
    with pytest.raises(CacheError, match="Delete the folder to rebuild"):
        OfflineBuffer.open(built)


@pytest.mark.failure("D18")
def test_a_damaged_video_leaves_no_buffer_behind(config: TrainConfig, demos: Path, cache: Path) -> None:
    path = next(demos.rglob("*.mp4"))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DatasetError, match="cannot decode episode"):
        get_or_build(config, demos, cache)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_a_dataset_that_does_not_fit_is_never_decoded(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    edit_info(demos, lambda info: info.update(fps=20))
    with pytest.raises(DatasetError, match="recorded at 20 Hz"):
        build_offline_buffer(config, demos, tmp_path / "buffer")
    assert not (tmp_path / "buffer").exists()


@pytest.mark.failure("D15")
def test_frames_that_are_smaller_than_declared_stop(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    """The metadata promise 480x640; the video holds 96x128."""
    edit_info(demos, lambda info: info["features"][KEY].update(shape=[480, 640, 3]))
    config = update(
        config,
        robot={"cameras": {"wrist": {"height": 480, "width": 640}}},
        observation={"images": {"wrist": {"crop": None, "resize": [128, 128]}}},
    )
    with pytest.raises(DatasetError, match=r"episode 0 frame 0: observation.images.wrist: got uint8 \(96, 128, 3\)"):
        build_offline_buffer(config, demos, tmp_path / "buffer")


@pytest.mark.failure("L15")
def test_a_disk_without_room_is_refused_first(config: TrainConfig, demos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilserl.files.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(CacheError, match="the offline buffer of 29 frames needs"):
        get_or_build(config, demos, cache)


def test_joint_space_demonstrations_build_too(teleop_config: TrainConfig, teleop: Path, cache: Path) -> None:
    manifest, _, _ = get_or_build(teleop_config, teleop, cache, ToyArm(teleop_config))
    assert manifest.rows == manifest.transitions == sum(LENGTHS[:2]) and manifest.residual_m is not None
    assert manifest.positives_per_episode == (1, 1)


def test_a_state_only_policy_has_a_buffer_without_images(demos: Path, cache: Path) -> None:
    config = update(make_config(demos), observation={"images": {}})
    buffer = OfflineBuffer.open(get_or_build(config, demos, cache)[0].folder)
    assert buffer.images == {} and len(buffer.state) == ROWS


def test_progress_counts_frames_to_the_end(config: TrainConfig, demos: Path, cache: Path) -> None:
    seen: list[progress.Progress] = []
    with progress.subscribed(seen.append):
        get_or_build(config, demos, cache)
    assert seen[0].message == "building: no buffer yet"
    assert (seen[-1].stage, seen[-1].done, seen[-1].total, seen[-1].unit) == ("build-offline-buffer", ROWS, ROWS, "frames")


def test_two_at_once_build_once(config: TrainConfig, demos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds, original = [], offline_buffer.build_offline_buffer

    def slow(*args: object) -> object:
        builds.append(args)
        time.sleep(0.3)
        return original(*args)

    monkeypatch.setattr(offline_buffer, "build_offline_buffer", slow)
    hits: list[bool] = []
    threads = [threading.Thread(target=lambda: hits.append(get_or_build(config, demos, cache)[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1 and sorted(hits) == [False, True]
    assert offline_buffer_folder(cache, offline_buffer_key(config, demos)).is_dir()
