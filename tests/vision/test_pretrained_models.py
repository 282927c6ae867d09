"""Pretrained models: what is accepted, what is refused and by which name, and that nothing is downloaded, run or unpickled."""

import json
import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from vision_testing import SIZES, random_weights, write_model

from hilserl.config.learning import EncoderConfig
from hilserl.config.models import TrainConfig
from hilserl.errors import CacheError, ConfigError
from hilserl.pretraining import resolve_encoder
from hilserl.vision import fetch
from hilserl.vision.pretrained import load_pretrained, read_network, with_network

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CAMERAS = {"wrist": (40, 40), "front": (33, 48)}


def config_of(folder, **values) -> EncoderConfig:
    return EncoderConfig(type="pretrained", model=str(folder), **values)


@pytest.mark.parametrize("kind", ["resnet", "resnet10"])
def test_every_camera_gets_the_weights_of_the_file(make_model, kind) -> None:
    folder = make_model(kind)
    encoders = load_pretrained(config_of(folder), CAMERAS)
    stored = load_file(folder / "model.safetensors")
    for name, size in CAMERAS.items():
        assert encoders[name].state_dict().keys() == stored.keys()
        assert all(torch.equal(tensor, stored[key]) for key, tensor in encoders[name].state_dict().items())
        assert tuple(encoders[name](torch.zeros(1, *size, 3, dtype=torch.uint8)).shape[1:]) == encoders[name].feature_shape


def test_a_classifiers_network_is_taken_out_of_it(tmp_path) -> None:
    """As microsoft/resnet-18 is stored: with a prefix, the classifier's layer, and counters of batches."""
    tensors = random_weights(SIZES["resnet"])
    stored = {f"resnet.{name}": tensor for name, tensor in tensors.items()} | {"classifier.1.weight": torch.zeros(10, 12)}
    stored["resnet.embedder.embedder.normalization.num_batches_tracked"] = torch.tensor(7)
    folder = write_model(tmp_path / "classifier", SIZES["resnet"], stored)
    loaded = load_pretrained(config_of(folder), CAMERAS)["wrist"].state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_a_pickle_is_not_opened(make_model) -> None:
    folder = make_model()
    (folder / "model.safetensors").unlink()
    torch.save(random_weights(SIZES["resnet"]), folder / "pytorch_model.bin")
    with pytest.raises(CacheError, match=r"pytorch_model\.bin: holds the weights as a pickle"):
        with_network(config_of(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CacheError, match=r"has no model\.safetensors"):
        with_network(config_of(folder))


def damage(folder, what: str) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors))
    if what == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif what == "garbage":
        file.write_bytes(b"\xff" * 4096)
    elif what == "missing":
        save_file({name: tensor for name, tensor in tensors.items() if name != first}, file)
    elif what == "unknown":
        save_file(tensors | {"surprise": torch.zeros(1)}, file)
    elif what == "shape":
        save_file(tensors | {first: tensors[first][..., :1].contiguous()}, file)
    else:
        save_file(tensors | {first: torch.full_like(tensors[first], float("nan"))}, file)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "cannot be read as safetensors"),
        ("garbage", "cannot be read as safetensors"),
        ("missing", "lacks"),
        ("unknown", "surprise"),
        ("shape", "has shape"),
        ("nan", "is not finite"),
    ],
)
def test_damaged_weights_are_refused_with_their_file(make_model, what, message) -> None:
    folder = make_model()
    damage(folder, what)
    with pytest.raises(CacheError, match=message) as caught:
        load_pretrained(config_of(folder), CAMERAS)
    assert str(folder / "model.safetensors") in str(caught.value)


@pytest.mark.failure("L14")
def test_weights_other_than_those_the_run_was_started_with_are_refused(make_model) -> None:
    config = TrainConfig(encoder=config_of(make_model()))
    started = resolve_encoder(config)
    assert started.encoder.network is not None and resolve_encoder(started) == started
    load_pretrained(started.encoder, CAMERAS)
    save_file(random_weights(SIZES["resnet"], seed=1), started.encoder.model + "/model.safetensors")
    assert resolve_encoder(config).encoder.network != started.encoder.network  # so it is another run
    with pytest.raises(CacheError, match="SHA-256"):
        load_pretrained(started.encoder, CAMERAS)


def test_a_resolved_configuration_survives_json_and_needs_no_file(make_model, tmp_path) -> None:
    resolved = resolve_encoder(TrainConfig(encoder=config_of(make_model())))
    make_model(name="kept").parent.joinpath("model").rename(tmp_path / "gone")
    again = TrainConfig.model_validate(json.loads(json.dumps(resolved.model_dump(mode="json"))))
    assert again == resolved and resolve_encoder(again) == resolved
    assert again.encoder.network.hidden_sizes == (8, 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "vit"}, '`model_type` is "vit".*Accepted: `resnet`.*`resnet10`'),
        ({"model_type": None}, "`model_type` is null"),
        ({"num_channels": 4}, "`num_channels` is 4"),
        ({"layer_type": "deep"}, "`layer_type`"),
        ({"depths": [1]}, "1 `depths` for 2 `hidden_sizes`"),
        ({"model_type": "resnet10", "depths": [1, 2]}, "one block per stage"),
        ({"model_type": "resnet10", "depths": [1, 1], "hidden_sizes": [8, 8]}, "one block per stage and another width"),
    ],
)
def test_another_kind_of_network_is_refused_not_guessed(tmp_path, change, message) -> None:
    folder = write_model(tmp_path / "model", SIZES["resnet"] | change, {"any": torch.zeros(1)})
    with pytest.raises(ConfigError, match=message) as caught:
        read_network(folder)
    assert str(folder / "config.json") in str(caught.value)


