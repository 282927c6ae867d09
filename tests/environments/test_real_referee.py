"""Who judges a real arm: the classifier, frame by frame, as it judged the demonstrations."""

import numpy as np
import pytest

from hilserl.config import load_config
from hilserl.data.preprocess import CameraView
from hilserl.environments.real_arm import ClassifierReferee, PersonReferee
from hilserl.errors import ConfigError
from hilserl.reward.classifier import SuccessClassifier
from hilserl.reward.network import SuccessNetwork

SIZE = (32, 32)
NOWHERE = np.zeros(6)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, *SIZE, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, frames):
    """An untrained classifier whose threshold splits these frames."""
    network = SuccessNetwork({"wrist": SIZE}, channels=8, hidden=8)
    views = {"wrist": CameraView(SIZE, (0, 0, *SIZE), SIZE)}
    opinions = SuccessClassifier(network, views, threshold=0.5, hold_frames=1, training={}).probabilities({"wrist": frames})
    classifier = SuccessClassifier(network, views, threshold=float(np.median(opinions)), hold_frames=2, training={})
    classifier.save(tmp_path / "classifier")
    return tmp_path / "classifier"


def config(**images):
    return load_config("reach", {"robot.cameras.wrist": {"width": 32, "height": 32}, "observation.images": images})


def test_the_arm_gets_the_verdicts_that_a_recording_of_it_would_get(folder, frames) -> None:
    referee = ClassifierReferee(config(wrist={"resize": [32, 32]}), folder)
    recorded = SuccessClassifier.load(folder).judge([{"wrist": frame} for frame in frames]).success.tolist()
    assert True in recorded and False in recorded
    for _ in range(2):  # an episode begins anew
        referee.begin(np.random.default_rng())
        assert [referee.judge(NOWHERE, {"wrist": frame}).succeeds for frame in frames] == recorded


def test_a_classifier_of_a_camera_that_the_policy_does_not_use_is_refused(folder) -> None:
    with pytest.raises(ConfigError, match=r"looks at camera `wrist`, and observation\.images has"):
        ClassifierReferee(config(), folder)


def test_without_a_classifier_nobody_but_the_person_says_success() -> None:
    referee = PersonReferee()
    referee.begin(np.random.default_rng())
    assert not referee.judge(NOWHERE, {}).succeeds
