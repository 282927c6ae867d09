import numpy as np
import pytest
import torch
from export_helpers import CROPPED, RESIZED, TRAINED

from hilserl.errors import CheckpointError
from hilserl.export import gaussian_actor
from hilserl.export.lerobot_folder import export_lerobot
from hilserl.export.lerobot_policy import LeRobotPolicy
from hilserl.export.probe import probe_observations

LEROBOT_CNN = {"encoder.type": "lerobot_cnn", **TRAINED}


@pytest.mark.parametrize(
    ("config", "overrides"),
    [("reach_state", {}), ("lift", {**LEROBOT_CNN, **CROPPED})],
    ids=["state", "cropped camera and gripper"],
)
def test_lerobot_acts_as_the_policy_does(make_source, tmp_path, config, overrides) -> None:
    source = make_source(config, **overrides)
    written = export_lerobot(source, tmp_path / "out")
    assert (written.policy_type, written.reason) == ("gaussian_actor", None)
    loaded = LeRobotPolicy(tmp_path / "out")
    observations = probe_observations(source.policy, 20, seed=9)
    ours = np.stack([source.policy.act(observation) for observation in observations])
    theirs = np.stack([loaded.act(observation) for observation in observations])
    assert np.abs(ours - theirs).max() < 5e-6
    assert ours.std(axis=0).min() > 0.05  # so that the agreement says something
    assert (np.stack([loaded.act(observation) for observation in observations]) == theirs).all()  # it samples, but from a point


def test_every_tensor_that_lerobot_names_is_ours(make_source) -> None:
    source = make_source("lift", **LEROBOT_CNN, **CROPPED)
    theirs = gaussian_actor.build_policy(source.policy).state_dict()
    ours = {tensor.abs().sum().item() for tensor in source.policy.tensors().values()}
    foreign = [
        name
        for name, tensor in theirs.items()
        if "std_layer" not in name and not any(abs(tensor.abs().sum().item() - own) < 1e-3 for own in ours)
    ]
    assert foreign == []


def test_its_exploration_would_be_ours_if_lerobot_widened_the_deviation(make_source) -> None:
    # LeRobot's std is a variance (facts: it is given to MultivariateNormal as covariance).
    source = make_source("reach_state")
    theirs = gaussian_actor.build_policy(source.policy)
    state = torch.randn(5, source.policy.architecture.state_dim)
    log_std = source.policy.networks.actor.log_std(source.policy.networks.actor.layers(source.policy.networks.actor.trunk(state, {})))
    log_variance = theirs.actor.std_layer(theirs.actor.network(theirs.actor.encoder({"observation.state": state})))
    assert torch.allclose(log_variance.exp().sqrt(), log_std.exp(), rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "overrides", "reason"),
    [
        ("lift", {**LEROBOT_CNN, "policy.gripper": "discrete"}, "discrete gripper"),
        ("reach", TRAINED | {"encoder.type": "cnn"}, "encoder is a SmallCnn"),
        ("lift", {**LEROBOT_CNN, **RESIZED}, "camera `wrist` is resized from 100x110 to 60x64"),
        (
            "lift",
            {
                **LEROBOT_CNN,
                "robot.cameras.front": {"width": 84, "height": 84, "fovy_deg": 60},
                "observation.images.front": {"resize": [84, 84]},
            },
            "several cameras",
        ),
    ],
)
def test_what_it_cannot_represent_is_named(make_source, config, overrides, reason) -> None:
    assert reason in str(gaussian_actor.obstacle(make_source(config, **overrides).policy))


def test_a_wrong_translation_is_refused_and_writes_nothing(make_source, tmp_path, monkeypatch) -> None:
    source = make_source("lift", **LEROBOT_CNN, **CROPPED)
    right = gaussian_actor._weights

    def wrong(policy):
        weights = right(policy)
        # What forgetting that the inputs are concatenated in another order would do.
        weights["actor.network.net.0.weight"] = weights["actor.network.net.0.weight"].roll(policy.architecture.latent_dim, dims=1)
        return weights

    monkeypatch.setattr(gaussian_actor, "_weights", wrong)
    with pytest.raises(CheckpointError, match=r"differs from the policy .* Nothing was written"):
        export_lerobot(source, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_the_model_card_says_task_success_and_names(make_source, tmp_path) -> None:
    source = make_source("reach_state")
    export_lerobot(source, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    # Wilson's interval of 18 of 20, from the literature's formula by hand: 0.699 to 0.972.
    assert "90.0% of 20 episodes (95 % Wilson interval 69.9% to 97.2%" in card
    assert "task: reach_state" in card and "steps of training: 123" in card
    assert all(name in card for name in (*source.action.names, *source.observation["observation.state"].names))


def test_the_state_that_lerobot_itself_assembles_is_refused(make_source, tmp_path) -> None:
    source = make_source("reach_state")
    export_lerobot(source, tmp_path / "out")
    six_joints_in_degrees = np.zeros(6, np.float32)
    with pytest.raises(RuntimeError, match="size"):
        LeRobotPolicy(tmp_path / "out").act({"observation.state": six_joints_in_degrees})
