from pathlib import Path

import pytest
from reward_helpers import lamps, make_config, record

from hilserl.data.preprocess import Preprocessor
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.train import Recipe, TrainedClassifier, train_classifier


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen episodes with marked successes; never changed by a test."""
    return record(tmp_path_factory.mktemp("marked") / "lamp", lamps())


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes that no training sees: some succeed at the end, one in between, one fails, one flickers."""
    shown = [".........#####", "......########", "....#####.....", "..............", "....#.....#...", "........######"]
    return record(tmp_path_factory.mktemp("other") / "lamp", shown, seed=1)


@pytest.fixture(scope="session")
def trained(marked: Path) -> TrainedClassifier:
    return train_classifier([marked], Preprocessor.from_config(make_config(marked)).views, Recipe(seed=0))


@pytest.fixture(scope="session")
def saved(trained: TrainedClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the trained classifier; never changed by a test."""
    folder = tmp_path_factory.mktemp("classifier") / "lamp"
    trained.classifier.save(folder)
    return folder


@pytest.fixture
def classifier(saved: Path) -> SuccessClassifier:
    return SuccessClassifier.load(saved)
