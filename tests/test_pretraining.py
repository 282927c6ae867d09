import json
import logging

import pytest
import torch

from hilserl import pretraining
from hilserl.config.loader import load_config
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CacheError
from hilserl.pretraining import encoder_folder, get_or_pretrain, load_encoders, verify_encoders
from hilserl.sim.labelled_images import sample_labelled_images


def make_config(**overrides):
    values = {"encoder.samples": 200, "encoder.epochs": 1, **{key.replace("__", "."): value for key, value in overrides.items()}}
    return load_config("reach", values)


@pytest.fixture(scope="module")
def config():
    return make_config()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILSERL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def trained(config, home):
    return get_or_pretrain(config)


@pytest.fixture
def runs(monkeypatch) -> list[object]:
    """Counts the trainings that are done."""
    done: list[object] = []
    train = pretraining._pretrain

    def counting(config, folder):
        done.append(folder)
        train(config, folder)

    monkeypatch.setattr(pretraining, "_pretrain", counting)
    return done


def test_a_pretrained_folder_is_complete_and_says_how_good_it_is(config, trained) -> None:
    assert verify_encoders(trained) == []
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["cameras"] == {"wrist": [84, 84]} and len(manifest["labels"]) == 6
    errors = manifest["held_out_error_mm"]["wrist"]
    assert 0 < errors["median"] <= errors["p90"] < 500


def test_training_lowers_the_loss(config, home) -> None:
    """On the same pictures."""
    sampled = sample_labelled_images(config, 200, 7)
    images = torch.from_numpy(sampled.images["wrist"])
    labels, mask = pretraining._scaled_labels(sampled.labels, sampled.label_names)
    network, _ = pretraining._fit(make_config(encoder__epochs=30), "wrist", images, labels, mask)

    def loss(candidate) -> float:
        with torch.inference_mode():
            return float(((candidate.keypoints_and_labels(images)[1] - labels).abs() * mask).mean())

    torch.manual_seed(7)
    untrained = type(network)(84, 84, num_labels=labels.shape[1])
    assert loss(network) < 0.8 * loss(untrained)


def test_loaded_encoders_see_what_the_policy_sees(config, trained) -> None:
    encoders = load_encoders(trained)
    assert set(encoders) == set(config.observation.images)
    frame = sample_labelled_images(config, 1, 0).images["wrist"][0]
    seen = torch.from_numpy(Preprocessor.from_config(config).image("wrist", frame))[None]
    assert encoders["wrist"](seen).shape == (1, *encoders["wrist"].feature_shape)


def test_the_second_call_is_a_hit(config, trained, runs) -> None:
    assert get_or_pretrain(config) == trained and not runs


@pytest.mark.failure("D12")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: flip_last_byte(folder / "encoders.safetensors"), "does not match its checksum"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_encoder_is_refused_and_rebuilt_and_the_log_says_why(config, trained, runs, caplog, damage, reason) -> None:
    damage(trained)
    with pytest.raises(CacheError, match=reason):
        load_encoders(trained)
    with caplog.at_level(logging.WARNING, "hilserl.pretraining"):
        assert get_or_pretrain(config) == trained
    assert len(runs) == 1 and "are rebuilt" in caplog.text and reason in caplog.text
    assert verify_encoders(trained) == []


@pytest.mark.failure("D11")
def test_what_decides_the_encoder_decides_its_folder(config) -> None:
    folder = encoder_folder(config)
    assert encoder_folder(make_config(policy__utd_ratio=9, robot__id="another-arm")) == folder
    for change in (
        {"encoder__epochs": 2},
        {"encoder__seed": 8},
        {"task__cube_x_m": [0.2, 0.25]},
        {"observation__images__wrist__resize": [64, 64]},
        {"robot__cameras__wrist__fovy_deg": 60},
    ):
        assert encoder_folder(make_config(**change)) != folder, change


@pytest.mark.failure("D11")
def test_changed_code_is_another_folder(config, monkeypatch) -> None:
    folder = encoder_folder(config)
    monkeypatch.setattr(pretraining, "source_hash", lambda *modules: "changed" if pretraining in modules else "unchanged")
    assert encoder_folder(config) != folder


def flip_last_byte(file) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
