import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_helpers import LENGTHS, make_config, paint, states

from hilserl.config.models import TrainConfig
from hilserl.data.writer import EpisodeWriter, policy_features
from hilserl.errors import DatasetError


def open_writer(root: Path, config: TrainConfig) -> EpisodeWriter:
    return EpisodeWriter(root, "test/demos", policy_features(config), 10)


def frame(config: TrainConfig) -> tuple[dict[str, np.ndarray], np.ndarray]:
    state = states(np.random.default_rng(0), config, 1)[0]
    return {"observation.state": state, "observation.images.wrist": paint(0)}, np.zeros(3, np.float32)


def test_done_is_true_on_the_last_frame_of_an_episode_only(recorded: dict[str, Path]) -> None:
    table = pl.read_parquet(next((recorded["policy"] / "data").rglob("*.parquet")))
    assert np.flatnonzero(table["next.done"]).tolist() == (np.cumsum(LENGTHS) - 1).tolist()


def test_lerobot_reads_what_was_written(recorded: dict[str, Path]) -> None:
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset("test/demos", root=recorded["policy"], video_backend="pyav")
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (len(LENGTHS), sum(LENGTHS), 10)
    assert dataset.features["observation.state"]["names"][0] == "joint_pos.shoulder_pan"
    assert dataset[5]["next.reward"] == 1 and dataset[5]["task"] == "reach the cube"


@pytest.mark.failure("D19")
def test_an_existing_folder_is_never_overwritten(demos: Path, config: TrainConfig) -> None:
    with pytest.raises(DatasetError, match="never overwrites"):
        open_writer(demos, config)


def test_nothing_is_there_until_finalised_and_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    config = make_config()
    observation, action = frame(config)
    root = tmp_path / "made"
    with pytest.raises(KeyError), open_writer(root, config) as writer:
        writer.add_frame(observation, action, 0.0, task="t")
        writer.save_episode()
        assert not root.exists()
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_a_discarded_episode_leaves_no_frame(tmp_path: Path) -> None:
    config = make_config()
    observation, action = frame(config)
    with open_writer(tmp_path / "made", config) as writer:
        for keep in (False, True):
            for _ in range(3):
                writer.add_frame(observation, action, 0.0, task="t")
            writer.save_episode() if keep else writer.discard_episode()
    table = pl.read_parquet(next((tmp_path / "made" / "data").rglob("*.parquet")))
    assert table["frame_index"].to_list() == [0, 1, 2]


def test_a_frame_that_is_not_as_declared_is_refused(tmp_path: Path) -> None:
    config = make_config()
    observation, action = frame(config)
    writer = open_writer(tmp_path / "made", config)
    with pytest.raises(DatasetError, match=r"`action` is float32 \(4,\)"):
        writer.add_frame(observation, np.zeros(4, np.float32), 0.0, task="t")
    with pytest.raises(DatasetError, match="not finite"):
        writer.add_frame(observation, np.array([0, np.nan, 0], np.float32), 0.0, task="t")
    with pytest.raises(DatasetError, match="`reward` is None"):
        writer.add_frame(observation, action, task="t")
    with pytest.raises(DatasetError, match="keys"):
        writer.add_frame({"observation.state": observation["observation.state"]}, action, 0.0, task="t")
    with pytest.raises(DatasetError, match="no episode was saved"):
        writer.finalize()
    assert os.listdir(tmp_path) == []


def test_fps_must_be_whole(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="whole number"):
        EpisodeWriter(tmp_path / "made", "test/demos", policy_features(make_config()), 12.5)
