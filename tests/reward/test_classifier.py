"""The artefact: what was saved judges as what was trained, or says why not."""

import json
import pickle
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from reward_helpers import CROP, NATIVE, lit_frames

from hilserl.data.preprocess import CameraView
from hilserl.errors import CheckpointError, ConfigError, TrainingError
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.debounce import debounce
from hilserl.reward.network import SuccessNetwork
from hilserl.reward.train import TrainedClassifier


def frames_of(lamp: str) -> Iterator[dict[str, np.ndarray]]:
    return ({"wrist": frame} for frame in lit_frames(lamp))


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "copy")


def edit(folder: Path, **changes: object) -> None:
    path = folder / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.failure("L19")
def test_what_was_saved_says_what_was_trained(trained: TrainedClassifier, classifier: SuccessClassifier) -> None:
    """From native frames, so that the preprocessing is part of it."""
    frames = {"wrist": lit_frames("..#.####")}
    told = trained.classifier.probabilities(frames)
    np.testing.assert_array_equal(classifier.probabilities(frames), told)
    assert told.shape == (8,) and told.dtype == np.float32 and ((told > 0.5) == [False, False, True, False, *[True] * 4]).all()
    assert classifier.threshold == trained.classifier.threshold and classifier.hold_frames == trained.classifier.hold_frames == 3
    assert classifier.views == trained.classifier.views == {"wrist": CameraView(NATIVE, CROP, (48, 48))}


@pytest.mark.failure("L19")
def test_frames_go_through_the_views_of_the_artefact(classifier: SuccessClassifier) -> None:
    """The oracle: the one preprocessor, then the network."""
    frames = lit_frames(".#")
    seen = torch.from_numpy(np.stack([CameraView(NATIVE, CROP, (48, 48)).apply(frame, "wrist") for frame in frames]))
    with torch.no_grad():
        expected = torch.sigmoid(classifier._network({"wrist": seen})).numpy()
    np.testing.assert_array_equal(classifier.probabilities({"wrist": frames}), expected)
    with pytest.raises(TrainingError, match="expects uint8"):
        classifier.probabilities({"wrist": frames[:, :48, :48]})
    with pytest.raises(TrainingError, match="expects uint8"):
        classifier.probabilities({"wrist": frames.astype(np.float32) / 255})


@pytest.mark.failure("L20")
@pytest.mark.parametrize(
    ("lamp", "rewarded"),
    [
        ("....#....#....", ".............."),  # flickers
        ("...##.##.##...", ".............."),
        ("....##########", "......########"),  # held from its third frame
        ("..####.#######", "....##########"),  # a dropped frame does not end it
        ("..####........", "....####......"),  # three frames without end it
        (".............#", ".............."),
    ],
)
def test_one_frame_neither_pays_nor_ends(classifier: SuccessClassifier, lamp: str, rewarded: str) -> None:
    assert classifier.rewards(frames_of(lamp)).tolist() == [float(sign == "#") for sign in rewarded]
    assert classifier.rewards(frames_of(lamp)).dtype == np.float32


@pytest.mark.failure("L20")
@pytest.mark.parametrize(
    ("opinion", "hold", "verdict", "flickers"),
    [
        ("", 3, "", 0),
        (".#.#", 1, ".#.#", 0),
        (".#.##.###", 3, "........#", 2),
        ("###.##..###", 3, "..#########", 2),
        ("###...", 3, "..###.", 0),
        ("..##", 3, "....", 1),
    ],
)
def test_flickers_are_ignored_and_counted(opinion: str, hold: int, verdict: str, flickers: int) -> None:
    held, count = debounce(np.array([sign == "#" for sign in opinion], bool), hold)
    assert ("".join("#" if value else "." for value in held), count) == (verdict, flickers)


