"""How the learner's composition root chooses encoders, and what it refuses."""

import pytest
import torch

from hilserl.config.loader import load_config
from hilserl.errors import ConfigError, TrainingError
from hilserl.learner.run import _encoders
from hilserl.policy import PolicyArchitecture
from hilserl.sac.agent import SacAgent
from hilserl.sac.networks import InputSpec, StateScaling


@pytest.mark.failure("L10")
def test_a_frozen_random_encoder_is_refused_by_the_configuration() -> None:
    with pytest.raises(ConfigError, match="a frozen encoder must be a pretrained one"):
        load_config("reach", {"encoder.type": "cnn"})


@pytest.mark.failure("L10")
def test_pretrained_encoders_that_are_not_there_are_not_replaced_by_random_ones() -> None:
    config = load_config("reach")
    with pytest.raises(TrainingError, match="no pretrained encoders were given"):
        _encoders(config, PolicyArchitecture.from_config(config), None)


def test_encoders_from_scratch_follow_the_seed() -> None:
    config = load_config("reach", {"encoder.type": "cnn", "encoder.freeze": False})
    architecture = PolicyArchitecture.from_config(config)
    torch.manual_seed(1)
    first = _encoders(config, architecture, None)["wrist"].state_dict()
    torch.manual_seed(2)
    again = _encoders(config, architecture, None)["wrist"].state_dict()
    other = _encoders(config.model_copy(update={"seed": 9}), architecture, None)["wrist"].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.failure("L14")
def test_a_learning_state_of_other_sizes_is_refused_by_name(tiny_config) -> None:
    def agent(width: int) -> SacAgent:
        config = tiny_config.policy.model_copy(update={"hidden_dims": (width,)})
        return SacAgent(config, InputSpec(4, {}, 3), StateScaling(torch.zeros(4), torch.ones(4)), {}, seed=0)

    with pytest.raises(TrainingError, match=r"saved with shape \(8, .*--fresh"):
        agent(16).load_state_dict(agent(8).state_dict())
