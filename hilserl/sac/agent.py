"""SAC with prior data: the networks, their optimisers, and one update."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hilserl.config.models import PolicyConfig
from hilserl.errors import TrainingError
from hilserl.files import content_hash
from hilserl.sac import losses
from hilserl.sac.networks import CriticEnsemble, InputSpec, SquashedGaussianActor, StateScaling, sample_squashed
from hilserl.sac.vision import SmallCnn

STATE_KEY = "observation.state"


@dataclass(frozen=True)
class TensorBatch:
    """Transitions on the training device; B rows.

    Attributes:
        state, next_state: Physical units, (B, S).
        images, next_images: By camera: features (B, F) of a frozen encoder, or uint8 (B, H, W, C), already shifted at random.
        action: (B, A) in [-1, 1].
        reward: Discounted sum over the steps of the return, (B,).
        terminated: 1.0 where the task ended within them, (B,).
        discount: Of the next state's value, `discount ** steps`, (B,).
    """

    state: Tensor
    next_state: Tensor
    images: Mapping[str, Tensor]
    next_images: Mapping[str, Tensor]
    action: Tensor
    reward: Tensor
    terminated: Tensor
    discount: Tensor


class Vision(nn.Module):
    """One encoder per camera, trained with the critic; identity on features that come precomputed."""

    def __init__(self, encoders: Mapping[str, SmallCnn]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode the cameras that have an encoder here; pass the others' features through."""
        return {name: self.encoders[name](image) if name in self.encoders else image for name, image in images.items()}


