import copy

import pytest
import torch

from hilserl.config.models import PolicyConfig
from hilserl.errors import TrainingError
from hilserl.sac.agent import SacAgent
from hilserl.sac.batch import TensorBatch
from hilserl.sac.networks import InputSpec, StateScaling
from hilserl.vision.small_cnn import SmallCnn, SpatialSoftmax

SPEC = InputSpec(5, {"wrist": (7,)}, 2)


def make_agent(seed: int = 0, **overrides) -> SacAgent:
    config = PolicyConfig(hidden_dims=(16, 16), latent_dim=8, batch_size=8, **overrides)
    return SacAgent(config, SPEC, StateScaling(torch.zeros(5), torch.ones(5)), {}, seed=seed)


def make_batch(seed: int = 0, size: int = 8) -> TensorBatch:
    g = torch.Generator().manual_seed(seed)
    return TensorBatch(
        state=torch.randn(size, 5, generator=g),
        next_state=torch.randn(size, 5, generator=g),
        images={"wrist": torch.randn(size, 7, generator=g)},
        next_images={"wrist": torch.randn(size, 7, generator=g)},
        action=torch.rand(size, 2, generator=g) * 2 - 1,
        reward=torch.rand(size, generator=g),
        terminated=(torch.rand(size, generator=g) > 0.7).float(),
        discount=torch.full((size,), 0.97),
    )


def test_critic_update_follows_a_plainly_written_second_implementation() -> None:
    agent, batch = make_agent(num_critics=3), make_batch()
    reference = copy.deepcopy(agent)
    metrics = agent.update(batch, update_actor=False)

    with torch.no_grad():
        mean, log_std = reference.actor(batch.next_state, batch.next_images)
        noise = torch.randn(mean.shape, generator=reference.generator)
        next_action = torch.tanh(mean + log_std.exp() * noise)
        values = []
        for row in range(len(batch.reward)):
            one = {"wrist": batch.next_images["wrist"][row : row + 1]}
            q = reference.target_critics(batch.next_state[row : row + 1], one, next_action[row : row + 1])
            values.append(batch.reward[row] + (0.0 if batch.terminated[row] else 0.97 * q.min()))
    target = torch.stack([torch.as_tensor(value) for value in values])
    q = reference.critic_ensemble(batch.state, batch.images, batch.action)
    loss = sum(((q[i] - target) ** 2).mean() for i in range(3))
    assert metrics["loss/critic"].item() == pytest.approx(loss.item(), rel=1e-5)
    optimizer = torch.optim.Adam(reference.critic_ensemble.parameters(), 3e-4)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(reference.critic_ensemble.parameters(), 40.0)
    optimizer.step()
    for mine, theirs in zip(agent.critic_ensemble.parameters(), reference.critic_ensemble.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.failure("L05")
def test_targets_lag_behind_and_share_nothing() -> None:
    agent = make_agent()
    online = [*agent.critic_ensemble.parameters(), *agent.vision.parameters()]
    targets = [*agent.target_critics.parameters(), *agent.target_vision.parameters()]
    assert not {p.data_ptr() for p in online} & {p.data_ptr() for p in targets}
    before = [p.clone() for p in targets]
    agent.update(make_batch(), update_actor=False)
    for old, target, new in zip(before, targets, online, strict=True):
        torch.testing.assert_close(target, old + 0.005 * (new - old))


@pytest.mark.failure("L05")
def test_critics_are_independent_up_to_their_last_layer() -> None:
    agent = make_agent(num_critics=2)
    state, images, action = torch.randn(3, 5), {"wrist": torch.randn(3, 7)}, torch.randn(3, 2)
    agent.critic_ensemble(state, images, action)[0].sum().backward()
    for layer in agent.critic_ensemble.layers:
        for parameter in layer.parameters():
            assert parameter.grad is not None
            assert parameter.grad[0].abs().sum() > 0 and parameter.grad[1].abs().sum() == 0


def test_actor_update_leaves_critic_and_targets_untouched() -> None:
    agent, batch = make_agent(), make_batch()
    critic = [p.clone() for p in agent.critic_ensemble.parameters()]
    agent._update_actor(batch.state, batch.images)
    for before, after in zip(critic, agent.critic_ensemble.parameters(), strict=True):
        assert torch.equal(before, after) and after.requires_grad


def test_agent_solves_a_one_step_problem() -> None:
    """Reward is highest at action (0.5, -0.5) whatever the state; every step ends the episode."""
    agent = make_agent(actor_lr=1e-2, critic_lr=1e-2, temperature_lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    best = torch.tensor([0.5, -0.5])
    for step in range(600):
        batch = make_batch(step, 64)
        action = torch.rand(64, 2, generator=generator) * 2 - 1
        reward = 1.0 - (action - best).square().sum(1)
        agent.update(TensorBatch(**{**vars(batch), "action": action, "reward": reward, "terminated": torch.ones(64)}), update_actor=True)
    mean, _ = agent.actor(batch.state, batch.images)
    assert (torch.tanh(mean) - best).abs().max() < 0.15


@pytest.mark.failure("L14")
def test_resumed_learning_equals_uninterrupted_bit_for_bit() -> None:
    uninterrupted = make_agent(num_critics=3, num_subsample_critics=2)
    for step in range(6):
        uninterrupted.update(make_batch(step), update_actor=step % 2 == 1)
    interrupted = make_agent(num_critics=3, num_subsample_critics=2)
    for step in range(3):
        interrupted.update(make_batch(step), update_actor=step % 2 == 1)
    resumed = make_agent(seed=99, num_critics=3, num_subsample_critics=2)
    resumed.load_state_dict(interrupted.state_dict())
    for step in range(3, 6):
        resumed.update(make_batch(step), update_actor=step % 2 == 1)
    expected, actual = uninterrupted.state_dict(), resumed.state_dict()
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name


def test_incomplete_learning_state_is_refused() -> None:
    tensors = make_agent().state_dict()
    del tensors["log_temperature"]
    with pytest.raises(TrainingError, match="log_temperature"):
        make_agent().load_state_dict(tensors)


def test_end_to_end_vision_is_trained_by_the_critic_only() -> None:
    config = PolicyConfig(hidden_dims=(16,), latent_dim=8)
    encoder = SmallCnn(32, 32)
    agent = SacAgent(
        config, InputSpec(5, {"wrist": encoder.feature_shape}, 2), StateScaling(torch.zeros(5), torch.ones(5)), {"wrist": encoder}, seed=0
    )
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    batch = TensorBatch(**{**vars(make_batch()), "images": {"wrist": images}, "next_images": {"wrist": images}})
    before = [p.clone() for p in agent.vision.parameters()]
    agent.update(batch, update_actor=False)
    changed = [not torch.equal(a, b) for a, b in zip(before, agent.vision.parameters(), strict=True)]
    assert all(changed)
    before = [p.clone() for p in agent.vision.parameters()]
    agent._update_actor(batch.state, {k: v.detach() for k, v in agent.vision(batch.images).items()})
    assert all(torch.equal(a, b) for a, b in zip(before, agent.vision.parameters(), strict=True))


def test_spatial_softmax_finds_a_peak() -> None:
    maps = torch.full((1, 1, 11, 11), -50.0)
    maps[0, 0, 2, 8] = 50.0  # row 2, column 8
    torch.testing.assert_close(SpatialSoftmax(11, 11)(maps), torch.tensor([[0.6, -0.6]]))