def test_an_episode_is_judged_in_batches(classifier: SuccessClassifier) -> None:
    """At no time are more native frames alive than the one in hand and the one before."""
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[dict[str, np.ndarray]]:
        nonlocal alive, most
        for number in range(150):
            frame = lit_frames("#" if number >= 100 else ".", seed=number)[0].copy()
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield {"wrist": frame}
            del frame

    batches: list[int] = []
    classifier._network.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0]["wrist"])))
    verdict = classifier.judge(frames())
    assert max(batches) <= 64 and sum(batches) == 150
    assert verdict.first_success == 102 and len(verdict.success) == 150
    assert most <= 3
    assert classifier.rewards(iter(())).shape == (0,)


def test_the_folder_holds_two_files_and_no_pickle(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["classifier.json", "model.safetensors"]
    training = json.loads((saved / "classifier.json").read_text())["training"]
    assert {"datasets", "episodes", "validation", "date", "seed"} <= set(training)
    assert len(training["datasets"][0]["content"]) == 64
    assert {"accuracy", "precision", "recall"} <= set(training["validation"]["episodes"]) & set(training["validation"]["frames"])


def flip_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such folder.*hilserl classifier train"),
        (lambda folder: (folder / "classifier.json").unlink(), "classifier.json: cannot be read"),
        (lambda folder: (folder / "classifier.json").write_text("{"), "classifier.json: cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        (flip_weight, "does not match its checksum"),
        (lambda folder: edit(folder, format_version=99), "format version 99, this program reads 2"),
        (lambda folder: edit(folder, threshold=1.5), "damaged.*threshold"),
        (lambda folder: edit(folder, hold_frames=0), "damaged.*hold_frames"),
        (lambda folder: edit(folder, cameras={}), "damaged.*cameras"),
        (lambda folder: edit(folder, surprise=1), "damaged.*surprise"),
    ],
)
def test_a_damaged_folder_is_refused_and_says_what_it_is(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        SuccessClassifier.load(copy)
    assert str(copy) in str(caught.value)


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    edit(copy, hidden=32)
    with pytest.raises(CheckpointError, match="do not belong together"):
        SuccessClassifier.load(copy)


def test_the_version_is_the_content(saved: Path, copy: Path, classifier: SuccessClassifier) -> None:
    assert SuccessClassifier.load(copy).version == classifier.version
    edit(copy, threshold=0.6)
    assert SuccessClassifier.load(copy).version != classifier.version


def test_it_travels_as_the_name_of_its_folder(
    copy: Path, trained: TrainedClassifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(copy.parent)
    here = SuccessClassifier.load(Path(copy.name))
    parcel = pickle.dumps(here)
    monkeypatch.chdir("/")
    there = pickle.loads(parcel)
    assert len(parcel) < 1000 and there.version == here.version
    frames = {"wrist": lit_frames(".#")}
    np.testing.assert_array_equal(there.probabilities(frames), here.probabilities(frames))
    edit(copy, threshold=0.6)
    with pytest.raises(CheckpointError, match="was replaced meanwhile"):
        pickle.loads(parcel)
    fresh = SuccessClassifier(SuccessNetwork({"wrist": (48, 48)}), trained.classifier.views, threshold=0.5, hold_frames=1, training={})
    with pytest.raises(CheckpointError, match="was not saved yet"):
        pickle.dumps(fresh)


def test_saving_replaces_a_classifier_and_nothing_else(copy: Path, tmp_path: Path, classifier: SuccessClassifier) -> None:
    classifier.save(copy)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match="holds no success classifier"):
        classifier.save(tmp_path / "mine")


def test_nonsense_is_refused(classifier: SuccessClassifier) -> None:
    network = SuccessNetwork({"wrist": (48, 48)})
    for wrong in ({"threshold": 1.0}, {"hold_frames": 0}):
        with pytest.raises(ConfigError):
            SuccessClassifier(network, classifier.views, **{"threshold": 0.5, "hold_frames": 1, "training": {}, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="24 a side"):
        SuccessNetwork({"wrist": (20, 48)})
