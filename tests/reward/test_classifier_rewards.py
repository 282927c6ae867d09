"""`dataset.reward_from: classifier`: the buffer's rewards are the artefact's verdicts."""

import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reward_helpers import make_config

from hilserl.config.models import TrainConfig
from hilserl.data.buffer_build import get_or_build
from hilserl.data.conversion_plan import plan_conversion
from hilserl.data.convert import ROLES
from hilserl.data.dataset import Dataset
from hilserl.data.decode import decode_cameras
from hilserl.data.offline_buffer import OfflineBuffer
from hilserl.data.shard_store import convert_batch
from hilserl.data.shards import ShardRecord, shard_folder
from hilserl.data.writer import EpisodeWriter, policy_features
from hilserl.errors import ConfigError, DatasetError
from hilserl.reward.agreement import frames_of, judge_dataset
from hilserl.reward.classifier import SuccessClassifier
from tasks.build_offline_buffer import load_judge


def judged_config(root: Path, classifier: Path) -> TrainConfig:
    return make_config(root, reward_from="classifier", classifier=str(classifier))


@pytest.mark.failure("L13")
def test_the_first_success_pays_once_and_ends_the_episode(other: Path, saved: Path, tmp_path: Path) -> None:
    """As on the arm, where the verdict ends it: what was recorded afterwards is no transition."""
    manifest, _, _ = get_or_build(judged_config(other, saved), None, tmp_path, load_judge=load_judge)
    buffer = OfflineBuffer.open(manifest.folder)
    columns, usable = buffer.columns, np.zeros(len(buffer.columns), bool)
    usable[buffer.transition_rows] = True
    judged = list(judge_dataset(SuccessClassifier.load(saved), other))
    for episode in judged:
        mine, first = columns["episode"] == episode.index, episode.verdict.first_success
        rows, frames = columns[mine], np.arange(len(episode.verdict.success))
        np.testing.assert_array_equal(rows["reward"], frames == first)
        np.testing.assert_array_equal(rows["terminated"], frames == first)
        np.testing.assert_array_equal(rows["truncated"], (frames == frames[-1]) & (first is None))
        np.testing.assert_array_equal(usable[mine], frames < frames[-1] if first is None else frames <= first)
    roles = {int(number): ROLES[columns["role"][columns["episode"] == number][0]] for number in range(len(judged))}
    assert roles == {0: "demonstration", 1: "demonstration", 2: "demonstration", 3: "failure", 4: "failure", 5: "demonstration"}


def test_each_camera_is_judged_under_its_own_name(tmp_path: Path) -> None:
    config = TrainConfig.model_validate(
        {
            "robot": {"cameras": {name: {"height": 64, "width": 96} for name in ("front", "wrist")}},
            "observation": {"images": {name: {"resize": [48, 48]} for name in ("front", "wrist")}},
        }
    )
    features = policy_features(config)
    grey = {"front": 40, "wrist": 200}
    frames = {f"observation.images.{camera}": np.full((64, 96, 3), level, np.uint8) for camera, level in grey.items()}
    state = np.zeros(features["observation.state"]["shape"], np.float32)
    with EpisodeWriter(tmp_path / "two", "test/two", features, 10) as writer:
        for _ in range(4):
            writer.add_frame({"observation.state": state, **frames}, np.zeros(len(config.action_names), np.float32), 0.0, task="look")
        writer.save_episode()
    dataset = Dataset.open(tmp_path / "two")
    looks_at_both: Any = SimpleNamespace(cameras=("front", "wrist"), state=())
    for seen in (list(decode_cameras(dataset, ("front", "wrist"))), list(frames_of(dataset, 0, looks_at_both))):
        assert len(seen) == 4
        assert all(abs(frame[camera].mean() - level) < 5 for frame in seen for camera, level in grey.items())


@pytest.mark.failure("D11")
def test_the_key_follows_the_classifier_and_not_where_it_lies(other: Path, saved: Path, tmp_path: Path) -> None:
    def key(classifier: Path) -> str:
        return plan_conversion(judged_config(other, classifier), None, None, load_judge=load_judge).key

    elsewhere = shutil.copytree(saved, tmp_path / "elsewhere")
    assert key(elsewhere) == key(saved)
    strict = SuccessClassifier.load(saved)
    strict.threshold = 0.9
    strict.save(elsewhere)
    assert key(elsewhere) != key(saved)
    assert plan_conversion(make_config(other), None, None, load_judge=load_judge).key != key(saved)


def test_a_job_carries_the_classifier_by_name(other: Path, saved: Path) -> None:
    job = plan_conversion(judged_config(other, saved), None, None, load_judge=load_judge).jobs[0]
    parcel = pickle.dumps(job)
    judge = pickle.loads(parcel).judge
    assert isinstance(judge, SuccessClassifier) and judge.version == SuccessClassifier.load(saved).version
    assert len(parcel) < (saved / "model.safetensors").stat().st_size / 4


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(other: Path, saved: Path, tmp_path: Path) -> None:
    job = plan_conversion(judged_config(other, saved), None, None, load_judge=load_judge).jobs[0]
    assert convert_batch([job], tmp_path / "here") == []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(convert_batch, [job], tmp_path / "there").result() == []
    here, there = (ShardRecord.read(shard_folder(tmp_path / place, job.key)) for place in ("here", "there"))
    assert here.files == there.files and sum(here.positives) > 0


@pytest.mark.failure("D02")
def test_a_classifier_that_cannot_be_used_stops_before_anything_is_decoded(other: Path, saved: Path, tmp_path: Path) -> None:
    root = shutil.copytree(other, tmp_path / "demos")
    shutil.rmtree(root / "videos")
    with pytest.raises(ConfigError, match=r"dataset.classifier: .*nowhere: no such folder"):
        get_or_build(judged_config(root, tmp_path / "nowhere"), None, tmp_path / "cache", load_judge=load_judge)
    damaged = shutil.copytree(saved, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"dataset.classifier: .*does not match its checksum"):
        get_or_build(judged_config(root, damaged), None, tmp_path / "cache", load_judge=load_judge)
    with pytest.raises(ConfigError, match=r"set `dataset.classifier`"):
        plan_conversion(make_config(root, reward_from="classifier"), None, None, load_judge=load_judge)


def test_a_dataset_without_the_classifiers_camera_is_refused(other: Path, saved: Path, tmp_path: Path) -> None:
    classifier = SuccessClassifier.load(saved)
    classifier.views = {"top": classifier.views["wrist"]}
    classifier._network.cameras = ("top",)
    classifier.save(tmp_path / "top")
    with pytest.raises(DatasetError, match=r"camera `top`, the dataset has \['wrist'\]"):
        list(judge_dataset(SuccessClassifier.load(tmp_path / "top"), other))
    with pytest.raises(DatasetError, match=r"looks at camera \['top'\]"):
        get_or_build(judged_config(other, tmp_path / "top"), None, tmp_path / "cache", load_judge=load_judge)
    assert Dataset.open(other).camera_keys == ("observation.images.wrist",)
