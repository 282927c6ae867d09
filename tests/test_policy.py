import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CheckpointError
from hilserl.policy import Policy, PolicyArchitecture
from hilserl.schema import STATE_KEY


@pytest.fixture
def policy(tiny_config) -> Policy:
    return Policy(PolicyArchitecture.from_config(tiny_config), Preprocessor.from_config(tiny_config))


def observation(policy: Policy, seed: int = 0) -> dict[str, np.ndarray]:
    state = np.random.default_rng(seed).uniform(-0.5, 0.5, policy.architecture.state_dim)
    return {STATE_KEY: state.astype(np.float32)}


def random_tensors(policy: Policy, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(tensor.shape, generator=generator).abs() + 0.1 for name, tensor in policy.tensors().items()}


@pytest.fixture
def saved(policy, tmp_path) -> Path:
    policy.load_tensors(random_tensors(policy), 7)
    policy.save(tmp_path / "policy", {"weights_version": 7})
    return tmp_path / "policy"


@pytest.mark.failure("L18")
def test_without_weights_there_is_no_action(policy) -> None:
    with pytest.raises(CheckpointError, match="no motion before"):
        policy.act(observation(policy))


@pytest.mark.failure("L18")
def test_weights_of_another_architecture_or_not_finite_change_nothing(policy) -> None:
    policy.load_tensors(random_tensors(policy), 1)
    before = {name: tensor.clone() for name, tensor in policy.tensors().items()}
    other = random_tensors(policy, 1)
    with pytest.raises(CheckpointError, match="of architecture"):
        policy.load_tensors({name: tensor for name, tensor in other.items() if "log_std" not in name}, 2)
    last = list(other)[-1]
    other[last] = torch.full_like(other[last], float("nan"))
    with pytest.raises(CheckpointError, match=f"`{last}` is not finite"):
        policy.load_tensors(other, 2)
    assert policy.version == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.tensors().items())


@pytest.mark.failure("L21")
def test_without_a_generator_the_action_is_the_mode_and_with_one_it_varies_around_it(policy) -> None:
    policy.load_tensors(random_tensors(policy), 1)
    seen = observation(policy)
    mode = policy.act(seen)
    assert mode.dtype == np.float32 and (np.abs(mode) <= 1).all()
    assert (policy.act(seen) == mode).all()
    generator = torch.Generator().manual_seed(0)
    samples = np.stack([policy.act(seen, generator=generator) for _ in range(200)])
    assert samples.std(axis=0).min() > 0


def test_a_saved_policy_acts_as_before(policy, saved) -> None:
    again = Policy.load(saved)
    assert again.version == 7 and again.schema_hash == policy.schema_hash
    for seed in range(5):
        assert (again.act(observation(policy, seed)) == policy.act(observation(policy, seed))).all()


def flip_last_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.failure("L15")
def test_one_flipped_bit_of_the_weights_is_found(saved) -> None:
    flip_last_byte(saved / "policy.safetensors")
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        Policy.load(saved)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "policy.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "policy.json").write_text('{"format_version": 2, "archi'), "cannot be read"),
        (lambda folder: (folder / "policy.json").write_text("[]"), "format version None"),
        (lambda folder: edit(folder, format_version=1), "format version 1"),
        (lambda folder: edit(folder, architecture={"state_dim": "many"}), "damaged"),
        (lambda folder: edit(folder, sha256=None), "checksum"),
        (lambda folder: (folder / "policy.safetensors").unlink(), "cannot be read"),
    ],
)
def test_a_damaged_policy_is_refused_with_its_file(saved, damage, message) -> None:
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        Policy.load(saved)
    assert str(saved) in str(caught.value)


def edit(folder: Path, **values) -> None:
    manifest = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps(manifest | values))
