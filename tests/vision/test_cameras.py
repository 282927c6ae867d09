"""Several cameras of different resolution in one policy, from the configuration to an update and an action."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from vision_testing import SIZES

from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.learner.experience import Experience
from hilserl.link.messages import Step
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.pretraining import resolve_encoder
from hilserl.sac.agent import SacAgent
from hilserl.sac.networks import StateScaling
from hilserl.schema import IMAGE_PREFIX, STATE_KEY
from hilserl.vision.encoder import Vision
from hilserl.vision.pretrained import load_pretrained

SIZE = {"wrist": (64, 64), "front": (48, 56)}


def make_config(encoder: dict) -> TrainConfig:
    return resolve_encoder(
        TrainConfig.model_validate(
            {
                "robot": {"cameras": {"wrist": {"width": 64, "height": 64}, "front": {"width": 80, "height": 60}}},
                "observation": {
                    "images": {"wrist": {"resize": SIZE["wrist"]}, "front": {"crop": [0, 10, 60, 70], "resize": SIZE["front"]}}
                },
                "policy": {"latent_dim": 8, "hidden_dims": [16], "online_buffer_capacity": 100, "offline_buffer_capacity": 50},
                "encoder": encoder,
            }
        )
    )


def observation(architecture: PolicyArchitecture, sizes: dict, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = {IMAGE_PREFIX + name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in sizes.items()}
    return {STATE_KEY: rng.uniform(-0.5, 0.5, architecture.state_dim).astype(np.float32), **images}


def encoder_settings(kind: str, make_model) -> dict:
    if kind in SIZES:
        return {"type": "pretrained", "model": str(make_model(kind))}
    return {"type": kind, "freeze": False}


@pytest.mark.parametrize(
    ("kind", "freeze"), [("cnn", False), ("lerobot_cnn", False), ("resnet", True), ("resnet", False), ("resnet10", True)]
)
def test_two_cameras_of_different_size_learn_and_act(make_model, kind, freeze) -> None:
    config = make_config(encoder_settings(kind, make_model) | {"freeze": freeze})
    architecture = PolicyArchitecture.from_config(config)
    encoders = load_pretrained(config.encoder, architecture.cameras) if kind in SIZES else architecture.encoders()
    frozen = Vision(encoders if freeze else {}).requires_grad_(False)
    experience = Experience(config, architecture, frozen, seed=0)
    for time in range(12):
        seen = [observation(architecture, SIZE, seed) for seed in (time, time + 1)]
        action = np.full(architecture.action_dim, 0.1, np.float32)
        experience.add(
            "a", Step(0, time, seen[0], action, 1.0 * (time == 11), time == 11, False, time < 4, seen[1] if time == 11 else None)
        )
    scaling = StateScaling(torch.zeros(architecture.state_dim), torch.ones(architecture.state_dim))
    agent = SacAgent(config.policy, architecture.input_spec(), scaling, {} if freeze else encoders, seed=0)
    before = {name: tensor.clone() for name, tensor in agent.vision.state_dict().items()}
    batch = experience.sample(16)
    shapes = architecture.input_spec().feature_shapes
    for camera, size in SIZE.items():
        assert tuple(batch.images[camera].shape[1:]) == (shapes[camera] if freeze else (*size, 3))
    metrics = agent.update(batch, update_actor=True)
    assert all(bool(torch.isfinite(value).all()) for value in metrics.values())
    after = agent.vision.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    statistics = {name for name in before if "running_" in name}
    assert changed == before.keys() - statistics  # everything learns but the statistics of batch normalisation

    policy = Policy(architecture, Preprocessor.from_config(config))
    tensors = agent.policy_tensors() | {f"vision.{name}": tensor for name, tensor in frozen.state_dict().items()}
    policy.load_tensors(tensors, 1)
    native = observation(architecture, {"wrist": (64, 64), "front": (60, 80)}, 99)
    action = policy.act(native)
    assert action.shape == (architecture.action_dim,) and (np.abs(action) <= 1).all()
    for camera in SIZE:  # the policy looks at both
        other = native | {IMAGE_PREFIX + camera: 255 - native[IMAGE_PREFIX + camera]}
        assert (policy.act(other) != action).any()


@pytest.mark.failure("L18")
@pytest.mark.parametrize("kind", ["cnn", "lerobot_cnn", "resnet", "resnet10"])
def test_a_saved_policy_is_rebuilt_from_its_folder_alone(make_model, tmp_path, kind) -> None:
    config = make_config(encoder_settings(kind, make_model))
    policy = Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(tensor.shape, generator=generator) * 0.1 + 0.01 for name, tensor in policy.tensors().items()}
    policy.load_tensors(tensors, 5)
    policy.save(tmp_path / "policy", {"weights_version": 5})
    if kind in SIZES:
        (tmp_path / "model").rename(tmp_path / "gone")
    again = Policy.load(tmp_path / "policy")
    assert again.architecture == policy.architecture and again.architecture.encoder == config.encoder.type
    stored = load_file(tmp_path / "policy" / "policy.safetensors")
    assert stored.keys() == tensors.keys()
    seen = observation(policy.architecture, {"wrist": (64, 64), "front": (60, 80)}, 3)
    assert (again.act(seen) == policy.act(seen)).all()


@pytest.mark.failure("L18")
def test_a_robot_host_builds_the_policy_without_the_models_files(make_model, tmp_path) -> None:
    config = make_config(encoder_settings("resnet", make_model))
    here = PolicyArchitecture.from_config(config)
    (tmp_path / "model").rename(tmp_path / "gone")
    there = PolicyArchitecture.from_config(TrainConfig.model_validate(config.model_dump(mode="json")))
    assert there == here and there.input_spec() == here.input_spec()
    hashes = [Policy(architecture, Preprocessor.from_config(config)).architecture_hash for architecture in (here, there)]
    assert hashes[0] == hashes[1]
