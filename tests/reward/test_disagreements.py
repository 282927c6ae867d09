"""Frames on which person and classifier disagreed: kept, bounded, labelled, learned from, and asked."""

import json
from pathlib import Path

import numpy as np
import pytest
from reward_helpers import lit_frames, make_config

from hilserl.data.preprocess import Preprocessor
from hilserl.errors import DatasetError, TrainingError
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.comparison import compare_versions
from hilserl.reward.disagreements import Disagreements, labels_file
from hilserl.reward.hard_examples import hard_examples, hard_examples_hash
from hilserl.reward.train import Recipe, TrainedClassifier, train_classifier

VIEWS = Preprocessor.from_config(make_config(Path("unused"))).views


def keep(folder: Path, episodes: int, *, frames: int = 3, **changes: object) -> list[str]:
    store = Disagreements(folder)
    for episode in range(episodes):
        for step in range(frames):
            picture = lit_frames("#", seed=100 * episode + step)[0]
            store.add({"wrist": picture}, 0.2, True, "run", episode, step, **changes)  # type: ignore[arg-type]
    store.close()
    assert store.left_out == 0
    return [entry.id for entry in store.entries()]


def label(folder: Path, said: dict[str, bool | None]) -> None:
    labels_file(folder).write_text(json.dumps({"version": 1, "frames": {id_: {"success": value} for id_, value in said.items()}}))


def test_a_frame_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Disagreements(tmp_path / "kept")
    picture = lit_frames("#")[0]
    store.add({"wrist": picture}, 0.25, True, "monday", 7, 12, threshold=0.9, classifier="abc", state={"ee_pos.z": 0.125})
    store.close()
    (entry,) = Disagreements(tmp_path / "kept").entries()
    np.testing.assert_array_equal(entry.image("wrist"), picture)
    assert (entry.probability, entry.threshold, entry.human_says, entry.run) == (0.25, 0.9, True, "monday")
    assert (entry.episode, entry.step, entry.classifier, entry.cameras) == (7, 12, "abc", ("wrist",))
    label(tmp_path / "kept", {entry.id: True})
    assert hard_examples([tmp_path / "kept"], VIEWS, 0, ["ee_pos.z"]).learn[0].state.tolist() == [[0.125]]
    with pytest.raises(TrainingError, match=r"does not say `ee_pos\.x`"):
        hard_examples([tmp_path / "kept"], VIEWS, 0, ["ee_pos.x"])


def test_the_folder_is_bounded_and_the_oldest_give_way(tmp_path: Path) -> None:
    for part in range(2):  # numbers go on in the next process
        store = Disagreements(tmp_path / "kept", most=3)
        for step in range(4):
            store.add({"wrist": lit_frames(".")[0]}, 0.5, False, "run", part, step)
        store.close()
    assert [(entry.episode, entry.step) for entry in store.entries()] == [(1, 1), (1, 2), (1, 3)]


def test_a_disk_that_is_slow_never_holds_up_the_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Disagreements(tmp_path / "kept")
    monkeypatch.setattr(store, "_write", lambda: None)
    for step in range(100):
        store.add({"wrist": lit_frames(".")[0]}, 0.5, False, "run", 0, step)
    assert store.left_out == 100 - 32
    while not store._queue.empty():
        store._queue.get()
    store.close()
    assert "came too fast" in caplog.text


def test_only_what_was_labelled_or_is_true_is_learned_from(tmp_path: Path) -> None:
    ids = keep(tmp_path / "kept", 4)
    assert hard_examples([tmp_path / "kept"], VIEWS, 0).unlabelled == 12
    before = hard_examples_hash([tmp_path / "kept"])
    label(tmp_path / "kept", {**{id_: False for id_ in ids[:9]}, ids[9]: None})
    found = hard_examples([tmp_path / "kept"], VIEWS, 0)
    assert found.unlabelled == 3 and hard_examples_hash([tmp_path / "kept"]) != before
    sides = [sum(len(seen.success) for seen in side) for side in (found.learn, found.held_out)]
    assert sorted(sides) == [3, 6] and not any(seen.success.any() for seen in (*found.learn, *found.held_out))
    assert found.learn[0].images["wrist"].shape == (3, 48, 48, 3)
    keep(tmp_path / "true", 4, is_truth=True)
    truth = hard_examples([tmp_path / "true"], VIEWS, 0)
    assert truth.unlabelled == 0 and all(seen.success.all() for seen in truth.learn)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no frames of disagreements"):
        hard_examples([tmp_path], VIEWS, 0)
    keep(tmp_path / "kept", 1, frames=1, is_truth=True)
    with pytest.raises(TrainingError, match="no picture of camera `top`"):
        hard_examples([tmp_path / "kept"], {"top": VIEWS["wrist"]}, 0)
    labels_file(tmp_path / "kept").write_text("{")
    with pytest.raises(DatasetError, match="no readable labels"):
        hard_examples([tmp_path / "kept"], VIEWS, 0)


def test_a_new_version_is_asked_on_both_sets_beside_the_old(trained: TrainedClassifier, marked: Path, tmp_path: Path) -> None:
    """The same classifier is no worse than itself; one that calls everything success may not replace it."""
    trained.classifier.save(tmp_path / "a")
    keep(tmp_path / "kept", 5, is_truth=True)
    next_one = train_classifier([marked], VIEWS, Recipe(seed=0), disagreements=[tmp_path / "kept"])
    assert next_one.classifier.training["disagreements"] == {"learned": 9, "held_out": 6}
    next_one.classifier.save(tmp_path / "b")
    held_out = trained.split.validation
    same = compare_versions(next_one.classifier, trained.classifier, held_out, next_one.hard)
    assert same.may_replace and same.episodes == len(held_out) and same.hard == 6 and same.new.hard_right == 6
    assert "may replace" in same.markdown
    credulous = SuccessClassifier.load(tmp_path / "b")
    credulous.threshold = 1e-6
    credulous.save(tmp_path / "c")
    worse = compare_versions(SuccessClassifier.load(tmp_path / "c"), trained.classifier, held_out, next_one.hard)
    assert not worse.may_replace and any("rewards" in reason for reason in worse.against)
    learned = compare_versions(next_one.classifier, trained.classifier, trained.split.train, ())
    assert learned.episodes == 0 and not learned.may_replace  # the old one learned from them: that would favour it
