"""A classifier is trained once for its content, described on one page, registered, and replaces another only if it is no worse."""

import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

from hilserl.classifier_training import (
    ARTEFACT,
    FIGURES,
    PAGE,
    ClassifierRequest,
    classifier_folder,
    get_or_train,
    register_classifier,
    train_into,
    verify_classifier,
)
from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.environments.judged import ClassifierJudge, open_judge
from hilserl.errors import CheckpointError, ConfigError
from hilserl.reward.labels import Labels, labels_file
from hilserl.tracking.registry import find

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def lamp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "reward"))
        from reward_helpers import lamps, record
    sys.modules.pop("reward_helpers", None)
    return record(tmp_path_factory.mktemp("datasets") / "lamp", lamps(12))


def request_of(root: Path, **recipe: object) -> ClassifierRequest:
    values = {
        "robot": {"cameras": {"wrist": {"height": 64, "width": 96}}},
        "observation": {"images": {"wrist": {"crop": [0, 16, 64, 64], "resize": [48, 48]}}},
        "task": {"type": "lift"},
        "classifier": {"max_epochs": 25, **recipe},
        "dataset": {"root": str(root)},
    }
    return ClassifierRequest.of(TrainConfig.model_validate(values), [root])


def test_the_folder_follows_what_decides_and_nothing_else(lamp: Path, tmp_path: Path, own_home: Path) -> None:
    root = shutil.copytree(lamp, tmp_path / "elsewhere")
    first = classifier_folder(request_of(lamp))
    assert classifier_folder(request_of(root)) == first
    assert classifier_folder(request_of(root, seed=1)) != first
    labels = Labels.load(Dataset.open(root))
    labels.set(0, [(3, 9)], by="me")
    labels.save()
    assert classifier_folder(request_of(root)) != first
    (file,) = (root / "data").rglob("*.parquet")
    labels_file(root).unlink()
    assert classifier_folder(request_of(root)) == first
    pl.read_parquet(file).with_columns(pl.lit(0.0, pl.Float32).alias("next.reward")).write_parquet(file)
    assert classifier_folder(request_of(root)) != first
    with pytest.raises(ConfigError, match="no dataset"):
        ClassifierRequest.of(request_of(lamp).config)


@pytest.mark.slow
def test_trained_once_described_registered_and_replaced_by_what_is_no_worse(lamp: Path, own_home: Path) -> None:
    request = request_of(lamp)
    folder = get_or_train(request)
    assert verify_classifier(folder) == []
    written = (folder / FIGURES).stat().st_mtime_ns
    assert get_or_train(request) == folder and (folder / FIGURES).stat().st_mtime_ns == written
    page = (folder / PAGE).read_text()
    for words in ("balanced accuracy", "Precision and recall", "Reliability", "Episode by episode", "What it takes for success", "<svg"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page and "<script" not in page

    first = register_classifier(request, folder, promote=True)
    assert set(find(first.uri).aliases) == {"candidate", "champion"}
    success = request.config.task.success.model_copy(update={"classifier": "models:/hilserl-lift-classifier@champion"})
    config = request.config.model_copy(update={"task": request.config.task.model_copy(update={"success": success})})
    judge = open_judge(config)
    assert isinstance(judge, ClassifierJudge) and judge.classifier.hold_frames == 3

    other = request_of(lamp, seed=5, hidden=32)
    second = register_classifier(other, get_or_train(other))
    assert find(second.uri).aliases == ("candidate",) and find(first.uri).aliases == ("champion",)
    hopeless = request_of(lamp, max_epochs=1, patience=1, hidden=8, channels=8, seed=0)  # the same division: the champion knows none of it
    with pytest.raises(CheckpointError, match=r"stays a candidate and does not replace models:/hilserl-lift-classifier/1"):
        register_classifier(hopeless, get_or_train(hopeless), promote=True)
    assert find(first.uri).aliases == ("champion",)


@pytest.mark.slow
def test_a_damaged_result_is_made_again(lamp: Path, own_home: Path) -> None:
    request = request_of(lamp, max_epochs=1)
    folder = get_or_train(request)
    (folder / ARTEFACT / "model.safetensors").write_bytes(b"")
    assert verify_classifier(folder)
    assert verify_classifier(get_or_train(request)) == []


def test_labels_beside_the_dataset_win_over_its_own_reward(lamp: Path, tmp_path: Path) -> None:
    """Half of the episodes are labelled: only they count, and the rest is said to be missing."""
    from hilserl.reward.labelled import labelled_episodes

    root = shutil.copytree(lamp, tmp_path / "labelled")
    dataset = Dataset.open(root)
    labels = Labels.load(dataset)
    for episode in range(6):
        labels.set(episode, [(0, 5)] if episode % 2 else [], by="me")
    labels.save()
    found = labelled_episodes([dataset])
    assert len(found.episodes) == 6 and len(found.unlabelled) == 6
    assert [int(episode.success.sum()) for episode in found.episodes] == [0, 5, 0, 5, 0, 5]


@pytest.mark.slow
def test_a_pretrained_backbone_of_a_folder_is_part_of_the_artefact(lamp: Path, tmp_path: Path) -> None:
    """Frozen, only what is behind it is trained; the folder that it came from is not needed any more."""
    import json

    import torch
    from safetensors.torch import save_file

    from hilserl.config.vision import ResNetConfig
    from hilserl.reward.classifier import SuccessClassifier
    from hilserl.vision.pretrained import build_network

    sizes = {"model_type": "resnet10", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    model = tmp_path / "model"
    model.mkdir()
    sizes["hidden_sizes"] = [16, 32]
    (model / "config.json").write_text(json.dumps(sizes))
    torch.manual_seed(0)
    network = build_network(ResNetConfig.model_validate(sizes | {"sha256": "0" * 64}), 48, 48)
    save_file(dict(network.state_dict()), model / "model.safetensors")
    request = request_of(lamp, backbone="pretrained", model=str(model), freeze=True, max_epochs=15)
    train_into(request, tmp_path / "out")
    shutil.rmtree(model)
    loaded = SuccessClassifier.load(tmp_path / "out" / ARTEFACT)
    kept = loaded._network.encoders[0].encoder.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())
    assert loaded.training["validation"]["frames"]["accuracy"] > 0.9


@pytest.mark.slow
def test_numbers_of_the_state_are_read_where_wanted(lamp: Path, tmp_path: Path) -> None:
    from hilserl.reward.agreement import judge_dataset
    from hilserl.reward.classifier import SuccessClassifier

    train_into(request_of(lamp, state=["ee_pos"], max_epochs=2), tmp_path / "out")
    classifier = SuccessClassifier.load(tmp_path / "out" / ARTEFACT)
    assert classifier.state == ("ee_pos.x", "ee_pos.y", "ee_pos.z")
    assert len(list(judge_dataset(classifier, lamp))) == 12
    (judge,) = (ClassifierJudge(classifier, request_of(lamp).config),)
    assert judge._state == [12, 13, 14]
