"""The policy that acts is the one that was published, whatever part of it was loaded before."""

from typing import Any

import numpy as np
import pytest
import torch

from hilserl.actor.loop import Actor
from hilserl.config.models import TrainConfig
from hilserl.data.preprocess import Preprocessor
from hilserl.errors import CheckpointError
from hilserl.link.messages import FrozenTensors, LearnerStatus, Weights
from hilserl.policy import Policy, PolicyArchitecture


class Inbox:
    """The actor's end of the link, as far as weights go."""

    def __init__(self) -> None:
        self.status = LearnerStatus()
        self.weights: Weights | None = None

    def latest_weights(self) -> Weights | None:
        weights, self.weights = self.weights, None
        return weights


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig.model_validate({"observation": {"images": {"wrist": {"resize": [32, 32]}}}})


@pytest.fixture
def policy(config: TrainConfig) -> Policy:
    return Policy(PolicyArchitecture.from_config(config), Preprocessor.from_config(config))


@pytest.fixture
def loaded(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Names that the policy was given, by load."""
    names: list[set[str]] = []
    original = policy.load_tensors

    def noting(tensors: Any, version: int, **options: Any) -> None:
        names.append(set(tensors))
        original(tensors, version, **options)

    monkeypatch.setattr(policy, "load_tensors", noting)
    return names


def make_arrays(policy: Policy, seed: int, *, vision: bool) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: np.asarray(random.standard_normal(tuple(tensor.shape)), np.float32)
        for name, tensor in policy.tensors().items()
        if name.startswith("vision.") == vision
    }


@pytest.mark.failure("L18")
def test_every_push_gives_the_whole_policy_and_frozen_tensors_are_loaded_when_they_change(
    config: TrainConfig, policy: Policy, loaded: list[set[str]]
) -> None:
    inbox = Inbox()
    actor = Actor(config, None, None, policy, inbox, lambda: None)  # type: ignore[arg-type]
    one, other = (FrozenTensors.create(make_arrays(policy, seed, vision=True)) for seed in (100, 101))
    everything = set(policy.tensors())
    frozen_names = set(one.tensors)
    assert frozen_names
    for version, frozen in enumerate((one, one, other, other, one), 1):
        inbox.weights = published = Weights.create(version, make_arrays(policy, version, vision=False), frozen)
        actor._take_new_weights()
        assert policy.version == version
        for name, tensor in policy.tensors().items():
            assert torch.equal(tensor, torch.from_numpy(published.tensors[name].copy())), name
    assert loaded == [everything, everything - frozen_names, everything, everything - frozen_names, everything]


@pytest.mark.failure("L18")
def test_a_policy_without_weights_keeps_nothing(policy: Policy) -> None:
    trained = {name: torch.from_numpy(array) for name, array in make_arrays(policy, 0, vision=False).items()}
    frozen = make_arrays(policy, 0, vision=True)
    with pytest.raises(CheckpointError, match=r"leave out `vision.* has no weights yet"):
        policy.load_tensors(trained, 1, kept=frozen)
    assert policy.version < 0


@pytest.mark.failure("L18")
def test_what_is_neither_given_nor_kept_is_missed(policy: Policy) -> None:
    trained = {name: torch.from_numpy(array) for name, array in make_arrays(policy, 0, vision=False).items()}
    frozen = {name: torch.from_numpy(array) for name, array in make_arrays(policy, 0, vision=True).items()}
    policy.load_tensors(trained | frozen, 1)
    for kept in ((), list(frozen)[1:]):
        with pytest.raises(CheckpointError, match="of architecture"):
            policy.load_tensors(trained, 2, kept=kept)
    assert policy.version == 1
    policy.load_tensors(trained, 2, kept=frozen)
    assert policy.version == 2