class SacAgent:
    """Actor, critic ensemble, targets, temperature and optimisers.

    The critic's trunk and the trained vision encoder have their own slowly moving target copies;
    the actor reads the critic's vision without sending gradients into it.
    """

    def __init__(
        self,
        config: PolicyConfig,
        spec: InputSpec,
        scaling: StateScaling,
        trained_encoders: Mapping[str, SmallCnn],
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.target_entropy = -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = SquashedGaussianActor(spec, latent_dim=config.latent_dim, hidden_dims=config.hidden_dims)
            self.critic_ensemble = CriticEnsemble(
                spec, members=config.num_critics, latent_dim=config.latent_dim, hidden_dims=config.hidden_dims
            )
        self.vision = Vision(trained_encoders)
        self.scaling = scaling
        for module in (self.actor, self.critic_ensemble, self.vision, self.scaling):
            module.to(self.device)
        self.target_critics = copy.deepcopy(self.critic_ensemble).requires_grad_(False)
        self.target_vision = copy.deepcopy(self.vision).requires_grad_(False)
        self.log_temperature = torch.tensor(config.temperature_init, device=self.device).log().requires_grad_()
        self._critic_parameters: list[Tensor] = [*self.critic_ensemble.parameters(), *self.vision.parameters()]
        self._target_parameters: list[Tensor] = [*self.target_critics.parameters(), *self.target_vision.parameters()]
        self._actor_parameters = list(self.actor.parameters())
        self.critic_optimizer = torch.optim.Adam(self._critic_parameters, config.critic_lr, fused=True)
        self.actor_optimizer = torch.optim.Adam(self._actor_parameters, config.actor_lr, fused=True)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], config.temperature_lr)
        self.generator = torch.Generator().manual_seed(seed + 1)

    @property
    def architecture(self) -> str:
        """Hash of the names, shapes and dtypes of everything that travels to the actor."""
        return architecture_hash(self.policy_tensors())

    def policy_tensors(self) -> dict[str, Tensor]:
        """Return what is needed to act: actor, trained vision and state scaling, by name."""
        return policy_tensors(self.actor, self.vision, self.scaling)

    def update(self, batch: TensorBatch, *, update_actor: bool) -> dict[str, Tensor]:
        """Do one critic update, and one of actor and temperature when asked.

        Returns:
            Scalars without gradient, still tensors so that nothing waits for the device.
        """
        state, next_state = self.scaling(batch.state), self.scaling(batch.next_state)
        temperature = self.log_temperature.detach().exp()
        target = self._target(batch, next_state, temperature)
        features = self.vision(batch.images)
        q = self.critic_ensemble(state, features, batch.action)
        loss = losses.critic_loss(q, target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self._critic_parameters, self.config.grad_clip_norm)
        self.critic_optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._target_parameters, self._critic_parameters, self.config.critic_target_update_weight)
        metrics = {"loss/critic": loss.detach(), "q/mean": q.detach().mean(), "q/max": q.detach().max(), "grad_norm/critic": grad_norm}
        if update_actor:
            metrics |= self._update_actor(state, {name: value.detach() for name, value in features.items()})
        return metrics

    def _update_actor(self, state: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mean, log_std = self.actor(state, features)
        action, log_probability = sample_squashed(mean, log_std, self._noise(mean))
        self.critic_ensemble.requires_grad_(False)
        q = (
            self.critic_ensemble(state, features, action).mean(0)
            if self._averages_critics
            else self.critic_ensemble(state, features, action).amin(0)
        )
        self.critic_ensemble.requires_grad_(True)
        loss = losses.actor_loss(self.log_temperature.detach().exp(), log_probability, q)
        self.actor_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self._actor_parameters, self.config.grad_clip_norm)
        self.actor_optimizer.step()
        temperature_loss = losses.temperature_loss(self.log_temperature, log_probability, self.target_entropy)
        self.temperature_optimizer.zero_grad(set_to_none=True)
        temperature_loss.backward()
        self.temperature_optimizer.step()
        return {
            "loss/actor": loss.detach(),
            "loss/temperature": temperature_loss.detach(),
            "temperature": self.log_temperature.detach().exp(),
            "entropy": -log_probability.detach().mean(),
            "action/mean_abs": action.detach().abs().mean(),
            "grad_norm/actor": grad_norm,
        }

    @property
    def _averages_critics(self) -> bool:
        # RLPD's actor climbs the ensemble mean when targets use a sub-sampled minimum (its Algorithm 1).
        return self.config.num_subsample_critics is not None

    @torch.no_grad()
    def _target(self, batch: TensorBatch, next_state: Tensor, temperature: Tensor) -> Tensor:
        mean, log_std = self.actor(next_state, self.vision(batch.next_images))
        next_action, log_probability = sample_squashed(mean, log_std, self._noise(mean))
        target_q = self.target_critics(next_state, self.target_vision(batch.next_images), next_action)
        subset = losses.subset_of_critics(self.config.num_critics, self.config.num_subsample_critics, self.generator)
        next_q = losses.minimum_over_subset(target_q, subset.to(self.device))
        if self.config.use_backup_entropy:
            next_q = next_q - temperature * log_probability
        return losses.td_target(batch.reward, batch.terminated, next_q, batch.discount)

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator).to(self.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor of the learning state by a flat name; restored by `load_state_dict`."""
        tensors = {f"{owner}.{name}": tensor for owner, module in self._modules().items() for name, tensor in module.state_dict().items()}
        tensors["log_temperature"] = self.log_temperature.detach()
        tensors["generator"] = self.generator.get_state()
        for owner, optimizer in self._optimizers().items():
            for index, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{owner}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            TrainingError: Names or shapes differ.
        """
        expected = {owner: module.state_dict() for owner, module in self._modules().items()}
        names = {f"{owner}.{name}" for owner, entries in expected.items() for name in entries}
        missing = sorted((names | {"log_temperature", "generator"}) - tensors.keys())
        if missing:
            raise TrainingError(f"the saved learning state lacks {missing[:3]}{' and more' if len(missing) > 3 else ''}")
        for owner, entries in expected.items():
            for name, entry in entries.items():
                if (saved := tensors[f"{owner}.{name}"].shape) != entry.shape:
                    raise TrainingError(
                        f"`{owner}.{name}` was saved with shape {tuple(saved)}, this configuration and code make it {tuple(entry.shape)}. "
                        "Start a new run with `--fresh`."
                    )
        for owner, module in self._modules().items():
            module.load_state_dict({name: tensors[f"{owner}.{name}"] for name in expected[owner]})
        with torch.no_grad():
            self.log_temperature.copy_(tensors["log_temperature"])
        self.generator.set_state(tensors["generator"])
        for owner, optimizer in self._optimizers().items():
            state: dict[int, dict[str, Any]] = {}
            prefix = f"optimizer.{owner}."
            for name, tensor in tensors.items():
                if name.startswith(prefix):
                    index, slot = name.removeprefix(prefix).split(".")
                    state.setdefault(int(index), {})[slot] = tensor.clone()
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "critic": self.critic_ensemble,
            "target_critic": self.target_critics,
            "vision": self.vision,
            "target_vision": self.target_vision,
            "scaling": self.scaling,
        }

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"critic": self.critic_optimizer, "actor": self.actor_optimizer, "temperature": self.temperature_optimizer}


def policy_tensors(actor: nn.Module, vision: nn.Module, scaling: nn.Module) -> dict[str, Tensor]:
    """Name the tensors that acting needs."""
    owners = {"actor": actor, "vision": vision, "scaling": scaling}
    return dict(itertools.chain.from_iterable(((f"{o}.{n}", t.detach()) for n, t in m.state_dict().items()) for o, m in owners.items()))


def architecture_hash(tensors: Mapping[str, Tensor]) -> str:
    """Identify an architecture by the names, shapes and dtypes of its tensors."""
    return content_hash({name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors.items()})
