"""Training learns what is marked, on episodes that it never saw, with all of its network."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from reward_helpers import lamps, make_config, record

from hilserl import progress
from hilserl.data.dataset import Dataset
from hilserl.data.preprocess import CameraView, Preprocessor
from hilserl.errors import DatasetError, TrainingError
from hilserl.reward.agreement import judge_dataset
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.fit import shiftable
from hilserl.reward.labelled import LabelledEpisode, labelled_episodes, split_by_episode
from hilserl.reward.network import SuccessNetwork
from hilserl.reward.train import DEFAULT_THRESHOLD, Recipe, TrainedClassifier, choose_threshold, train_classifier


def views_of(root: Path):
    return Preprocessor.from_config(make_config(root)).views


def edit_rewards(root: Path, change) -> None:
    (path,) = (root / "data").rglob("*.parquet")
    table = pl.read_parquet(path)
    change(table).write_parquet(path)


def test_it_is_right_on_held_out_episodes(trained: TrainedClassifier) -> None:
    """Always giving one answer, or guessing, reaches a balanced accuracy of 0.5."""
    metrics = trained.validation
    assert metrics.frames.balanced_accuracy > 0.95
    assert metrics.episodes.right == metrics.episodes.total == len(trained.split.validation)
    assert metrics.frames.total == sum(len(episode.success) for episode in trained.split.validation)


def test_it_is_right_on_a_dataset_it_never_saw(classifier: SuccessClassifier, other: Path) -> None:
    judged = list(judge_dataset(classifier, other))
    assert [episode.verdict.first_success for episode in judged] == [11, 8, 6, None, None, 10]  # the third lit frame
    assert [episode.verdict.flickers for episode in judged] == [0, 0, 0, 0, 2, 0]
    assert {episode.known for episode in judged} == {"new"}


@pytest.mark.failure("L19")
def test_no_episode_is_on_both_sides(trained: TrainedClassifier) -> None:
    split = trained.split
    train, choice, validation = ({episode.content for episode in side} for side in (split.train, split.choice, split.validation))
    assert (
        train and choice and validation and len(train) + len(choice) + len(validation) == len(train | choice | validation) == len(lamps())
    )
    for side in (split.train, split.choice, split.validation):
        assert any(episode.success.any() for episode in side) and any(not episode.success.any() for episode in side)
    facts = trained.classifier.training["episodes"]
    assert {episode["content"] for episode in facts["validation"]} == validation


@pytest.mark.failure("L19")
def test_a_copy_of_an_episode_is_left_out_however_it_is_marked(marked: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(marked, tmp_path / "copy")
    edit_rewards(copy, lambda table: table.with_columns(pl.lit(1.0, pl.Float32).alias("next.reward")))
    labelled = labelled_episodes([Dataset.open(marked), Dataset.open(copy)])
    assert len(labelled.episodes) == len(labelled.copies) == len(lamps())
    assert f"{copy} episode 3 is a copy of {marked} episode 3" in labelled.copies


@pytest.mark.failure("L19")
def test_the_whole_network_is_trained(trained: TrainedClassifier) -> None:
    torch.manual_seed(0)
    before = dict(SuccessNetwork({"wrist": (48, 48)}).named_parameters())
    after = dict(trained.classifier._network.named_parameters())
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert not still and {name.partition(".")[0] for name in after} == {"encoders", "projection", "head"}


def test_the_same_seed_gives_the_same_classifier_and_another_one_another(marked: Path) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        return train_classifier([marked], views_of(marked), Recipe(seed=seed, max_epochs=2)).classifier._network.state_dict()

    first, again, different = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], different["head.weight"])


def test_a_judged_episode_says_whether_it_was_learned_from(trained: TrainedClassifier, saved: Path, marked: Path, tmp_path: Path) -> None:
    unmarked = shutil.copytree(marked, tmp_path / "unmarked")
    edit_rewards(unmarked, lambda table: table.drop("next.reward"))
    judged = list(judge_dataset(SuccessClassifier.load(saved), unmarked))
    held_out = {episode.index for episode in trained.split.validation}
    assert {episode.index for episode in judged if episode.known == "held out"} == held_out
    assert sum(episode.known == "trained on" for episode in judged) == len(lamps()) - len(held_out)
    assert all(episode.marked is None and episode.agreement is None for episode in judged)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (["....", "....", "..##"], "1 of 3 episodes contain a success, and two are needed"),
        (["....", "...."], "0 of 2 episodes contain a success"),
        (["####", "####", "####"], "show nothing but success"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_the_remedy(shown: list[str], message: str) -> None:
    episodes = [
        LabelledEpisode(None, place, place, str(place), np.array([sign == "#" for sign in lamp]))  # type: ignore[arg-type]
        for place, lamp in enumerate(shown)
    ]
    with pytest.raises(TrainingError, match=message) as caught:
        split_by_episode(episodes, 0.25, 0)
    assert "mark" in str(caught.value)


def test_unmarked_datasets_and_other_cameras_are_refused_before_decoding(marked: Path, tmp_path: Path) -> None:
    unmarked = shutil.copytree(marked, tmp_path / "unmarked")
    shutil.rmtree(unmarked / "videos")  # decoding would fail otherwise
    with pytest.raises(DatasetError, match=r"1[06]0x"):
        wrong = make_config(marked).model_dump()
        wrong["robot"]["cameras"]["wrist"] = {**wrong["robot"]["cameras"]["wrist"], "height": 100}
        train_classifier([unmarked], Preprocessor.from_config(type(make_config(marked)).model_validate(wrong)).views)
    edit_rewards(unmarked, lambda table: table.drop("next.reward"))
    with pytest.raises(DatasetError, match=r"no `next.reward` column.*hilserl dataset mark-success"):
        train_classifier([unmarked])


def test_the_threshold_is_one_half_unless_another_is_better() -> None:
    truth = [np.array([False, False, True, True]), np.array([False] * 4)]
    assert choose_threshold([np.array([0.1, 0.2, 0.9, 0.9]), np.array([0.1] * 4)], truth, 1) == DEFAULT_THRESHOLD
    high = choose_threshold([np.array([0.6, 0.6, 0.9, 0.9]), np.array([0.6] * 4)], truth, 1)
    assert 0.6 < high < 0.9
    low = choose_threshold([np.array([0.1, 0.1, 0.3, 0.3]), np.array([0.1] * 4)], truth, 1)
    assert 0.1 < low < 0.3


@pytest.mark.failure("L20")
def test_single_marked_frames_give_no_debounce_and_it_says_so(tmp_path: Path) -> None:
    root = record(tmp_path / "single", ["....#", "....#", "....#", "....."], seed=2)
    result = train_classifier([root], None, Recipe(max_epochs=1))
    assert result.classifier.hold_frames == 1
    assert any("nothing is debounced" in remark for remark in result.remarks)
    assert train_classifier([root], None, Recipe(max_epochs=1, hold_frames=2)).classifier.hold_frames == 2


def test_what_cannot_be_seen_is_not_claimed(tmp_path: Path) -> None:
    """Marks that have nothing to do with the picture: the figures must say so, though training could memorise them."""
    marks = lamps(8)
    root = record(tmp_path / "dark", ["." * len(marks[0])] * 8, seed=5, marked=marks)
    seen: list[progress.Progress] = []
    with progress.subscribed(seen.append):
        result = train_classifier([root], views_of(root), Recipe(max_epochs=12, patience=12))
    assert result.validation.frames.balanced_accuracy < 0.75
    assert any("does not know success" in remark for remark in result.remarks)
    assert {report.unit for report in seen} == {"frames", "epochs"}
    losses = [report.values["validation_loss"] for report in seen if report.unit == "epochs"]
    assert min(losses) < losses[-1]  # what is kept is the best epoch, not the last
    assert result.classifier.training["choice_loss"] == pytest.approx(min(losses))


def test_training_pictures_are_shifted_at_random() -> None:
    view = CameraView((32, 32), (0, 0, 32, 32), (32, 32))
    image = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    still = {"brightness": 0, "contrast": 0, "colour": 0, "noise": 0}
    draw = shiftable([{"wrist": image.copy()}], {"wrist": view}, Recipe.model_validate({"augmentation": still}))
    drawn = draw(np.zeros(20, int), np.random.default_rng(0))["wrist"].numpy()
    assert len({picture.tobytes() for picture in drawn}) > 10