def test_a_folder_without_a_readable_config_is_refused(make_model, tmp_path) -> None:
    folder = make_model()
    (folder / "config.json").write_text('{"model_type": "res')
    with pytest.raises(CacheError, match=r"config\.json: cannot be read"):
        with_network(config_of(folder))
    with pytest.raises(CacheError, match="no such folder"):
        with_network(config_of(tmp_path / "nowhere"))


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:7], COMMIT.upper()])
def test_a_branch_or_tag_is_no_revision(revision) -> None:
    with pytest.raises(ValidationError, match="is a commit, 40 hex digits"):
        EncoderConfig(type="pretrained", model="lerobot/resnet10", revision=revision)


def test_a_run_needs_the_commit_of_a_repository() -> None:
    with pytest.raises(ConfigError, match=r"whose content can change: set `encoder\.revision` to the commit"):
        resolve_encoder(TrainConfig(encoder=config_of("lerobot/resnet10")))


def test_a_repository_is_read_from_the_cache_at_its_commit_and_never_downloaded(make_model, tmp_path, monkeypatch) -> None:
    """The cache of the Hub is a folder of snapshots by commit; a missing one is told with the command that fetches it."""
    import huggingface_hub

    calls = []

    def snapshot(repository, *, revision, allow_patterns, local_files_only=False):
        calls.append((repository, revision, allow_patterns, local_files_only))
        return real(
            repository, revision=revision, allow_patterns=allow_patterns, local_files_only=local_files_only, cache_dir=tmp_path / "hub"
        )

    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    encoder = EncoderConfig(type="pretrained", model="lerobot/resnet10", revision=COMMIT)
    with pytest.raises(CacheError, match=f"python -m hilserl.vision.fetch lerobot/resnet10 {COMMIT}"):
        with_network(encoder)
    snapshots = tmp_path / "hub" / "models--lerobot--resnet10" / "snapshots"
    snapshots.mkdir(parents=True)
    make_model("resnet10").rename(snapshots / COMMIT)
    assert with_network(encoder).network.model_type == "resnet10"
    assert set(load_pretrained(encoder, CAMERAS)) == set(CAMERAS)
    assert calls and all(call[3] for call in calls)  # local files only
    assert all(call[2] == ["config.json", "model.safetensors"] for call in calls)


def test_fetching_refuses_what_a_run_would_refuse(capsys) -> None:
    assert fetch.main(["lerobot/resnet10", "main"]) == 1
    assert "40 hex digits" in capsys.readouterr().err
    assert fetch.main(["./folder", COMMIT]) == 1
    assert fetch.main([]) == 2


def test_fetching_gets_two_files_at_the_commit_and_reads_them(make_model, monkeypatch, capsys) -> None:
    import huggingface_hub

    folder = make_model("resnet10")
    calls = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: calls.append((args, kwargs)) or str(folder))
    assert fetch.main(["lerobot/resnet10", COMMIT]) == 0
    assert calls == [(("lerobot/resnet10",), {"revision": COMMIT, "allow_patterns": ["config.json", "model.safetensors"]})]
    (folder / "model.safetensors").unlink()
    assert fetch.main(["lerobot/resnet10", COMMIT]) == 1
    assert "has no model.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "pretrained"}, "needs `encoder.model`"),
        ({"type": "cnn", "freeze": False, "model": "./x"}, "goes with `encoder.type: pretrained`"),
        ({"type": "pretrained", "model": "./x", "revision": COMMIT}, "a folder has none"),
        ({"type": "pretrained", "model": "a/b/c", "revision": COMMIT}, "is no repository id"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, message) -> None:
    with pytest.raises(ValidationError, match=message):
        EncoderConfig.model_validate(values)


@pytest.mark.failure("L10")
@pytest.mark.parametrize("kind", ["cnn", "lerobot_cnn", "sim_pretrained", "pretrained"])
def test_a_frozen_encoder_is_a_pretrained_one(kind) -> None:
    model = {"model": "./model"} if kind == "pretrained" else {}
    if kind in ("cnn", "lerobot_cnn"):
        with pytest.raises(ValidationError, match="a frozen encoder must be a pretrained one"):
            EncoderConfig(type=kind, freeze=True, **model)
    else:
        assert EncoderConfig(type=kind, freeze=True, **model).freeze
    assert not EncoderConfig(type=kind, freeze=False, **model).freeze


def test_transformers_is_not_needed(make_model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it would fail
    load_pretrained(config_of(make_model()), CAMERAS)


@pytest.mark.slow  # importing transformers takes half a minute
@pytest.mark.parametrize(
    ("widths", "depths", "layer"),
    [((64, 128, 256, 512), (2, 2, 2, 2), "basic"), ((64, 128), (1, 2), "bottleneck")],
    ids=["18", "bottleneck"],
)
def test_a_folder_that_transformers_saved_gives_its_own_features(tmp_path, widths, depths, layer) -> None:
    from transformers import AutoModel, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    theirs = ResNetForImageClassification(ResNetConfig(embedding_size=64, hidden_sizes=list(widths), depths=list(depths), layer_type=layer))
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    theirs.save_pretrained(tmp_path / "saved")
    model = AutoModel.from_pretrained(tmp_path / "saved", use_safetensors=True).eval()
    pixels = torch.randint(0, 256, (2, 128, 96, 3), dtype=torch.uint8)
    ours = load_pretrained(config_of(tmp_path / "saved"), {"wrist": (128, 96)})["wrist"]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        wanted = model(((pixels / 255 - mean) / std).permute(0, 3, 1, 2)).last_hidden_state
        torch.testing.assert_close(ours(pixels), wanted, rtol=1e-4, atol=1e-4)
